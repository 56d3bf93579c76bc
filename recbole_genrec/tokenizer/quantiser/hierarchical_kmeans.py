"""k-means of k-means: a tree of clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.kmeans import (
    CHUNK,
    check_rows,
    cluster,
    nearest,
    squared_distances,
)


@dataclass(frozen=True, eq=False)
class HierarchicalKMeans:
    """A fitted tree of clusters.

    Each node of level l - 1 has up to K_l children, and a code is the number of a child within its
    parent.

    Unlike residual k-means, every parent has centroids of its own, in the space of the vectors
    themselves. N_l = nodes of level l.

    Attributes:
        sizes: K_l, most children that a node of level l - 1 may have.
        centroids: L tensors float64 ``[N_l, d]``, siblings side by side.
        first: L tensors int64 ``[N_(l-1) + 1]``: node p of level l - 1 has the children ``first[p]
            .. first[p + 1] - 1`` of level l.
    """

    sizes: tuple[int, ...]
    centroids: tuple[Tensor, ...]
    first: tuple[Tensor, ...]

    @classmethod
    def fit(cls, x: Tensor, sizes: Sequence[int], seed: int = 0) -> HierarchicalKMeans:
        """Split ``x [n, d]`` by k-means and each cluster again, level by level.

        Plain k-means, not balanced (our choice).

        Level l gets ``sizes[l]`` codes. A cluster with no more distinct rows than that gives each
        row its own child. Children are numbered from the middle of their parent outwards (our
        choice), so that a code means something under every parent. Neither row order nor threads
        change the result. :class:`DataError` for values not finite, :class:`ConfigError` for bad
        sizes.
        """
        if not sizes or min(sizes) < 1:
            raise ConfigError(
                f"Hierarchical k-means needs codebook_sizes of 1 or more, got {list(sizes)}."
            )
        check_rows(x)
        rows, counts = torch.unique(x.detach().cpu().double(), dim=0, return_counts=True)
        centroids, first = [], []
        node = torch.zeros(len(rows), dtype=torch.long)
        with threadpool_limits(1):
            for size in sizes:
                books, child = [], torch.empty_like(node)
                for _, members in _groups(node):
                    points, weights = rows[members], counts[members]
                    book = cluster(points, weights, size, seed)
                    middle = (points * weights[:, None]).sum(0, keepdim=True) / weights.sum()
                    book = book[squared_distances(middle, book)[0].argsort(stable=True)]
                    used, child[members] = torch.unique(nearest(points, book), return_inverse=True)
                    books.append(book[used])
                first.append(torch.tensor([0, *map(len, books)]).cumsum(0))
                centroids.append(torch.cat(books))
                node = first[-1][node] + child
        return cls(tuple(sizes), tuple(centroids), tuple(first))

    def assign(self, x: Tensor) -> Tensor:
        """Codes of each row, int64 ``[n, L]``, by going down to the nearest child.

        Equal rows get equal codes.
        """
        check_rows(x)
        rows, inverse = torch.unique(x.detach().cpu().double(), dim=0, return_inverse=True)
        chunks = []
        for chunk in rows.split(max(1, CHUNK // max(self.sizes))):
            codes = [codes for _, codes in self._path(chunk)]
            chunks.append(torch.stack(codes, dim=1))
        return torch.cat(chunks)[inverse]

    def level_distances(self, x: Tensor) -> list[Tensor]:
        """Squared distances to the children on the way of :meth:`assign`.

        L tensors float64 ``[n, K_l]``.

        Children that a parent does not have count as far as its farthest one, so that collision
        policies may use their codes.
        """
        return [distances for distances, _ in self._path(x.detach().cpu().double())]

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Centroids ``[n, d]`` of the nodes that ``codes [n, l]`` of the first levels lead to.

        Raises:
            ConfigError: they lead to no node.
        """
        node = torch.zeros(len(codes), dtype=torch.long)
        for first, column in zip(self.first, codes.unbind(1), strict=False):
            if ((column < 0) | (first[node] + column >= first[node + 1])).any():
                raise ConfigError(
                    "Hierarchical k-means rebuilds vectors from the codes of assign() only, not "
                    "from repaired ones."
                )
            node = first[node] + column
        return self.centroids[codes.shape[1] - 1][node]

    def _path(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Go down the tree, level by level.

        Yields for each level the distances of ``points [n, d]`` to the children of the node before,
        ``[n, K_l]``, and the nearest child ``[n]``.
        """
        node = torch.zeros(len(points), dtype=torch.long)
        for size, centroids, first in zip(self.sizes, self.centroids, self.first, strict=True):
            distances = points.new_empty(len(points), size)
            for parent, members in _groups(node):
                to_children = squared_distances(
                    points[members], centroids[first[parent] : first[parent + 1]]
                )
                absent = to_children.amax(1, keepdim=True).expand(-1, size - to_children.shape[1])
                distances[members] = torch.cat([to_children, absent], dim=1)
            codes = distances.argmin(1)  # the first of equally near ones, hence a child that exists
            yield distances, codes
            node = first[node] + codes

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        levels = {
            f"{name}.{level}": value
            for name in ("centroids", "first")
            for level, value in enumerate(getattr(self, name))
        }
        return levels | {"sizes": torch.tensor(self.sizes)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> HierarchicalKMeans:
        """The quantiser whose :meth:`tensors` these are."""
        levels = range(len(tensors["sizes"]))
        centroids = tuple(tensors[f"centroids.{level}"] for level in levels)
        first = tuple(tensors[f"first.{level}"] for level in levels)
        return cls(tuple(tensors["sizes"].tolist()), centroids, first)


def _groups(node: Tensor) -> list[tuple[int, Tensor]]:
    """Which rows each number of ``node [n]`` has.

    (number, rows in ascending order), numbers ascending.
    """
    order = torch.argsort(node, stable=True)
    numbers, counts = torch.unique_consecutive(node[order], return_counts=True)
    return list(zip(numbers.tolist(), order.split(counts.tolist()), strict=True))
