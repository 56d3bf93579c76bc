"""Beam search through the item trie with a proof of exactness per user."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.exact import exact_search
from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_block, check_search
from recbole_genrec.decoding.scores import best_items, child_log_probs, decoder_calls, fill_items, spread, top
from recbole_genrec.decoding.trie import ItemTrie
from recbole_genrec.errors import ConfigError


@torch.no_grad()
def beam_search(decoder: CodeDecoder, trie: ItemTrie, beam_width: int, *, score_type: str = "level", fill: bool = False) -> SearchResult:
    """The ``beam_width`` best items per user among those the beams reach.

    Only prefixes of items are followed (TIGER, arXiv 2305.05065, section 3.2, with a trie instead of filtering afterwards). The search
    starts with one beam per user; nothing is pruned after the last code, so every leaf below a live beam has its exact score. Beams stand
    in lexicographic order, hence equal scores are decided by smaller codes first. Nothing waits for the device inside the loop.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be returned, on the decoder's device.
        beam_width: K, number of prefixes kept per step and of items returned.
        score_type: ``joint`` or ``level`` (the decoder's log-probabilities), or ``renormalised`` (over the legal codes).
        fill: also return ``full`` ``[B, n_items]`` for full ranking.

    Raises:
        ConfigError: unknown score type or width; BackboneError: the decoder's output does not fit the alphabets.
    """
    check_search(score_type, beam_width)
    calls, users = decoder_calls(trie, score_type), decoder.batch_size
    nodes = torch.zeros(users, 1, dtype=torch.int64, device=decoder.device)
    scores = torch.zeros(users, 1, device=decoder.device)
    bound = torch.full((users,), -torch.inf, device=decoder.device)
    bounds = scores
    block = decoder.start() if calls else None
    for t, level in enumerate(trie.levels):
        if block is not None:
            block = check_block(block, users, nodes.shape[1], level.size, t)
        children = trie.children(t, nodes)
        candidates = scores.unsqueeze(-1) + child_log_probs(children, block, score_type)
        if fill:
            bounds = spread(trie, t, bounds, children, candidates)
        if t == trie.depth - 1:
            break
        kept, pruned = top(candidates.flatten(1), min(beam_width, level.n_edges))
        bound = torch.maximum(bound, pruned)
        kept = kept.sort(-1).values
        scores = candidates.flatten(1).gather(1, kept)
        nodes = children.nodes.flatten(1).gather(1, kept).long()
        slots = children.nodes.shape[-1]
        if t + 1 < calls:
            codes = kept % slots if children.codes is None else children.codes.flatten(1).gather(1, kept)
            block = decoder.step(codes, kept // slots)
        else:
            block = None
    items, best = best_items(trie, candidates.flatten(1), children.nodes.flatten(1).long(), beam_width)
    return SearchResult(items, best, bound, fill_items(trie, bounds, children, candidates) if fill else None)


@torch.no_grad()
def beam_search_auto(
    decoder: CodeDecoder,
    trie: ItemTrie,
    beam_width: int,
    *,
    k: int | None = None,
    beam_max: int = 160,
    uncertified: str = "accept",
    score_type: str = "level",
    fill: bool = False,
    chunk_size: int = 256,
) -> SearchResult:
    """Beam search that widens only where the proof of exactness fails (our choice, unpublished).

    Users whose first ``k`` items (default ``beam_width``) are not certified are searched again with twice the width, up to ``beam_max``.
    Those still uncertified keep the widest result (``uncertified="accept"``) or get the exact one (``"exact"``, in chunks of
    ``chunk_size`` leaves). Returns ``beam_width`` items per user; ``bound`` belongs to each user's last search.
    """
    if uncertified not in ("accept", "exact"):
        raise ConfigError(f"uncertified is '{uncertified}'. Choose 'accept' or 'exact'.")
    k, width = beam_width if k is None else k, beam_width
    result = beam_search(decoder, trie, width, score_type=score_type, fill=fill)
    rows = _uncertified(result, k)
    while len(rows) and width < beam_max:
        width = min(2 * width, beam_max)
        _replace(result, rows, beam_search(decoder.select(rows), trie, width, score_type=score_type, fill=fill))
        rows = _uncertified(result, k)
    if len(rows) and uncertified == "exact":
        _replace(
            result, rows, exact_search(decoder.select(rows), trie, beam_width, score_type=score_type, fill=fill, chunk_size=chunk_size)
        )
    return result


def _uncertified(result: SearchResult, k: int) -> Tensor:
    return (~result.certified(k)).nonzero().squeeze(1)


def _replace(result: SearchResult, rows: Tensor, better: SearchResult) -> None:
    """Write the results of some users, cut to the width of ``result``."""
    width = result.items.shape[1]
    result.items[rows], result.scores[rows], result.bound[rows] = better.items[:, :width], better.scores[:, :width], better.bound
    if result.full is not None:
        result.full[rows] = better.full
