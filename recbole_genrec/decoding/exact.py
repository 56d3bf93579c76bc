"""Scores without pruning: all items through shared prefixes, or given items by teacher forcing."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_block, check_search
from recbole_genrec.decoding.scores import (
    best_items_on_leaves,
    break_ties,
    child_log_probs,
    decoder_calls,
    item_ranks,
    item_scores,
    outside_score,
)
from recbole_genrec.decoding.trie import ItemTrie

PREFIXES = 256
"""Prefixes of the last level that are evaluated at once."""


@torch.no_grad()
def exact_scores(
    decoder: CodeDecoder,
    trie: ItemTrie,
    *,
    score_type: str = "level",
    chunk_size: int | None = None,
) -> Tensor:
    """Scores of all items.

    Every prefix is evaluated once per chunk of leaves instead of once per item (our choice,
    unpublished).

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items.
        score_type: as in :func:`~recbole_genrec.decoding.search.beam_search`.
        chunk_size: leaves evaluated at once; default: those below about :data:`PREFIXES` prefixes
            of the last level.

    Returns:
        float32 ``[B, n_items]``, finite; the padding item and items outside the trie get the lowest
        value.
    """
    return item_scores(trie, _leaf_scores(decoder, trie, score_type, chunk_size))


@torch.no_grad()
def exact_search(
    decoder: CodeDecoder,
    trie: ItemTrie,
    beam_width: int,
    *,
    score_type: str = "level",
    fill: bool = False,
    chunk_size: int | None = None,
    excluded: Tensor | None = None,
) -> SearchResult:
    """The exact best items, in the form of a beam search that pruned nothing.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be returned.
        beam_width: K, number of items returned.
        score_type: as in :func:`~recbole_genrec.decoding.search.beam_search`.
        fill: also return the scores of all items.
        chunk_size: leaves evaluated at once; default: those below about :data:`PREFIXES` prefixes
            of the last level.
        excluded: int64 ``[B, H]``, items that each user must not get, 0 = none.

    Returns:
        The items and their scores; ``bound`` is -inf.
    """
    check_search(score_type, beam_width)
    leaf_scores = _leaf_scores(decoder, trie, score_type, chunk_size)  # [B, S_L]
    leaves = torch.arange(trie.n_leaves, device=decoder.device).expand_as(leaf_scores)
    legal_scores = leaf_scores
    exclusion = Exclusion.of(trie, excluded)
    if exclusion is not None:
        closed = exclusion.is_closed(trie.depth, leaves)
        legal_scores = leaf_scores.masked_fill(closed, -torch.inf)
    leaves = torch.where(legal_scores == -torch.inf, -1, leaves)
    items, scores = best_items_on_leaves(
        trie, legal_scores, leaves, beam_width, exclusion
    )  # [B, K]
    bound = scores.new_full((len(scores),), -torch.inf)
    full = item_scores(trie, leaf_scores, exclusion) if fill else None
    return SearchResult(items, scores, bound, full)


@torch.no_grad()
def path_scores(
    decoder: CodeDecoder, trie: ItemTrie, items: Tensor, *, score_type: str = "level"
) -> Tensor:
    """Teacher-forced scores of given items; equal to their columns of :func:`exact_scores`.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items.
        items: int64 ``[B, Q]``.
        score_type: as in :func:`~recbole_genrec.decoding.search.beam_search`.

    Returns:
        float32 ``[B, Q]``.
    """
    check_search(score_type)
    items = items.to(decoder.device)
    nodes = trie.paths(trie.leaf_of_item[items])  # L + 1 tensors [B, Q]
    scores = torch.zeros(items.shape, device=decoder.device)
    for depth, level in enumerate(trie.levels):
        block = _path_block(decoder, trie, nodes, depth, score_type)  # [B, Q, V]
        children = trie.children(depth, nodes[depth])
        log_probs = child_log_probs(children, block, score_type)  # [B, Q, W]
        slot = level.slot(nodes[depth + 1]).unsqueeze(-1)
        scores = scores + log_probs.gather(-1, slot).squeeze(-1)

    if trie.max_rank:
        scores = break_ties(trie, scores, item_ranks(trie)[items])
    return scores.masked_fill(nodes[-1] < 0, outside_score(trie))


def _path_block(
    decoder: CodeDecoder, trie: ItemTrie, nodes: list[Tensor], depth: int, score_type: str
) -> Tensor | None:
    """The decoder's answer ``[B, Q, V]`` for the nodes at a depth, None where it is not needed."""
    if depth >= decoder_calls(trie, score_type):
        return None
    users, queries = nodes[0].shape
    size = trie.sizes[depth]
    if depth == 0:
        block = check_block(decoder.start(), users, 1, size, depth)
        return block.expand(-1, queries, -1)

    codes = trie.levels[depth - 1].code[nodes[depth]].long()  # [B, Q]
    if depth == 1:
        parents = torch.zeros_like(codes)  # the root is the only query of the first block
    else:
        parents = torch.arange(queries, device=codes.device).expand_as(codes)
    return check_block(decoder.step(codes, parents), users, queries, size, depth)


def _leaf_scores(
    decoder: CodeDecoder, trie: ItemTrie, score_type: str, chunk_size: int | None
) -> Tensor:
    """Scores ``[B, S_L]`` of all leaves, -inf for leaves outside a subset."""
    if chunk_size is None:
        chunk_size = max(1, PREFIXES * trie.n_leaves // trie.levels[-1].n_nodes)
    check_search(score_type, chunk_size)
    allowed = trie.levels[-1].allowed
    if allowed is None:
        leaves = torch.arange(trie.n_leaves, device=decoder.device)
    else:
        leaves = allowed[:-1].nonzero().squeeze(1)
    scores = torch.full((decoder.batch_size, trie.n_leaves), -torch.inf, device=decoder.device)
    for chunk in leaves.split(chunk_size):
        scores[:, chunk] = _chunk_scores(decoder, trie, chunk, score_type)
    return scores


def _chunk_scores(decoder: CodeDecoder, trie: ItemTrie, leaves: Tensor, score_type: str) -> Tensor:
    """One pass over the sub-trie above some leaves, with one query per node.

    Args:
        decoder: the generator for B users.
        trie: the trie of the leaves.
        leaves: int64 ``[C]``, sorted.
        score_type: as in :func:`~recbole_genrec.decoding.search.beam_search`.

    Returns:
        float32 ``[B, C]``.
    """
    calls = decoder_calls(trie, score_type)
    users = decoder.batch_size
    nodes, parents = _nodes_above(trie, leaves)
    scores = torch.zeros(users, 1, device=decoder.device)
    for depth, level in enumerate(trie.levels):
        block = None
        if depth < calls:
            if depth == 0:
                block = decoder.start()
            else:
                codes = trie.levels[depth - 1].code[nodes[depth]].long()  # [S]
                above = parents[depth - 1]
                block = decoder.step(codes.expand(users, -1), above.expand(users, -1))
            block = check_block(block, users, len(nodes[depth]), level.size, depth)
        children = trie.children(depth, nodes[depth].unsqueeze(0))
        log_probs = child_log_probs(children, block, score_type)  # [B, S, W]
        index = parents[depth] * log_probs.shape[-1] + level.slot(nodes[depth + 1])
        scores = scores.index_select(1, parents[depth])  # [B, S'], of the next depth
        scores = scores + log_probs.flatten(1).index_select(1, index)
    return scores


def _nodes_above(trie: ItemTrie, leaves: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The nodes on the ways to some leaves.

    Args:
        trie: the trie of the leaves.
        leaves: int64 ``[C]``, sorted.

    Returns:
        nodes: L + 1 tensors int64 ``[S_t]``, the nodes of each depth; the last are the leaves.
        parents: L tensors int64 ``[S_t+1]``, where the parent of each node of the next depth
            stands among the nodes of this one.
    """
    nodes = [leaves]
    parents: list[Tensor] = []
    for level in reversed(trie.levels):
        above, inverse = level.parent[nodes[0]].long().unique_consecutive(return_inverse=True)
        nodes.insert(0, above)
        parents.insert(0, inverse)
    return nodes, parents
