"""Codes as paths in a tree of clusters.

``text-hierarchical`` splits sentence embeddings, ``cid`` the co-occurrence graph of the items.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.data.ids import rows_in_order_of_ids
from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import RepairKeys, ScaleKeys, TokenizerSettings
from recbole_genrec.tokenizer.base import NewItems
from recbole_genrec.tokenizer.quantiser.hierarchical_kmeans import HierarchicalKMeans
from recbole_genrec.tokenizer.vector_tokenizer import FittedQuantiserTokenizer

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class TextHierarchicalTokenizer(FittedQuantiserTokenizer):
    """Hierarchical k-means on sentence embeddings: items of similar text share a prefix."""

    name = "text-hierarchical"
    quantiser_class = HierarchicalKMeans

    def learn(self, x: Tensor, content: ItemContent) -> None:
        """Split the items level by level."""
        self.quantiser = HierarchicalKMeans.fit(x, self.fitted_sizes(len(x)), self.seed)


class CIDSettings(ScaleKeys, RepairKeys, TokenizerSettings):
    """Keys of ``tokenizer: cid``."""

    spectral_dim: int = key("eigenvectors of the co-occurrence graph", ge=2, affects="tokenizer")


class CIDTokenizer(TextHierarchicalTokenizer):
    """Collaborative indexing (CID; Hua et al., arXiv 2305.06569).

    Items of the same training sequences share a prefix. The paper clusters the graph of
    co-occurrences spectrally and each cluster again. Here one embedding of the whole graph
    (:func:`spectral_embedding`) is split by :class:`HierarchicalKMeans`. This, the fixed depth, the
    last code instead of a running number, and the one place for all items without co-occurrences
    (that of the zero vector) are our choice (unpublished).
    """

    name = "cid"
    uses_text = False
    reads_content = False
    uses_item_vectors = False
    uses_graph = False
    uses_interactions = True
    settings_class = CIDSettings  # type: ignore[assignment]  # it has no tokenizer_input
    settings: CIDSettings  # type: ignore[assignment]

    def vectors(self, content: ItemContent) -> np.ndarray:
        """Spectral embedding of the items by raw id, so that their order changes nothing.

        ``quality`` counts those without neighbours.
        """
        started = time.process_time()
        sequences = content.item_sequences()
        rank = np.argsort(rows_in_order_of_ids(content.tokens))
        graph = co_occurrences([rank[items] for items in sequences], len(rank))
        # The padding item has no neighbours either.
        alone = int((graph.sum(1) == 0).sum()) - 1
        self.quality["items_without_co_occurrence"] = alone
        vectors = spectral_embedding(graph, self.settings.spectral_dim, self.seed)[rank]
        self.quality["spectral_cpu_seconds"] = time.process_time() - started
        return vectors

    def _new(self, new: NewItems) -> Tensor:
        raise ConfigError(
            "tokenizer: cid places items by their training interactions, which new items do not "
            "have. Use a text tokenizer."
        )


def co_occurrences(sequences: Sequence[np.ndarray], n: int) -> csr_array:
    """How many sequences hold both items of each pair (our choice).

    Args:
        sequences: item ids below ``n``.
        n: number of items.

    Returns:
        Symmetric float64 ``[n, n]`` with a zero diagonal.
    """
    users = np.repeat(np.arange(len(sequences)), [len(items) for items in sequences])
    items = np.concatenate([*sequences, np.zeros(0, dtype=np.int64)])
    pairs = np.unique(np.stack([users, items]), axis=1)
    held = csr_array((np.ones(pairs.shape[1]), pairs), shape=(len(sequences), n))
    graph = csr_array(held.T @ held)
    return csr_array(graph - diags_array(graph.diagonal()))


def spectral_embedding(graph: csr_array, dim: int, seed: int = 0) -> np.ndarray:
    """Leading eigenvectors of D^-1/2 A D^-1/2, rows scaled to length 1 (Ng, Jordan, Weiss 2001).

    Args:
        graph: A, symmetric ``[n, n]``; D holds its row sums.
        dim: number of eigenvectors.
        seed: of the start of the iteration.

    Returns:
        float32 ``[n, <= dim]``; vertices without edges get the zero vector.
    """
    connected = np.flatnonzero(graph.sum(1))
    vectors = np.zeros((graph.shape[0], max(1, min(dim, len(connected) - 1))))
    if len(connected):
        component = graph[connected][:, connected]
        scale = diags_array(1 / np.sqrt(component.sum(1)))
        start = np.random.default_rng(seed).standard_normal(len(connected))
        with threadpool_limits(1):
            _, leading = eigsh(scale @ component @ scale, vectors.shape[1], which="LA", v0=start)
        vectors[connected] = leading / np.linalg.norm(leading, axis=1, keepdims=True).clip(1e-12)
    return vectors.astype(np.float32)
