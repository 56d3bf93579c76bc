"""A beam search that widens until its lists are proven."""

from __future__ import annotations

import torch

from recbole_genrec.decoding.exact import exact_search
from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_search
from recbole_genrec.decoding.search import SLACK, descend
from recbole_genrec.decoding.trie import ItemTrie
from recbole_genrec.errors import ConfigError


@torch.no_grad()
def beam_search_auto(
    decoder: CodeDecoder,
    trie: ItemTrie,
    k: int,
    *,
    beam_max: int = 160,
    uncertified: str = "accept",
    score_type: str = "level",
    fill: bool = False,
    chunk_size: int = 256,
) -> SearchResult:
    """The ``k`` best items by a beam search that widens only for users whose list it cannot prove yet (our choice, unpublished).

    What a user needs is wide at the first code and narrow below. The search starts ``2 k`` wide; while a pruned first code of a user could
    still lead to the k best, twice as many further first codes are searched, and no others again. The k-th score found so far is a floor
    for all prefixes from then on. Users who need more than ``2 k`` longer prefixes are searched once more, above the floor.

    Args:
        decoder, trie, score_type, fill: as in :func:`beam_search`. k: number of items returned and proven.
        beam_max: most first codes and most longer prefixes a step.
        uncertified: what happens to users that this leaves unproven: ``accept`` the list, or search it ``exact`` in chunks of
            ``chunk_size`` leaves.
    """
    check_search(score_type, k)
    check_search(score_type, beam_max)
    if uncertified not in ("accept", "exact"):
        raise ConfigError(f"uncertified is '{uncertified}'. Choose 'accept' or 'exact'.")
    options = {"score_type": score_type, "fill": fill}
    done = min(2 * k, beam_max)
    lowest = torch.full((decoder.batch_size,), -torch.inf, device=decoder.device)
    found = descend(decoder, trie, done, k, count=True, floor=lowest, **options)
    while done < beam_max:
        rows = (found.first > found.worst()).nonzero().squeeze(1)
        if not len(rows):
            break
        floor, width = found.worst()[rows] - SLACK, min(2 * done, beam_max - done)
        limits = {"searched": found.searched[rows], "floor": floor, "widest": beam_max}
        more = descend(decoder.select(rows), trie, width, k, count=True, **limits, **options)
        found.add(trie, rows, more, torch.maximum(found.longer[rows], more.longer))
        done += width
    rows = ((found.longer > found.worst()) & (found.first <= found.worst())).nonzero().squeeze(1)
    if len(rows):
        floor = found.worst()[rows] - SLACK
        again = descend(decoder.select(rows), trie, beam_max, k, count=True, floor=floor, **options)
        found.add(trie, rows, again, again.longer)
    result = found.result(trie)
    rows = (~result.certified(k)).nonzero().squeeze(1)
    if len(rows) and uncertified == "exact":
        exact = exact_search(decoder.select(rows), trie, k, chunk_size=chunk_size, **options)
        result.items[rows], result.scores[rows], result.bound[rows] = (
            exact.items,
            exact.scores,
            exact.bound,
        )
        if fill:
            result.full[rows] = exact.full
    return result
