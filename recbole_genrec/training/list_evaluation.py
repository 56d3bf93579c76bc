"""Evaluations that hold ranked lists instead of a row of all items for each user.

RecBole ranks from scores ``[users of a batch, n_items]``. With ``dense_scores: False``, or ``auto``
and a large catalogue, the evaluator gets the lists and the hits in them: the same metrics, and
memory that does not grow with users times items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from torch import Tensor

from recbole_genrec.decoding.topk import ordered_topk
from recbole_genrec.errors import ConfigError, GenRecError

LARGE_CATALOGUE = 50_000
"""Items from which ``dense_scores: auto`` takes lists."""

MOST_SCORES = 2**24
"""Scores of all items that stand in memory at once, 64 MiB (our choice)."""

WHOLE_ROWS = ("rec.meanrank", "rec.score", "data.label")
"""What metrics may need that lists do not hold."""

CLIP = "--clip_grad_norm=\"{'max_norm': 1.0}\""


WENT_WRONG = (
    "the weights of the model went wrong in the last epochs. Train again with a lower "
    f"--learning_rate, {CLIP}, or --precision=fp32."
)
"""The rest of a message about figures that are not numbers."""


class RankedLists(NamedTuple):
    """The best items of some users, in the place of their scores of all items.

    Attributes:
        items: item ids ``[B, k]``, best first; 0 = none, where too few items may be ranked.
        scores: ``[B, k]``.
    """

    items: Tensor
    scores: Tensor

    @classmethod
    def of(cls, scores: Tensor, k: int) -> RankedLists:
        """The best of scores of all items ``[B, n_items]``; equal ones by ascending id."""
        best, items = ordered_topk(scores, k)
        return cls(items, best)

    def without(
        self, seen: tuple[Tensor, Tensor] | None, n_items: int, floor: float = -torch.inf
    ) -> RankedLists:
        """The lists with 0 in the places that no item may take.

        Where fewer than ``k`` items are left, ``topk`` fills a list with items that may not be in
        it. None of them is a hit.

        Args:
            seen: rows ``[S]`` of ``items``, and the item id ``[S]`` that leaves each of them, too;
                ``None`` = none.
            n_items: number of items, the padding item included.
            floor: score up to which items leave the lists.
        """
        is_empty = self.scores <= floor
        if seen is not None:
            rows, items = (numbers.to(self.items.device) for numbers in seen)
            first = torch.arange(len(self.items), device=self.items.device) * n_items
            is_empty |= torch.isin(first.unsqueeze(1) + self.items, rows * n_items + items)
        return RankedLists(
            self.items.masked_fill(is_empty, 0), self.scores.masked_fill(is_empty, -torch.inf)
        )


def ranked_batch(trainer: Any, batch: tuple, dense: Callable[[tuple], tuple]) -> tuple:
    """What an evaluation collects of a batch: scores of all items, or ranked lists.

    Args:
        trainer: which evaluates.
        batch: of a loader for full ranking.
        dense: RecBole's function, which gives scores of all items.

    Returns:
        As RecBole's function; :class:`RankedLists` may stand in the place of scores.

    Raises:
        ConfigError: see :func:`takes_lists`.
        GenRecError: the model gives scores that are not numbers.
    """
    settings = trainer.settings
    n_items = trainer.tot_item_num
    if not takes_lists(settings.dense_scores, trainer.eval_collector, n_items):
        scored = dense(batch)
        check_numbers(scored[1])
        floor = unranked_score(trainer.model)
        if floor > -torch.inf:
            scored[1].masked_fill_(scored[1] <= floor, -torch.inf)
        return scored
    interaction, seen, rows, targets = batch
    k = max(settings.topk)
    try:
        lists = ranked_lists(trainer.model, interaction.to(trainer.device), seen, k, n_items)
    except NotImplementedError:
        # RecBole then asks the model for each pair of user and item.
        lists = RankedLists.of(dense(batch)[1], k)
    check_numbers(lists.scores)
    return interaction, lists, rows, targets


def unranked_score(model: Any) -> float:
    """Score up to which items of a model have no place in a list."""
    return float(getattr(model, "unranked_score", -torch.inf))


def takes_lists(dense: bool | Literal["auto"], collector: Collector, n_items: int) -> bool:
    """Whether an evaluation holds lists.

    Args:
        dense: the key ``dense_scores``.
        collector: which knows what the metrics need.
        n_items: number of items, the padding item included.

    Raises:
        ConfigError: ``dense_scores: False`` and a metric of the whole ranking.
    """
    if dense is True:
        return False
    if dense is False:
        if needs_whole_rows(collector):
            raise ConfigError(
                f"dense_scores: False holds lists of max(topk) items, and metrics "
                f"{collector.config['metrics']} need the scores of all items. Leave out GAUC and "
                "metrics of single scores, or use dense_scores: auto."
            )
        return True
    return n_items > LARGE_CATALOGUE and not needs_whole_rows(collector)


def needs_whole_rows(collector: Collector) -> bool:
    """Whether a metric reads the scores of all items.

    Args:
        collector: which knows what the metrics need.
    """
    return any(collector.register.need(name) for name in WHOLE_ROWS)


def ranked_lists(
    model: Any,
    interaction: Interaction,
    seen: tuple[Tensor, Tensor] | None,
    k: int,
    n_items: int,
) -> RankedLists:
    """The best items of the users of a batch.

    Args:
        model: one of ours with ``best_items``, or one of RecBole's.
        interaction: the batch, on the device of the model.
        seen: rows ``[S]`` of the batch, and the item id ``[S]`` that leaves the list of each;
            ``None`` = none.
        k: length of the lists.
        n_items: number of items, the padding item included.

    Raises:
        NotImplementedError: a model of RecBole that scores given pairs alone.
    """
    if hasattr(model, "best_items"):
        lists_of_search = RankedLists(*model.best_items(interaction, k))
        return lists_of_search.without(seen, n_items, unranked_score(model))
    n_rows = len(interaction)
    rows_at_once = max(1, MOST_SCORES // n_items)
    lists = []
    for start in range(0, n_rows, rows_at_once):
        rows = slice(start, min(start + rows_at_once, n_rows))
        scores = model.full_sort_predict(interaction[rows]).view(-1, n_items)
        scores[:, 0] = -torch.inf
        if seen is not None:
            scores[_rows_of(seen, rows)] = -torch.inf
        lists.append(RankedLists.of(scores, k))
    items, best = zip(*lists, strict=True)
    return RankedLists(torch.cat(items), torch.cat(best)).without(None, n_items)


def _rows_of(seen: tuple[Tensor, Tensor], rows: slice) -> tuple[Tensor, Tensor]:
    """Places of some rows alone, counted from the first of them."""
    row, item = seen
    inside = (row >= rows.start) & (row < rows.stop)
    return row[inside] - rows.start, item[inside]


def hits_in(lists: Tensor, rows: Tensor, targets: Tensor, n_items: int) -> Tensor:
    """Which places of lists hold targets, as RecBole's ``rec.topk``.

    Args:
        lists: item ids ``[B, k]``.
        rows: the row of each target ``[P]``.
        targets: item ids ``[P]``; one that is named twice counts once.
        n_items: number of items.

    Returns:
        int64 ``[B, k + 1]``; the last column counts the targets of the row.
    """
    rows = rows.to(lists.device)
    targets = targets.to(lists.device)
    pairs = torch.unique(rows * n_items + targets)
    first = torch.arange(len(lists), device=lists.device) * n_items
    hits = torch.isin(first.unsqueeze(1) + lists, pairs)  # [B, k]
    counts = torch.bincount(pairs // n_items, minlength=len(lists))
    return torch.cat([hits.long(), counts.unsqueeze(1)], dim=1)


def check_numbers(scores: Tensor) -> None:
    """Refuse scores that are not numbers, which ``topk`` would rank first.

    Raises:
        GenRecError: a score is NaN.
    """
    if torch.isnan(scores).any():
        raise GenRecError(
            "The model gives scores that are not numbers (NaN), so its lists would be "
            f"arbitrary: {WENT_WRONG}"
        )
