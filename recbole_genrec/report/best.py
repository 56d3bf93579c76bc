"""Which value of a metric is the best one, and which epoch of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole.evaluator.register import metrics_dict

from recbole_genrec.report.metric_names import kind
from recbole_genrec.settings.protocol_values import VALIDATION_LOSS


def lower_is_better(metric: str) -> bool:
    """Whether lower values of a metric are better, as RecBole says.

    Args:
        metric: as in result files, such as ``ndcg@10`` or ``averagepopularity@10``.
    """
    if metric == VALIDATION_LOSS:
        return True
    metric_class = metrics_dict.get(kind(metric).lower())
    return bool(getattr(metric_class, "smaller", False))


def best_value(metric: str, values: Iterable[float | None]) -> float | None:
    """The best of some values of a metric.

    Args:
        metric: as in :func:`lower_is_better`.
        values: of several runs; ``None`` for those that have none.

    Returns:
        One of the values, or ``None`` where no run has one.
    """
    numbers = [value for value in values if value is not None]
    choose = min if lower_is_better(metric) else max
    return choose(numbers, default=None)


def best_epoch(result: Mapping[str, Any]) -> int | None:
    """The epoch whose weights were tested: that of the best validation, the last of equal ones.

    RecBole stores an epoch that is as good as the best one before.

    Args:
        result: the content of a result file.

    Returns:
        Its number, counted from 1 as people do; result files count from 0.
    """
    metric = valid_metric(result)
    scores = {}
    for epoch in result.get("epochs") or []:
        score = (epoch.get("valid") or {}).get(metric)
        if score is not None:
            scores[epoch["epoch"] + 1] = score
    if not scores:
        return None
    choose = max if result.get("valid_score_bigger", True) else min
    return choose(reversed(scores), key=scores.__getitem__)


def valid_metric(result: Mapping[str, Any]) -> str:
    """The metric that chose the epoch, as results call it: ``ndcg@10``."""
    return str((result.get("config") or {}).get("valid_metric", "ndcg@10")).lower()
