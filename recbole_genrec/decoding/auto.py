"""A beam search that widens until its lists are proven."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.descent import Descent, Limits, SearchOptions
from recbole_genrec.decoding.exact import exact_search
from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_search
from recbole_genrec.decoding.reached import Reached
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
    excluded: Tensor | None = None,
) -> SearchResult:
    """The ``k`` best items by a beam search that widens only where a list is not proven yet.

    What a user needs is wide at the first code and narrow below. The search starts ``2 k`` wide.
    While a pruned first code of a user could still lead to the k best, twice as many further first
    codes are searched, and no others again. The k-th score reached so far is a floor for all
    prefixes from then on. Users who need more than ``2 k`` longer prefixes are searched once more,
    above the floor (our choice, unpublished).

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be returned, on the decoder's device.
        k: number of items returned and proven.
        beam_max: most first codes, and most longer prefixes a step.
        uncertified: what happens to users whose lists are still not proven then: ``accept`` the
            list, or search it ``exact``.
        score_type: as in :func:`beam_search`.
        fill: as in :func:`beam_search`.
        excluded: as in :func:`beam_search`.

    Returns:
        The items, their scores and the bound on everything that was pruned.

    Raises:
        ConfigError: an unknown score type or value of ``uncertified``, or a width below 1.
    """
    check_search(score_type, k)
    check_search(score_type, beam_max)
    if uncertified not in ("accept", "exact"):
        raise ConfigError(f"uncertified is '{uncertified}'. Choose 'accept' or 'exact'.")
    options = SearchOptions(score_type, fill, count=True)
    exclusion = Exclusion.of(trie, excluded)
    search = WideningSearch(decoder, trie, k, beam_max, options, exclusion)
    search.follow_first_codes()
    search.follow_longer_prefixes()

    result = search.reached.result(trie, exclusion)
    if uncertified == "exact":
        _search_exactly(result, decoder, trie, k, options, excluded)
    return result


class WideningSearch:
    """Passes through the trie, each for the users whose list is not proven yet.

    Args:
        decoder: the generator for B users.
        trie: the items that may be returned.
        k: number of leaves to prove.
        beam_max: most first codes, and most longer prefixes a step.
        options: how to score, and what to keep.
        exclusion: what users must not get; None = they may get all items.
    """

    def __init__(
        self,
        decoder: CodeDecoder,
        trie: ItemTrie,
        k: int,
        beam_max: int,
        options: SearchOptions,
        exclusion: Exclusion | None = None,
    ) -> None:
        self.decoder = decoder
        self.exclusion = exclusion
        self.trie = trie
        self.k = k
        self.beam_max = beam_max
        self.options = options
        self.first_codes = min(2 * k, beam_max)  # searched so far, for each user
        lowest = torch.full((decoder.batch_size,), -torch.inf, device=decoder.device)
        limits = Limits(self.first_codes, self.first_codes, lowest)
        self.reached = self._descend(decoder, limits, exclusion)

    def _descend(
        self, decoder: CodeDecoder, limits: Limits, exclusion: Exclusion | None
    ) -> Reached:
        return Descent(decoder, self.trie, self.k, self.options, limits, exclusion).run()

    def _exclusion(self, rows: Tensor) -> Exclusion | None:
        """What the users ``rows`` must not get."""
        if self.exclusion is None:
            return None
        return self.exclusion.select(rows)

    def follow_first_codes(self) -> None:
        """Follow more first codes of the users whose list a pruned first code could change."""
        reached = self.reached
        while self.first_codes < self.beam_max:
            rows = _rows(reached.first > reached.worst())  # [R]
            if not len(rows):
                break
            width = min(2 * self.first_codes, self.beam_max - self.first_codes)
            floor = reached.floor()[rows]
            limits = Limits(width, self.beam_max, floor, reached.searched[rows])
            exclusion = self._exclusion(rows)
            other = self._descend(self.decoder.select(rows), limits, exclusion)
            longer = torch.maximum(reached.longer[rows], other.longer)
            reached.add(self.trie, rows, other, longer, exclusion)
            self.first_codes += width

    def follow_longer_prefixes(self) -> None:
        """Search the users once more whose list only a pruned longer prefix could change."""
        reached = self.reached
        worst = reached.worst()
        rows = _rows((reached.longer > worst) & (reached.first <= worst))  # [R]
        if not len(rows):
            return
        limits = Limits(self.beam_max, self.beam_max, reached.floor()[rows])
        exclusion = self._exclusion(rows)
        other = self._descend(self.decoder.select(rows), limits, exclusion)
        reached.add(self.trie, rows, other, other.longer, exclusion)


def _rows(mask: Tensor) -> Tensor:
    """Index int64 ``[R]`` of the users for whom ``mask`` bool ``[B]`` is true."""
    return mask.nonzero().squeeze(1)


def _search_exactly(
    result: SearchResult,
    decoder: CodeDecoder,
    trie: ItemTrie,
    k: int,
    options: SearchOptions,
    excluded: Tensor | None,
) -> None:
    """Replace the lists in ``result`` that are not proven by exact ones."""
    rows = _rows(~result.certified(k))  # [R]
    if not len(rows):
        return
    if excluded is not None:
        excluded = excluded[rows]
    exact = exact_search(
        decoder.select(rows),
        trie,
        k,
        score_type=options.score_type,
        fill=options.fill,
        excluded=excluded,
    )
    result.items[rows] = exact.items
    result.scores[rows] = exact.scores
    result.bound[rows] = exact.bound
    if result.full is not None and exact.full is not None:
        result.full[rows] = exact.full
