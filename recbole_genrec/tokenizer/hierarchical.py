"""Codes as paths in a tree of clusters: ``text-hierarchical`` splits sentence embeddings, ``cid`` the co-occurrence graph of the items."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.rules import Rule
from recbole_genrec.tokenizer.kmeans import CHUNK, check_rows, cluster, nearest, squared_distances
from recbole_genrec.tokenizer.residual_kmeans import effective_sizes
from recbole_genrec.tokenizer.vectors import VectorTokenizer


@dataclass(frozen=True, eq=False)
class HierarchicalKMeans:
    """A fitted tree: each node of level l - 1 has up to K_l children, and a code is the number of a child within its parent.

    Unlike residual k-means, every parent has centroids of its own, in the space of the vectors themselves. N_l = nodes of level l.

    Attributes:
        sizes: K_l, most children that a node of level l - 1 may have.
        centroids: L tensors float64 ``[N_l, d]``, siblings side by side.
        first: L tensors int64 ``[N_(l-1) + 1]``: node p of level l - 1 has the children ``first[p] .. first[p + 1] - 1`` of level l.
    """

    sizes: tuple[int, ...]
    centroids: tuple[Tensor, ...]
    first: tuple[Tensor, ...]

    @classmethod
    def fit(cls, x: Tensor, sizes: Sequence[int], seed: int = 0) -> HierarchicalKMeans:
        """Split ``x [n, d]`` by k-means (plain, not balanced: our choice) and each cluster again, level by level.

        Level l gets ``effective_sizes(n, sizes)[l]`` codes. A cluster with no more distinct rows than that gives each row its own child.
        Children are numbered from the middle of their parent outwards (our choice), so that a code means something under every parent.
        Neither row order nor threads change the result. :class:`DataError` for values not finite, :class:`ConfigError` for bad sizes.
        """
        if not sizes or min(sizes) < 1:
            raise ConfigError(f"Hierarchical k-means needs codebook_sizes of 1 or more, got {list(sizes)}.")
        check_rows(x)
        rows, counts = torch.unique(x.detach().cpu().double(), dim=0, return_counts=True)
        sizes, centroids, first = effective_sizes(len(x), sizes), [], []
        node = torch.zeros(len(rows), dtype=torch.long)
        with threadpool_limits(1):
            for size in sizes:
                books, child = [], torch.empty_like(node)
                for _, members in _groups(node):
                    points, weights = rows[members], counts[members]
                    book = cluster(points, weights, size, n_init=1, seed=seed, max_iter=100)
                    middle = (points * weights[:, None]).sum(0, keepdim=True) / weights.sum()
                    book = book[squared_distances(middle, book)[0].argsort(stable=True)]
                    used, child[members] = torch.unique(nearest(points, book), return_inverse=True)
                    books.append(book[used])
                first.append(torch.tensor([0, *map(len, books)]).cumsum(0))
                centroids.append(torch.cat(books))
                node = first[-1][node] + child
        return cls(sizes, tuple(centroids), tuple(first))

    def assign(self, x: Tensor) -> Tensor:
        """Codes of each row, int64 ``[n, L]``, by going down to the nearest child; equal rows get equal codes."""
        check_rows(x)
        rows, inverse = torch.unique(x.detach().cpu().double(), dim=0, return_inverse=True)
        parts = rows.split(max(1, CHUNK // max(self.sizes)))
        return torch.cat([torch.stack([codes for _, codes in self._path(part)], dim=1) for part in parts])[inverse]

    def level_distances(self, x: Tensor) -> list[Tensor]:
        """Squared distances to the children on the way of :meth:`assign`, L tensors float64 ``[n, K_l]``.

        Children that a parent does not have count as far as its farthest one, so that collision policies may use their codes.
        """
        return [distances for distances, _ in self._path(x.detach().cpu().double())]

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Centroids of the nodes that ``codes [n, l]`` of the first l <= L levels lead to, ``[n, d]``; :class:`ConfigError` if to none."""
        node = torch.zeros(len(codes), dtype=torch.long)
        for first, column in zip(self.first, codes.unbind(1), strict=False):
            if ((column < 0) | (first[node] + column >= first[node + 1])).any():
                raise ConfigError("Hierarchical k-means rebuilds vectors from the codes of assign() only, not from repaired ones.")
            node = first[node] + column
        return self.centroids[codes.shape[1] - 1][node]

    def _path(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each level: distances of ``points [n, d]`` to the children of the node before ``[n, K_l]``, and the nearest one ``[n]``."""
        node = torch.zeros(len(points), dtype=torch.long)
        for size, centroids, first in zip(self.sizes, self.centroids, self.first, strict=True):
            distances = points.new_empty(len(points), size)
            for parent, members in _groups(node):
                found = squared_distances(points[members], centroids[first[parent] : first[parent + 1]])
                absent = found.amax(1, keepdim=True).expand(-1, size - found.shape[1])
                distances[members] = torch.cat([found, absent], dim=1)
            codes = distances.argmin(1)  # the first of equally near ones, hence a child that exists
            yield distances, codes
            node = first[node] + codes

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        levels = {f"{name}.{level}": value for name in ("centroids", "first") for level, value in enumerate(getattr(self, name))}
        return levels | {"sizes": torch.tensor(self.sizes)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> HierarchicalKMeans:
        """The quantiser whose :meth:`tensors` these are."""
        levels = range(len(tensors["sizes"]))
        trees = (tuple(tensors[f"{name}.{level}"] for level in levels) for name in ("centroids", "first"))
        return cls(tuple(tensors["sizes"].tolist()), *trees)


class TextHierarchicalTokenizer(VectorTokenizer):
    """Hierarchical k-means on sentence embeddings: items of similar text share a prefix."""

    name = "text-hierarchical"

    def learn(self, x: Tensor, content) -> None:
        """Split the items level by level."""
        self.quantiser = HierarchicalKMeans.fit(x, self.config["codebook_sizes"], self.seed)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Scaling and tree."""
        tensors, meta = super().state()
        return {**tensors, **self.quantiser.tensors()}, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        self.quantiser = HierarchicalKMeans.from_tensors(tensors)


class CIDTokenizer(TextHierarchicalTokenizer):
    """Collaborative indexing (CID; Hua et al., arXiv 2305.06569): items of the same training sequences share a prefix.

    The paper clusters the graph of co-occurrences spectrally and each cluster again. Here one embedding of the whole graph
    (:func:`spectral_embedding`) is split by :class:`HierarchicalKMeans`; this, the fixed depth, the last code instead of a running number,
    and the one place for all items without co-occurrences (that of the zero vector) are our choice (unpublished).
    """

    name = "cid"
    uses_text = uses_graph = False
    uses_interactions = True
    settings = ("spectral_dim", "standardize", "codebook_sizes", "collision", "dedup_spare")
    config_rules = {**VectorTokenizer.config_rules, "spectral_dim": Rule(int, "eigenvectors of the co-occurrence graph", low=2)}

    def vectors(self, content) -> np.ndarray:
        """Spectral embedding of the items by raw id, so that their order changes nothing; ``quality`` counts those without neighbours."""
        sequences, started = content.item_sequences(), time.process_time()
        rank = np.argsort(np.argsort(np.array(content.tokens), kind="stable"))
        graph = co_occurrences([rank[items] for items in sequences], len(rank))
        self.quality["items_without_co_occurrence"] = int((graph.sum(1) == 0).sum()) - 1  # the padding item
        vectors = spectral_embedding(graph, self.config["spectral_dim"], self.seed)[rank]
        self.quality["spectral_cpu_seconds"] = time.process_time() - started
        return vectors

    def _new(self, texts: Sequence[str]) -> Tensor:
        raise ConfigError("tokenizer: cid places items by their training interactions, which new items do not have. Use a text tokenizer.")


def co_occurrences(sequences: Sequence[np.ndarray], n: int) -> csr_array:
    """Symmetric float64 ``[n, n]``: how many of the ``sequences`` of item ids below ``n`` hold both items (our choice), zero diagonal."""
    users = np.repeat(np.arange(len(sequences)), [len(items) for items in sequences])
    items = np.concatenate([*sequences, np.zeros(0, dtype=np.int64)])
    pairs = np.unique(np.stack([users, items]), axis=1)
    held = csr_array((np.ones(pairs.shape[1]), pairs), shape=(len(sequences), n))
    graph = csr_array(held.T @ held)
    return csr_array(graph - diags_array(graph.diagonal()))


def spectral_embedding(graph: csr_array, dim: int, seed: int = 0) -> np.ndarray:
    """Rows of the leading eigenvectors of D^-1/2 A D^-1/2, A = ``graph [n, n]``, D = its row sums, scaled to length 1 (Ng, Jordan, Weiss
    2001), float32 ``[n, <= dim]``. Vertices without edges get the zero vector."""
    connected = np.flatnonzero(graph.sum(1))
    vectors = np.zeros((graph.shape[0], max(1, min(dim, len(connected) - 1))))
    if len(connected):
        part = graph[connected][:, connected]
        scale = diags_array(1 / np.sqrt(part.sum(1)))
        start = np.random.default_rng(seed).standard_normal(len(connected))
        with threadpool_limits(1):
            found = eigsh(scale @ part @ scale, vectors.shape[1], which="LA", v0=start)[1]
        vectors[connected] = found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)
    return vectors.astype(np.float32)


def _groups(node: Tensor) -> list[tuple[int, Tensor]]:
    """Which rows each number of ``node [n]`` has: (number, rows in ascending order), numbers ascending."""
    order = torch.argsort(node, stable=True)
    numbers, counts = torch.unique_consecutive(node[order], return_counts=True)
    return list(zip(numbers.tolist(), order.split(counts.tolist()), strict=True))
