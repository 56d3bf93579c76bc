"""The search of a generative model: where hits are lost, and what wider beams prove."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.decoding import CodeDecoder, beam_search, path_scores
from recbole_genrec.experiments.analysis_codes import first_codes
from recbole_genrec.experiments.analysis_lists import rank_metrics
from recbole_genrec.experiments.loading import Trained
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.report.contents import BeamWidth, GivenCodes, Reason, SearchAnalysis
from recbole_genrec.report.ranks import UserRanks, evaluated_cases

QUERIES = 256
"""Items of each user that are scored at once (our choice)."""
WIDTHS = (10, 20, 50, 100, 200)
"""Beam widths that are tried beside the run's own (our choice)."""
NO_BEAMS = "This model scores all items at once, without beams."


class Batch(NamedTuple):
    """Some test users.

    Attributes:
        decoder: of their next codes; None where no beam search gives the model's lists.
        scores: float32 ``[B, n_items]`` of all items, where they are scored at once.
        targets: int64 ``[B]``.
        excluded: item ids ``[B, H]`` that they must not get, 0 = none; None = all may be ranked.
    """

    decoder: CodeDecoder | None
    scores: Tensor | None
    targets: Tensor
    excluded: Tensor | None


class Tally:
    """Ranks of targets, and figures beside them, gathered batch by batch."""

    def __init__(self) -> None:
        self._ranks: list[np.ndarray] = []
        self._figures: list[np.ndarray] = []

    def add(self, ranks: np.ndarray, figures: np.ndarray) -> None:
        """Take in the users of a batch: ranks int64 ``[B]``, figures ``[B]`` or ``[B, n]``."""
        self._ranks.append(ranks)
        self._figures.append(figures)

    def ranks(self) -> np.ndarray:
        """Ranks of all users, int64 ``[n_users]``."""
        return np.concatenate(self._ranks)

    def mean(self) -> np.ndarray:
        """Means of the figures over the users."""
        return np.concatenate(self._figures).mean(0)


def analyse_search(trained: Trained, loader: Any, ranks: UserRanks) -> SearchAnalysis | Reason:
    """The recall with given codes and the search by beam width.

    Args:
        trained: the model and its data.
        loader: the users to search for.
        ranks: of these users, and of others, in the lists of the run's own search.
    """
    model = trained.model
    reason = _why_left_out(model)
    if reason is not None:
        return reason
    depth = max(model.settings.topk)
    codes = model.trie_table()[0]
    groups = [first_codes(codes, count) for count in range(1, codes.shape[1] + 1)]

    by_width = {width: Tally() for width in _widths(model, depth)}
    by_level = [Tally() for _ in groups]
    for batch in _batches(model, loader):
        for width, tally in by_width.items():
            tally.add(*_searched(model, batch, width, depth))
        for tally, counted in zip(by_level, _ranks_with_codes(model, batch, groups), strict=True):
            tally.add(*counted)

    widths = []
    for width, tally in by_width.items():
        shares = dict(zip(model.settings.topk, tally.mean().tolist(), strict=True))
        widths.append(BeamWidth(width, shares, _metrics(tally.ranks(), depth)))
    everything = float(model.n_items - 1)
    given_codes = [GivenCodes(0, everything, _metrics(_ranks_of(loader, ranks), depth))]
    for n_codes, tally in enumerate(by_level, start=1):
        places = tally.ranks()
        metrics = _metrics(np.where(places > depth, 0, places), depth)
        given_codes.append(GivenCodes(n_codes, float(tally.mean()), metrics))
    return SearchAnalysis(len(by_level[0].ranks()), given_codes, widths or NO_BEAMS)


def _why_left_out(model: Any) -> str | None:
    """Why there is no search to look at; ``None`` where there is one."""
    if not isinstance(model, GenerativeRecommender):
        return "This model ranks without a search over codes."
    if model.settings.constraint != "trie":
        return (
            f"constraint is {model.settings.constraint}: beams may leave the catalogue, so nothing "
            "is proven and no codes can be given."
        )
    if model.settings.candidate_file is not None:
        return "candidate_file: only some of the items are ranked."
    return None


def _ranks_of(loader: Any, ranks: UserRanks) -> np.ndarray:
    """Ranks of the users of a loader."""
    by_user = dict(zip(ranks.users, ranks.ranks.tolist(), strict=True))
    users, _ = evaluated_cases(loader)
    return np.array([by_user[user] for user in users])


def _scores_all_items(model: GenerativeRecommender) -> bool:
    """Whether one product gives the scores of all items, as with TimelineRec's stateless tree."""
    plan = getattr(model, "plan", None)
    return plan is not None and plan.scores_all_items


def _widths(model: GenerativeRecommender, depth: int) -> list[int]:
    """Beam widths from the length of the lists on, the run's own among them; none without beams."""
    if not model.has_one_tree:
        return []
    widest = model.settings.beam_width
    if widest == "auto":
        widest = model.settings.beam_max
    widths = {depth, widest, *(width for width in WIDTHS if width >= depth)}
    return sorted(width for width in widths if width >= depth)


def _batches(model: GenerativeRecommender, loader: Any) -> Iterator[Batch]:
    """The users of a loader, ``search_batch_size`` at a time."""
    device = next(model.parameters()).device
    at_once = _scores_all_items(model)
    for interaction, _, _, targets in loader:
        rows_of_batch = torch.arange(len(targets))
        for rows in rows_of_batch.split(model.settings.search_batch_size):
            part = interaction[rows].to(device)
            excluded = model.excluded_items(part)
            with torch.no_grad():
                decoder = model.decoder(part) if model.has_one_tree else None
                scores = model.full_sort_predict(part) if at_once else None
            yield Batch(decoder, scores, targets[rows].to(device), excluded)


def _searched(
    model: GenerativeRecommender, batch: Batch, width: int, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the targets ``[B]`` and proofs of lists ``[B, topk]`` with a beam width."""
    assert batch.decoder is not None
    result = beam_search(
        batch.decoder,
        model.search_trie,
        width,
        score_type=model.settings.score_type,
        excluded=batch.excluded,
    )
    hits = result.items[:, :depth] == batch.targets.unsqueeze(1)  # [B, depth]
    ranks = torch.where(hits.any(1), hits.int().argmax(1) + 1, 0)
    certified = torch.stack([result.certified(k) for k in model.settings.topk], 1)
    return ranks.cpu().numpy(), certified.cpu().numpy()


@torch.no_grad()
def _ranks_with_codes(
    model: GenerativeRecommender, batch: Batch, groups: list[Tensor]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each number of given codes: ranks of the targets and how many items begin with them."""
    targets = batch.targets
    device = targets.device
    first = groups[0].to(device)
    alike = first[None, 1:] == first[targets][:, None]  # [B, n_items - 1]
    n_alike = alike.sum(1)
    columns = int(n_alike.max())
    # the items that share the first code with the target, then filling
    places = torch.argsort(alike.int(), dim=1, descending=True, stable=True)[:, :columns] + 1
    is_real = torch.arange(columns, device=device) < n_alike.unsqueeze(1)  # [B, Q]
    is_target = places == targets.unsqueeze(1)
    if batch.excluded is not None:
        hidden = (places.unsqueeze(2) == batch.excluded.unsqueeze(1)).any(2)
        is_real &= ~hidden | is_target

    score = _scores(model, batch, places)  # [B, Q]
    of_target = score.masked_fill(~is_target, -torch.inf).amax(1, keepdim=True)
    better = is_real & (score > of_target)

    rows = []
    for group in groups:
        group = group.to(device)
        same = is_real & (group[places] == group[targets].unsqueeze(1))
        ranks = 1 + (better & same).sum(1)
        if batch.excluded is not None:
            unreachable = (batch.excluded == targets.unsqueeze(1)).any(1)
            ranks = ranks.masked_fill(unreachable, 0)
        rows.append((ranks.cpu().numpy(), same.sum(1).cpu().numpy()))
    return rows


def _scores(model: GenerativeRecommender, batch: Batch, items: Tensor) -> Tensor:
    """Scores ``[B, Q]`` of given items ``[B, Q]``."""
    if batch.scores is not None:
        return batch.scores.gather(1, items)
    assert batch.decoder is not None
    score_type = model.settings.score_type
    chunks = []
    for chunk in items.split(QUERIES, 1):
        chunks.append(path_scores(batch.decoder, model.search_trie, chunk, score_type=score_type))
    return torch.cat(chunks, 1)


def _metrics(ranks: np.ndarray, depth: int) -> dict[str, float]:
    return rank_metrics(UserRanks(ranks.astype(np.int64), (), depth))
