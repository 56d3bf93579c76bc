"""The stateless tree: codes whose logits depend on the state and the edge alone (``depth: none``).

A hierarchical softmax (Morin and Bengio, AISTATS 2005) over the codes of the items; the vectors of
its edges are ours and unpublished::

    v_e     = s_l * mean(item vectors below e) + o_e
    logit_e = (h + MLP_l(h)) . v_e + b_e
    p(item) = product of softmax(logit) over the children of each node on the item's path

``s_l`` starts at 1, ``o_e`` at 0, ``b_e`` at log(number of items below e), MLP_l at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ItemTrie, edge_leaf_scores
from recbole_genrec.decoding.scores import item_scores
from recbole_genrec.decoding.smoothing import smoothed_cross_entropy
from recbole_genrec.decoding.trie_level import TrieLevel
from recbole_genrec.model.timeline.edge_set import (
    EdgeSet,
    competing_edges,
    every_edge,
    items_per_node,
)
from recbole_genrec.model.timeline.level_weights import BatchEdges, Branches, LevelWeights


class TreeEdges(NamedTuple):
    """The edges whose logits count, and their vectors.

    Attributes:
        among: those of a trie that compete, or all.
        vectors: for each level ``[E, d]``.
    """

    among: EdgeSet
    vectors: list[Tensor]


class StatelessTree(nn.Module):
    """Edge vectors and level MLPs over one code table.

    Args:
        trie: of the whole catalogue.
        d: width.
        sparse: whether the gradients of edges below the first level hold the rows of a batch alone.
        edge_vectors: ``own``, or ``mean`` = edges are the mean of the items below, without ``o_e``.
    """

    def __init__(self, trie: ItemTrie, d: int, sparse: bool = False, edge_vectors: str = "own"):
        super().__init__()
        self.d = d
        self.sparse = sparse
        self.edge_vectors = edge_vectors
        counts = _counts_below(trie)
        self.own = nn.ParameterList()
        if edge_vectors == "own":
            self.own += [nn.Parameter(torch.zeros(len(count), d)) for count in counts]
        self.bias = nn.ParameterList(nn.Parameter(count.float().log()) for count in counts)
        self.scale = nn.Parameter(torch.ones(len(counts)))
        self.turns = nn.ModuleList(_turn(d) for _ in counts)

    def edges(self, trie: ItemTrie, item_vectors: Tensor | None) -> TreeEdges:
        """Vectors of the edges.

        Args:
            trie: of the whole catalogue.
            item_vectors: ``[n_items, d]``; ``None`` = the edges have their own vectors alone.
        """
        if item_vectors is None:
            return TreeEdges(every_edge(trie), list(self.own))
        among = competing_edges(trie)
        vectors = []
        for level, vector in enumerate(among.means(item_vectors, self.scale)):
            if self.own:
                vector = vector + _rows(self.own[level], among.edges[level])
            vectors.append(vector)
        return TreeEdges(among, vectors)

    def state(self, states: Tensor, level: int) -> Tensor:
        """What gives the logits of a level, of the shape of ``states [..., d]``."""
        return states + self.turns[level](states)

    # --- training ---------------------------------------------------------------------------------

    def level_losses(
        self,
        trie: ItemTrie,
        states: Tensor,
        items: Tensor,
        edges: TreeEdges,
        closed: ClosedCodes = ALL_OPEN,
        smoothing: float = 0.0,
    ) -> list[Tensor]:
        """Means over targets of -log p(code), in nats; only windows of their paths are computed.

        Args:
            trie: of the whole catalogue.
            states: ``[P, d]``.
            items: target items ``[P]``.
            edges: see :meth:`edges`.
            closed: codes that do not compete.
            smoothing: share of the probability that is spread evenly over the codes that compete.

        Returns:
            A scalar for each level; their sum is the mean of -log p(item).
        """
        paths = trie.paths(trie.leaf_of_item[items])  # L + 1 tensors [P]
        losses = []
        for depth, level in enumerate(trie.levels):
            if level.width == 1:
                losses.append(states.new_zeros(()))
                continue
            parent = paths[depth]
            target = paths[depth + 1]
            if level.n_nodes == 1:
                weights = self._level_weights(level, edges, depth)
                logits = weights.all_logits(self.state(states, depth))  # [P, n_edges]
                (logits,) = closed.hide([weights.by_code(logits)])
                codes = level.code[target].long()
                losses.append(smoothed_cross_entropy(logits, codes, smoothing))
                continue
            branches = (level.ptr.diff()[parent] > 1).nonzero().squeeze(1)  # others cost nothing
            leaving = None
            if closed.codes:
                leaving = closed.leaving(depth, level.size)[branches]
            steps = Branches(parent[branches], target[branches], leaving)
            state = self.state(states[branches], depth)
            total = self._branch_loss(level, state, steps, edges, depth, smoothing)
            losses.append(total / len(items))
        return losses

    def _branch_loss(
        self,
        level: TrieLevel,
        states: Tensor,
        steps: Branches,
        edges: TreeEdges,
        depth: int,
        smoothing: float,
    ) -> Tensor:
        """Sum over targets of the cross-entropy below the root.

        Args:
            level: the edges from ``depth`` to the next.
            states: of the level ``[R, d]``.
            steps: parents and targets.
            edges: see :meth:`edges`.
            depth: of the parents.
            smoothing: see :meth:`level_losses`.
        """
        if self.sparse:
            beside = BatchEdges(level, self.own[depth], self.bias[depth], steps.parent)
            return beside.window_loss(states, steps, beside.first, smoothing)
        begin = level.ptr[steps.parent].long()
        first = edges.among.places[depth][begin]
        weights = self._level_weights(level, edges, depth)
        return weights.window_loss(states, steps, first, smoothing)

    def _level_weights(self, level: TrieLevel, edges: TreeEdges, depth: int) -> LevelWeights:
        numbers = edges.among.edges[depth]
        bias = _rows(self.bias[depth], numbers)
        codes = level.code[numbers].long()
        return LevelWeights(level, edges.vectors[depth], bias, codes)

    # --- scores -----------------------------------------------------------------------------------

    def logits(self, states: Tensor, edges: TreeEdges, depth: int, chosen: Tensor) -> Tensor:
        """Logits of some edges of a level.

        Args:
            states: ``[B, d]``.
            edges: see :meth:`edges`.
            depth: the level, counted from 0.
            chosen: numbers of edges ``[E]``, rising.

        Returns:
            ``[B, E]``.
        """
        vectors = _rows(edges.vectors[depth], edges.among.places[depth][chosen])
        return self.state(states, depth) @ vectors.T + _rows(self.bias[depth], chosen)

    # --- new items --------------------------------------------------------------------------------

    @torch.no_grad()
    def grow(self, before: ItemTrie, after: ItemTrie) -> None:
        """Follow a trie that has new leaves; new edges start as they do before any training.

        Args:
            before: the trie that the parameters belong to.
            after: the trie with the new items.
        """
        items = (before.leaf_of_item >= 0).nonzero().squeeze(1)
        old_paths = before.paths(before.leaf_of_item[items])[1:]
        new_paths = after.paths(after.leaf_of_item[items])[1:]
        fresh = StatelessTree(after, self.d, self.sparse, self.edge_vectors).to(self.scale.device)
        names = ("own", "bias") if self.own else ("bias",)
        for level, (old, new) in enumerate(zip(old_paths, new_paths, strict=True)):
            for name in names:
                table = getattr(fresh, name)[level].data
                table[new] = getattr(self, name)[level][old]
                getattr(self, name)[level] = nn.Parameter(table)


class CodeTree(NamedTuple):
    """A tree of codes with what follows from its weights alone.

    Attributes:
        weights: of the edges and of the levels.
        trie: of the whole catalogue.
        edges: see :meth:`StatelessTree.edges`.
    """

    weights: StatelessTree
    trie: ItemTrie
    edges: TreeEdges

    @classmethod
    def of(cls, weights: StatelessTree, trie: ItemTrie, item_vectors: Tensor | None) -> CodeTree:
        """The tree for the weights as they are.

        Args:
            weights: of the edges and of the levels.
            trie: of the whole catalogue.
            item_vectors: see :meth:`StatelessTree.edges`.
        """
        return cls(weights, trie, weights.edges(trie, item_vectors))


class Stream(NamedTuple):
    """A tree, and states that it reads.

    Attributes:
        tree: its weights.
        states: ``[B, d]``.
        edges: see :meth:`StatelessTree.edges`.
    """

    tree: StatelessTree
    states: Tensor
    edges: TreeEdges


def log_probs_of_streams(trie: ItemTrie, streams: Sequence[Stream]) -> Tensor:
    """Log-probabilities of all items by trees over the same codes, whose logits are averaged.

    The children of a node compete by the means of their logits, so that the result is one
    distribution over the items, as of one tree.

    Args:
        trie: of the items that may be returned.
        streams: the trees with the states of the same histories.

    Returns:
        float32 ``[B, n_items]``; items outside the trie get a finite value below all others.
    """

    def logits(depth: int, chosen: Tensor) -> Tensor:
        of_streams = (tree.logits(states, edges, depth, chosen) for tree, states, edges in streams)
        return reduce(add, of_streams) / len(streams)

    return item_scores(trie, edge_leaf_scores(trie, logits, len(streams[0].states)))


def _rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table in rising order; the table itself where they are all."""
    if len(rows) == len(table):
        return table
    return table.index_select(0, rows)


def _turn(d: int) -> nn.Sequential:
    """MLP of a level, which starts as zero."""
    last = nn.Linear(2 * d, d)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), last)


def _counts_below(trie: ItemTrie) -> list[Tensor]:
    """How many items lie below each edge, for each level ``[n_edges]``."""
    paths = trie.paths(trie.leaf_of_row)[1:]
    return [
        items_per_node(nodes, level.n_edges)
        for level, nodes in zip(trie.levels, paths, strict=True)
    ]
