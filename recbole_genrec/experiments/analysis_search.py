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
from recbole_genrec.report.contents import Analysis, BeamWidth, GivenCodes
from recbole_genrec.report.ranks import UserRanks, evaluated_cases

QUERIES = 256
"""Items of each user that are scored at once (our choice)."""
WIDTHS = (10, 20, 50, 100, 200)
"""Beam widths that are tried beside the run's own (our choice)."""


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


def analyse_search(analysis: Analysis, trained: Trained, loader: Any) -> None:
    """Fill in the recall with given codes and the search by beam width.

    Args:
        analysis: is filled in.
        trained: the model and its data.
        loader: the users to search for.
    """
    model = trained.model
    if not isinstance(model, GenerativeRecommender):
        analysis.left_out["search"] = "This model ranks without a search over codes."
        return
    if model.settings.constraint != "trie":
        analysis.left_out["search"] = (
            f"constraint is {model.settings.constraint}: beams may leave the catalogue, so nothing "
            "is proven and no codes can be given."
        )
        return
    if model.settings.candidate_file is not None:
        analysis.left_out["search"] = "candidate_file: only some of the items are ranked."
        return
    depth = max(model.settings.topk)
    widths = _widths(model, depth)
    if not _has_beams(model):
        analysis.left_out["widths"] = "This model scores all items at once, without beams."
        widths = []
    codes = model.trie_table()[0]
    groups = [first_codes(codes, count) for count in range(1, codes.shape[1] + 1)]
    by_width: dict[int, list[np.ndarray]] = {width: [] for width in widths}
    proven: dict[int, list[np.ndarray]] = {width: [] for width in widths}
    by_level: list[list[np.ndarray]] = [[] for _ in groups]
    sizes: list[list[np.ndarray]] = [[] for _ in groups]
    for batch in _batches(model, loader):
        for width in widths:
            ranks, certified = _searched(model, batch, width, depth)
            by_width[width].append(ranks)
            proven[width].append(certified)
        for level, (ranks, size) in enumerate(_ranks_with_codes(model, batch, groups)):
            by_level[level].append(ranks)
            sizes[level].append(size)
    _fill_in(analysis, model, depth, by_width, proven)
    analysis.searched_users = len(np.concatenate(by_level[0]))
    everything = float(model.n_items - 1)
    metrics_of_run = _metrics(_ranks_of_run(analysis, loader), depth)
    analysis.given_codes = [GivenCodes(0, everything, metrics_of_run)]
    for level in range(len(groups)):
        ranks = np.concatenate(by_level[level])
        ranks = np.where(ranks > depth, 0, ranks)
        mean_size = float(np.concatenate(sizes[level]).mean())
        analysis.given_codes.append(GivenCodes(level + 1, mean_size, _metrics(ranks, depth)))


def _ranks_of_run(analysis: Analysis, loader: Any) -> np.ndarray:
    """Ranks of the users of ``loader`` in the lists of the run's own search."""
    assert analysis.ranks is not None
    ranks = dict(zip(analysis.ranks.users, analysis.ranks.ranks.tolist(), strict=True))
    users, _ = evaluated_cases(loader)
    return np.array([ranks[user] for user in users])


def _scores_all_items(model: GenerativeRecommender) -> bool:
    """Whether one product gives the scores of all items, as with TimelineRec's stateless tree."""
    plan = getattr(model, "plan", None)
    return plan is not None and plan.scores_all_items


def _has_beams(model: GenerativeRecommender) -> bool:
    """Whether a beam search gives the lists of the model, even if it needs none."""
    return not _scores_all_items(model) or tuple(model.plan.head_names) == ("tree",)


def _widths(model: GenerativeRecommender, depth: int) -> list[int]:
    """Beam widths from the length of the lists on, the run's own among them."""
    widest = model.settings.beam_width
    if widest == "auto":
        widest = model.settings.beam_max
    widths = {depth, widest, *(width for width in WIDTHS if width >= depth)}
    return sorted(width for width in widths if width >= depth)


def _batches(model: GenerativeRecommender, loader: Any) -> Iterator[Batch]:
    """The users of a loader, ``search_batch_size`` at a time."""
    device = next(model.parameters()).device
    has_beams = _has_beams(model)
    at_once = _scores_all_items(model)
    for interaction, _, _, targets in loader:
        rows_of_batch = torch.arange(len(targets))
        for rows in rows_of_batch.split(model.settings.search_batch_size):
            part = interaction[rows].to(device)
            excluded = model.excluded_items(part)
            with torch.no_grad():
                decoder = model.decoder(part) if has_beams else None
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


def _fill_in(
    analysis: Analysis,
    model: GenerativeRecommender,
    depth: int,
    by_width: dict[int, list[np.ndarray]],
    proven: dict[int, list[np.ndarray]],
) -> None:
    """The rows of the beam widths."""
    for width, ranks in by_width.items():
        shares = np.concatenate(proven[width]).mean(0)
        certified = dict(zip(model.settings.topk, shares.tolist(), strict=True))
        joined = np.concatenate(ranks)
        analysis.widths.append(BeamWidth(width, certified, _metrics(joined, depth)))


def _metrics(ranks: np.ndarray, depth: int) -> dict[str, float]:
    return rank_metrics(UserRanks(ranks.astype(np.int64), (), depth))
