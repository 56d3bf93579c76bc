"""Scores without pruning: all items through shared prefixes, or given items by teacher forcing."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_block, check_search
from recbole_genrec.decoding.scores import (
    best_items,
    break_ties,
    child_log_probs,
    decoder_calls,
    item_scores,
    outside_score,
)
from recbole_genrec.decoding.trie import ItemTrie


@torch.no_grad()
def exact_scores(
    decoder: CodeDecoder, trie: ItemTrie, *, score_type: str = "level", chunk_size: int = 256
) -> Tensor:
    """Scores of all items, float32 ``[B, n_items]``, finite; the padding item and items outside the trie get the lowest value.

    Every prefix is evaluated once per chunk of ``chunk_size`` leaves instead of once per item (our choice, unpublished).
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
    chunk_size: int = 256,
) -> SearchResult:
    """The exact ``beam_width`` best items, in the form of a beam search that pruned nothing."""
    check_search(score_type, beam_width)
    leaf_scores = _leaf_scores(decoder, trie, score_type, chunk_size)
    leaves = torch.arange(trie.n_leaves, device=decoder.device).expand_as(leaf_scores)
    items, scores = best_items(
        trie, leaf_scores, torch.where(leaf_scores == -torch.inf, -1, leaves), beam_width
    )
    bound = scores.new_full((len(scores),), -torch.inf)
    return SearchResult(items, scores, bound, item_scores(trie, leaf_scores) if fill else None)


@torch.no_grad()
def path_scores(
    decoder: CodeDecoder, trie: ItemTrie, items: Tensor, *, score_type: str = "level"
) -> Tensor:
    """Teacher-forced scores float32 ``[B, Q]`` of ``items`` int64 ``[B, Q]``; equal to their columns of :func:`exact_scores`."""
    check_search(score_type)
    calls, device = decoder_calls(trie, score_type), decoder.device
    items = items.to(device)
    paths = trie.paths(trie.leaf_of_item[items])
    root, queries = (
        torch.zeros_like(items),
        torch.arange(items.shape[1], device=device).expand_as(items),
    )
    scores = torch.zeros(items.shape, device=device)
    for t, level in enumerate(trie.levels):
        block = None
        if t < calls:
            block = (
                decoder.start()
                if t == 0
                else decoder.step(
                    trie.levels[t - 1].code[paths[t]].long(), root if t == 1 else queries
                )
            )
            block = check_block(block, *((len(items), 1) if t == 0 else items.shape), level.size, t)
            block = block.expand(-1, items.shape[1], -1)
        log_probs = child_log_probs(trie.children(t, paths[t]), block, score_type)
        scores = scores + log_probs.gather(-1, level.slot(paths[t + 1]).unsqueeze(-1)).squeeze(-1)
    if trie.max_rank:
        place = torch.zeros(trie.n_items, device=device).index_put_(
            (trie.leaf_items,), trie.leaf_rank
        )
        scores = break_ties(trie, scores, place[items])
    return scores.masked_fill(paths[-1] < 0, outside_score(trie))


def _leaf_scores(decoder: CodeDecoder, trie: ItemTrie, score_type: str, chunk_size: int) -> Tensor:
    """Scores ``[B, S_L]`` of all leaves, -inf for leaves outside a subset."""
    check_search(score_type, chunk_size)
    allowed = trie.levels[-1].allowed
    leaves = (
        torch.arange(trie.n_leaves, device=decoder.device)
        if allowed is None
        else allowed[:-1].nonzero().squeeze(1)
    )
    scores = torch.full((decoder.batch_size, trie.n_leaves), -torch.inf, device=decoder.device)
    for chunk in leaves.split(chunk_size):
        scores[:, chunk] = _chunk_scores(decoder, trie, chunk, score_type)
    return scores


def _chunk_scores(decoder: CodeDecoder, trie: ItemTrie, leaves: Tensor, score_type: str) -> Tensor:
    """Scores ``[B, C]`` of the sorted ``leaves`` ``[C]``: one pass over the sub-trie above them, one query per node."""
    calls, users = decoder_calls(trie, score_type), decoder.batch_size
    nodes, parents = [leaves], []
    for level in reversed(trie.levels):
        above, inverse = level.parent[nodes[0]].long().unique_consecutive(return_inverse=True)
        nodes.insert(0, above)
        parents.insert(0, inverse)
    scores = torch.zeros(users, 1, device=decoder.device)
    for t, level in enumerate(trie.levels):
        block = None
        if t < calls:
            codes = None if t == 0 else trie.levels[t - 1].code[nodes[t]].long().expand(users, -1)
            block = (
                decoder.start() if t == 0 else decoder.step(codes, parents[t - 1].expand(users, -1))
            )
            block = check_block(block, users, len(nodes[t]), level.size, t)
        log_probs = child_log_probs(trie.children(t, nodes[t].unsqueeze(0)), block, score_type)
        index = parents[t] * log_probs.shape[-1] + level.slot(nodes[t + 1])
        scores = scores.index_select(1, parents[t]) + log_probs.flatten(1).index_select(1, index)
    return scores
