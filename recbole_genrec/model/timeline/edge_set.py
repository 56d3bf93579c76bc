"""Some edges of an item trie, and the mean vectors of the items below them.

An edge without siblings has the probability 1 after its parent, so that the tree of ``depth: none``
needs no vector for it. Below the first codes most edges are of this kind.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag, pad

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.decoding.precision import at_least_float32


class EdgeSet:
    """Some edges of each level of a trie.

    Args:
        trie: of the whole catalogue.
        edges: for each level their numbers, int64 ``[E]`` and rising.

    Attributes:
        edges: as given.
        places: for each level int64 ``[n_edges]``, where an edge stands among them; -1 = nowhere.
    """

    def __init__(self, trie: ItemTrie, edges: Sequence[Tensor]):
        self.edges = list(edges)
        self.places: list[Tensor] = []
        for level, of_level in zip(trie.levels, edges, strict=True):
            places = of_level.new_full((level.n_edges,), -1)
            places[of_level] = torch.arange(len(of_level), device=of_level.device)
            self.places.append(places)
        self._trie = weakref.ref(trie)

    @functools.cached_property
    def _sums(self) -> _Sums:
        """Which items lie below which edge; edges with vectors of their own never ask."""
        trie = self._trie()
        assert trie is not None, "the trie of these edges is gone"
        return _means_below(trie, self.places)

    def means(self, table: Tensor, scales: Tensor | None = None) -> list[Tensor]:
        """The mean vector of the items below each edge; added items do not move that of others.

        Args:
            table: vectors of the items ``[n_items, d]``; row 0, the padding item, is not read.
            scales: factors on the means of each level ``[L]``; default 1.

        Returns:
            For each level ``[E, d]``.
        """
        # On the CPU the sums need float32 or float64.
        values = at_least_float32(table)
        if scales is None:
            scales = values.new_ones(len(self.edges))
        sizes = [len(edges) for edges in self.edges]
        means = _ScaledSums.apply(values, scales.to(values.dtype), self._sums, sizes)
        return [of_level.to(table.dtype) for of_level in means]


_every: WeakKeyDictionary[ItemTrie, EdgeSet] = WeakKeyDictionary()
_competing: WeakKeyDictionary[ItemTrie, EdgeSet] = WeakKeyDictionary()


def every_edge(trie: ItemTrie) -> EdgeSet:
    """All edges; kept as long as the trie lives."""
    if trie not in _every:
        edges = [torch.arange(level.n_edges, device=trie.device) for level in trie.levels]
        _every[trie] = EdgeSet(trie, edges)
    return _every[trie]


def competing_edges(trie: ItemTrie) -> EdgeSet:
    """The edges that have siblings; kept as long as the trie lives."""
    if trie not in _competing:
        edges = []
        for level in trie.levels:
            n_children = level.ptr.diff()[level.parent[:-1].long()]  # [n_edges]
            edges.append((n_children > 1).nonzero().squeeze(1))
        _competing[trie] = EdgeSet(trie, edges)
    return _competing[trie]


def items_per_node(nodes: Tensor, n_nodes: int, least: int = 1) -> Tensor:
    """How many items lie below each node, ``[n_nodes]``.

    Args:
        nodes: the node of each item ``[N]``.
        n_nodes: number of nodes.
        least: takes the place of smaller numbers.
    """
    return torch.bincount(nodes, minlength=n_nodes).clamp(min=least)


# --- weighted sums of rows ------------------------------------------------------------------------


class _Bags(NamedTuple):
    """Which rows of a table are summed for each row of the result.

    Attributes:
        rows: rows of the table ``[n]``, those of one result side by side.
        starts: where those of each result begin.
        weights: float64 ``[n]``.
    """

    rows: Tensor
    starts: Tensor
    weights: Tensor

    @classmethod
    def of(cls, result: Tensor, n_results: int, rows: Tensor, weights: Tensor) -> _Bags:
        """Bags of unsorted entries, each with the row of the result that it belongs to."""
        order = torch.argsort(result, stable=True)
        ends = torch.bincount(result, minlength=n_results).cumsum(0)
        return cls(rows[order], pad(ends[:-1], (1, 0)), weights[order])

    def sums(self, table: Tensor) -> Tensor:
        """The weighted sums of rows of ``table``."""
        weights = self.weights.to(table.dtype)
        return embedding_bag(self.rows, table, self.starts, mode="sum", per_sample_weights=weights)


class _Sums(NamedTuple):
    """Sums and, for their gradient, the same entries sorted by the rows of the table."""

    forward: _Bags
    backward: _Bags


class _ScaledSums(torch.autograd.Function):
    """Sums of rows, times a factor for each level.

    Both directions are sums of rows that stand side by side, where torch's own would sort each
    time, and the gradients of all levels are scaled into one block.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, scales: Tensor, sums: _Sums, sizes: list[int]
    ) -> tuple[Tensor, ...]:
        """The sums of each level."""
        ctx.sums = sums
        ctx.sizes = sizes
        block = sums.forward.sums(table)
        ctx.save_for_backward(block, scales)
        return tuple(part * scale for part, scale in zip(block.split(sizes), scales, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the table and of the factors."""
        block, scales = ctx.saved_tensors
        scaled = torch.empty_like(block)
        for_scales = torch.empty_like(scales)
        parts = zip(block.split(ctx.sizes), scaled.split(ctx.sizes), gradients, strict=True)
        for level, (part, of_level, gradient) in enumerate(parts):
            torch.mul(gradient, scales[level], out=of_level)
            for_scales[level] = torch.dot(gradient.flatten(), part.flatten())
        return ctx.sums.backward.sums(scaled), for_scales, None, None


def _means_below(trie: ItemTrie, places: Sequence[Tensor]) -> _Sums:
    """The means of the items below some edges, those of all levels one after another.

    Args:
        trie: of the whole catalogue.
        places: see :class:`EdgeSet`.
    """
    items = (trie.leaf_of_item >= 0).nonzero().squeeze(1)  # [N]
    paths = trie.paths(trie.leaf_of_item[items])[1:]
    results = []
    rows = []
    weights = []
    n_results = 0
    for nodes, of_level in zip(paths, places, strict=True):
        n_edges = len(of_level)
        counts = trie.counts(items)
        if not counts.all():
            is_known = items_per_node(nodes[counts], n_edges, least=0) > 0
            counts = counts | ~is_known[nodes]
        share = 1 / items_per_node(nodes[counts], n_edges).double()  # [n_edges]
        is_summed = counts & (of_level[nodes] >= 0)
        edges = nodes[is_summed]
        results.append(of_level[edges] + n_results)
        rows.append(items[is_summed])
        weights.append(share[edges])
        n_results += int((of_level >= 0).sum())
    entries = torch.cat(results), torch.cat(rows), torch.cat(weights)
    result, row, weight = entries
    forward = _Bags.of(result, n_results, row, weight)
    backward = _Bags.of(row, trie.n_items, result, weight)
    return _Sums(forward, backward)
