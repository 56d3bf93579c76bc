"""Beam search through the item trie with a proof of exactness per user."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.descent import Descent, Limits, SearchOptions
from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_search
from recbole_genrec.decoding.trie import ItemTrie


@torch.no_grad()
def beam_search(
    decoder: CodeDecoder,
    trie: ItemTrie,
    beam_width: int,
    *,
    score_type: str = "level",
    fill: bool = False,
    count: bool | None = None,
    excluded: Tensor | None = None,
) -> SearchResult:
    """The ``beam_width`` best items per user among those the beams reach.

    Only prefixes of items are followed (TIGER, arXiv 2305.05065, section 3.2, with a trie instead
    of filtering afterwards). The search starts with one beam per user. Nothing is pruned after the
    last code, so every leaf below a live beam has its exact score.

    Under ``renormalised`` a prefix of a single leaf is finished, since all further codes cost 0: it
    joins the leaves that were reached and takes no beam (our choice, unpublished).

    Beams stand in lexicographic order, hence equal scores are decided by smaller codes first.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be returned, on the decoder's device.
        beam_width: K, number of unfinished prefixes kept per step and of items returned.
        score_type: ``joint`` or ``level`` (the decoder's log-probabilities), or ``renormalised``
            (over the legal codes).
        fill: also return ``full`` ``[B, n_items]`` for full ranking.
        count: under ``renormalised``, keep no more beams than some user has, and stop when nobody
            has any; the results are the same. The number is read on the host at every step, so the
            default is True on a CPU and False elsewhere, where nothing waits.
        excluded: int64 ``[B, H]``, items that each user must not get, 0 = none. The search does not
            enter prefixes of such items alone, and the scores of the others do not change.

    Returns:
        The items, their scores and the bound on everything that was pruned.

    Raises:
        ConfigError: unknown score type, or a width below 1.
        BackboneError: the decoder's output does not fit the alphabets.
    """
    check_search(score_type, beam_width)
    if count is None:
        count = decoder.device.type == "cpu"
    options = SearchOptions(score_type, fill, count and score_type == "renormalised")
    limits = Limits(first=beam_width, longer=beam_width)
    exclusion = Exclusion.of(trie, excluded)
    descent = Descent(decoder, trie, beam_width, options, limits, exclusion)
    return descent.run().result(trie, exclusion)
