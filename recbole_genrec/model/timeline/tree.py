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
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ItemTrie, edge_leaf_scores
from recbole_genrec.decoding.scores import item_scores
from recbole_genrec.decoding.smoothing import smoothed_cross_entropy, smoothed_losses
from recbole_genrec.decoding.trie_level import TrieLevel
from recbole_genrec.decoding.window_softmax import Windows, window_cross_entropy
from recbole_genrec.model.timeline.edge_set import (
    EdgeSet,
    competing_edges,
    every_edge,
    items_below,
)

ROWS_AT_ONCE = 128  # targets whose windows are computed together, little padded in a sorted batch
NARROW = 16  # children up to which the windows of several parents are computed together


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
        for level, mean in enumerate(among.means(item_vectors)):
            vector = self.scale[level] * mean
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
            parent, target = paths[depth], paths[depth + 1]
            weights = self._level_weights(level, edges, depth)
            if level.n_nodes == 1:
                logits = weights.all_logits(self.state(states, depth))  # [P, n_edges]
                (logits,) = closed.hide([weights.by_code(logits)])
                codes = level.code[target].long()
                losses.append(smoothed_cross_entropy(logits, codes, smoothing))
                continue
            branches = (level.ptr.diff()[parent] > 1).nonzero().squeeze(1)  # others cost nothing
            leaving = None
            if closed.codes:
                leaving = closed.leaving(depth, level.size)[branches]
            state = self.state(states[branches], depth)
            total = weights.window_loss(
                state, parent[branches], target[branches], leaving, smoothing
            )
            losses.append(total / len(items))
        return losses

    def _level_weights(self, level: TrieLevel, edges: TreeEdges, depth: int) -> _LevelWeights:
        numbers = edges.among.edges[depth]
        bias = _rows(self.bias[depth], numbers)
        codes = level.code[numbers].long()
        places = edges.among.places[depth]
        return _LevelWeights(level, edges.vectors[depth], bias, codes, places, self.sparse)

    # --- scores -----------------------------------------------------------------------------------

    def log_probs(self, trie: ItemTrie, states: Tensor, edges: TreeEdges) -> Tensor:
        """Log-probabilities of all items, exact: one product with the edges of each level.

        Args:
            trie: of the items that may be returned.
            states: ``[B, d]``.
            edges: see :meth:`edges`.

        Returns:
            float32 ``[B, n_items]``; items outside the trie get a finite value below all others.
        """
        return log_probs_of_streams(trie, [Stream(self, states, edges)])

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
        total = None
        for tree, states, edges in streams:
            of_stream = tree.logits(states, edges, depth, chosen)
            total = of_stream if total is None else total + of_stream
        return total / len(streams)

    return item_scores(trie, edge_leaf_scores(trie, logits, len(streams[0].states)))


class _LevelWeights:
    """The edges of one level in training.

    Args:
        level: the edges from one depth to the next.
        edges: vectors of those that compete, or of all ``[E, d]``.
        bias: of the same edges ``[E]``.
        codes: their codes, int64 ``[E]``.
        places: where each edge of the level stands among them, int64 ``[n_edges]``.
        sparse: whether the gradients of :meth:`window_loss` hold its edges alone.
    """

    def __init__(
        self,
        level: TrieLevel,
        edges: Tensor,
        bias: Tensor,
        codes: Tensor,
        places: Tensor,
        sparse: bool = False,
    ):
        self.sparse = sparse
        self.level = level
        self.edges = edges
        self.bias = bias
        self.codes = codes
        self.places = places

    @property
    def has_slices(self) -> bool:
        """Whether wide windows are computed one by one; a GPU would wait between them."""
        return not self.sparse and self.edges.device.type == "cpu"

    def all_logits(self, states: Tensor) -> Tensor:
        """Logits of the edges of the root, ``[P, d]`` -> float32 ``[P, E]``."""
        return (states @ self.edges.T + self.bias).float()

    def by_code(self, logits: Tensor) -> Tensor:
        """Logits of the edges of the root as logits of codes, -inf where no edge has the code."""
        blank = logits.new_full((len(logits), self.level.size), -torch.inf)
        return blank.index_copy(1, self.codes, logits)

    def window_loss(
        self,
        states: Tensor,
        parent: Tensor,
        target: Tensor,
        leaving: Tensor | None,
        smoothing: float,
    ) -> Tensor:
        """Sum over targets of the cross-entropy among the children of their parents.

        Args:
            states: ``[R, d]``.
            parent: nodes ``[R]``.
            target: the children that are right ``[R]``.
            leaving: codes that do not compete, bool ``[R, V]``; ``None`` = all compete.
            smoothing: see :meth:`StatelessTree.level_losses`.
        """
        begin = self.level.ptr[parent].long()
        count = self.level.ptr[parent + 1].long() - begin
        # Siblings stand side by side among the edges that compete, too.
        first = self.places[begin]
        target = first + target - begin
        total = states.new_zeros(())
        order = torch.argsort(count)
        if leaving is None and not smoothing and self.has_slices:
            n_narrow = int((count <= NARROW).sum())
            wide = order[n_narrow:]
            order = order[:n_narrow]
            windows = Windows(first[wide], count[wide], target[wide])
            total = total + window_cross_entropy(states[wide], self.edges, self.bias, windows)
        if not len(order):
            return total
        # Windows of similar width stand together, so that little is computed for nothing.
        for rows in order.split(ROWS_AT_ONCE):
            slot = torch.arange(int(count[rows].max()), device=states.device)
            is_outside = slot >= count[rows].unsqueeze(1)  # [R', W]
            window = (first[rows].unsqueeze(1) + slot).masked_fill(is_outside, 0)
            vectors = embedding(window, self.edges, sparse=self.sparse)  # [R', W, d]
            logits = torch.bmm(vectors, states[rows].unsqueeze(2)).squeeze(2)
            logits = logits.float() + self._biases(window)
            if leaving is not None:
                is_outside |= leaving[rows].gather(1, self.codes[window])
            logits = logits.masked_fill(is_outside, -torch.inf)
            place = target[rows] - first[rows]
            total = total + smoothed_losses(logits, place, smoothing).sum()
        return total

    def _biases(self, window: Tensor) -> Tensor:
        """Biases of the edges ``window``, of its shape."""
        if self.sparse:
            flat = window.flatten()
            return self.bias.gather(0, flat, sparse_grad=True).view(window.shape)
        return embedding(window, self.bias.unsqueeze(1)).squeeze(2)


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
        items_below(nodes, level.n_edges) for level, nodes in zip(trie.levels, paths, strict=True)
    ]
