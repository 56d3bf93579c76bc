"""Exact scores of a tree whose logits depend on the state and the edge alone (ours, unpublished).

Since nothing depends on the codes before, one product of the states with all edges and a softmax
among the children of each node score the whole catalogue. No beam is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recbole_genrec.decoding.scores import FLOOR
from recbole_genrec.decoding.trie import ItemTrie

EdgeLogits = Callable[[int, Tensor], Tensor]
"""``(depth, edges [E]) -> logits [B, E]`` of some edges from a depth to the next."""


def segment_log_softmax(
    logits: Tensor, segment: Tensor, n_segments: int, counted: Tensor | None = None
) -> Tensor:
    """Log-softmax within groups of columns.

    Args:
        logits: ``[B, E]``.
        segment: int64 ``[E]``, the group of each column, 0 to ``n_segments`` - 1.
        n_segments: number of groups, none of them empty.
        counted: bool ``[E]``, the columns over which each group sums, at least one a group; the
            others get their logit minus the same normaliser. Default: all.

    Returns:
        float32 ``[B, E]``.
    """
    values = logits.float()
    summed = values
    if counted is not None:
        summed = values.masked_fill(~counted, -torch.inf)
    columns = segment.expand_as(values)
    highest = values.new_full((len(values), n_segments), -torch.inf)
    highest = highest.scatter_reduce(1, columns, summed, "amax")  # [B, S]
    top = highest.index_select(1, segment)
    masses = (summed - top).exp()
    mass = values.new_zeros(len(values), n_segments).index_add(1, segment, masses)
    shifted = values - top
    return shifted - mass.log().index_select(1, segment)


def edge_leaf_scores(trie: ItemTrie, logits: EdgeLogits, n_users: int) -> Tensor:
    """Scores of all leaves.

    An edge without siblings costs nothing, and its logit is not asked for.

    Args:
        trie: the items; of a subset with ``subset_norm: subset`` only edges to members compete.
        logits: logits of edges.
        n_users: number of users B.

    Returns:
        float32 ``[B, S_L]``, -inf for leaves outside a subset.
    """
    scores = torch.zeros(n_users, 1, device=trie.device)
    for depth, level in enumerate(trie.levels):
        parent = level.parent[:-1].long()  # [E]
        legal = torch.ones_like(parent, dtype=torch.bool)
        if level.competing is not None:
            legal = level.competing[:-1]
        siblings = torch.bincount(parent[legal], minlength=level.n_nodes)
        edges = (legal & (siblings[parent] > 1)).nonzero().squeeze(1)  # [E']

        scores = scores.index_select(1, parent)  # [B, E]
        if len(edges):
            nodes, segment = parent[edges].unique_consecutive(return_inverse=True)
            counted = None
            if level.counted is not None:
                counted = level.counted[:-1][edges]
                n_counted = torch.bincount(segment[counted], minlength=len(nodes))
                counted = counted | (n_counted == 0)[segment]
            steps = segment_log_softmax(logits(depth, edges), segment, len(nodes), counted)
            scores = scores.index_add(1, edges, steps.clamp(FLOOR, 0))
        if level.allowed is not None:
            scores = scores.masked_fill(~level.allowed[:-1], -torch.inf)
    return scores
