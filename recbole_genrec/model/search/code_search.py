"""The search of a generative method: checks of its settings, the search itself, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from recbole_genrec.data.given_ids import read_ids
from recbole_genrec.decoding import (
    CodeDecoder,
    ItemTrie,
    SearchLog,
    SearchResult,
    beam_search,
    beam_search_auto,
    exact_search,
    grammar_search,
)
from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.protocol_values import whole_ranking_metrics
from recbole_genrec.settings.shared_keys import SharedSettings

REPORTED = ("beam_width", "score_type", "score_mode", "constraint", "subset_norm")


class CodeSearch:
    """The search that the settings of a run ask for.

    Args:
        settings: of the run.

    Attributes:
        log: statistics of the lists that were added since :meth:`reset_log`.
    """

    log: SearchLog

    def __init__(self, settings: SharedSettings):
        self.settings = settings
        self.reset_log()

    def reset_log(self) -> None:
        """Forget the statistics."""
        self.log = SearchLog(self.settings.topk)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Searches that the statistics leave out."""
        counted = self.log
        self.reset_log()
        try:
            yield
        finally:
            self.log = counted

    def best(
        self,
        decoder: CodeDecoder,
        trie: ItemTrie,
        k: int,
        fill: bool = False,
        excluded: Tensor | None = None,
    ) -> SearchResult:
        """The best items of each user; who hands the lists on adds them to :attr:`log`.

        Args:
            decoder: next-code log-probabilities of B users.
            trie: of the items to choose among.
            k: how many.
            fill: also score all items, ``[B, n_items]``.
            excluded: item ids ``[B, H]`` that each user must not get, 0 = none.
        """
        settings = self.settings
        options: dict[str, Any] = {
            "score_type": settings.score_type,
            "fill": fill,
            "excluded": excluded,
        }
        if settings.score_mode == "exact":
            return exact_search(decoder, trie, k, **options)
        if settings.beam_width == "auto":
            most = max(settings.beam_max, k)
            return beam_search_auto(
                decoder, trie, k, beam_max=most, uncertified=settings.uncertified, **options
            )
        search = beam_search if settings.constraint == "trie" else grammar_search
        return search(decoder, trie, max(settings.beam_width, k), **options)

    def report(self, n_candidates: int | None) -> dict[str, Any]:
        """Settings and statistics for the result file.

        Args:
            n_candidates: how many items evaluations rank; ``None`` = all.
        """
        settings = {key: getattr(self.settings, key) for key in REPORTED}
        return {**settings, "candidates": n_candidates, **self.log.shares()}


def search_description(settings: SharedSettings) -> str:
    """The search in one line, for the summary of a run."""
    keys = ("score_mode", "beam_width", "score_type", "constraint")
    return ", ".join(f"{key} {getattr(settings, key)}" for key in keys)


def check_search_settings(values: Mapping[str, Any]) -> None:
    """Refuse settings of the search that cannot work together.

    Args:
        values: all settings of a run.

    Raises:
        ConfigError: names the keys and what to do.
    """
    _check_width(values)
    _check_constraint(values)
    _check_candidates(values)
    _check_metrics(values)


def _check_metrics(values: Mapping[str, Any]) -> None:
    names = whole_ranking_metrics(values["metrics"])
    if names and values["score_mode"] != "exact":
        raise ConfigError(
            f"{', '.join(names)} judges the whole ranking, but a beam search ranks the items that "
            "it did not reach by bounds. Use score_mode: exact, or leave the metric out."
        )


def _check_width(values: Mapping[str, Any]) -> None:
    width = values["beam_width"]
    longest = max(values["topk"])
    if isinstance(width, int) and width < longest:
        raise ConfigError(
            f"beam_width {width} is below max(topk) {longest}: the rest of each list would be "
            f"arbitrary. Use --beam_width={longest} or more, or a smaller topk."
        )
    if width == "auto" and values["beam_max"] < longest:
        raise ConfigError(
            f"beam_max {values['beam_max']} is below max(topk) {longest}. Use "
            f"--beam_max={longest} or more."
        )


def _check_constraint(values: Mapping[str, Any]) -> None:
    if values["constraint"] == "trie":
        return
    needs_trie = (
        values["beam_width"] == "auto"
        or values["score_mode"] == "exact"
        or values["score_type"] == "renormalised"
    )
    if needs_trie:
        raise ConfigError(
            f"constraint: {values['constraint']} lets beams leave the catalogue, so nothing can be "
            "proven, scored exactly or renormalised over legal codes. Use an integer beam_width, "
            "score_mode: beam and score_type: level or joint, or constraint: trie."
        )


def _check_candidates(values: Mapping[str, Any]) -> None:
    file = values["candidate_file"]
    if file is None:
        return
    n_candidates = len(read_ids(file))
    longest = max(values["topk"])
    if n_candidates < longest:
        raise ConfigError(
            f"{file} names {n_candidates} items, but topk asks for {longest}. Give more items or a "
            "smaller topk."
        )


def lists_with_proof(result: SearchResult, k: int) -> list[list[tuple[int, dict[str, Any]]]]:
    """The first ``k`` items of each user, with scores and whether the list up to each is proven."""
    items = result.items[:, :k].tolist()
    scores = result.scores[:, :k]
    proven = result.proven[:, :k].tolist()
    lists = []
    for row in zip(items, scores.tolist(), proven, strict=True):
        triples = zip(*row, strict=True)
        lists.append(
            [
                (item, {"score": score, "certified": certain})
                for item, score, certain in triples
                if item > 0
            ]
        )
    return lists
