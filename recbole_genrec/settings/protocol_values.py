"""What RecBole's keys say of an evaluation: what is ranked, what is left out, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WITHOUT_K = ("auc", "gauc", "mae", "rmse", "logloss")
VALIDATION_LOSS = "loss"
"""Value of ``valid_metric``: the epoch with the lowest loss on the validation split is chosen."""


def evaluation_modes(eval_args: Mapping[str, Any]) -> dict[str, str]:
    """What is ranked, by part: the mode of ``valid`` and that of ``test``.

    Where one of them is given alone, both have it; where none is, both are ``full``.

    Args:
        eval_args: value of the key.
    """
    mode: Any = eval_args.get("mode", "full")
    if not isinstance(mode, dict):
        return {"valid": mode, "test": mode}
    valid: Any = mode.get("valid", mode.get("test", "full"))
    return {"valid": valid, "test": mode.get("test", valid)}


def ranks_all_items(eval_args: Any) -> bool:
    """Whether validation and test rank all items, not samples.

    Args:
        eval_args: value of the key.
    """
    return set(evaluation_modes(eval_args).values()) == {"full"}


def history_masked(values: Mapping[str, Any]) -> bool:
    """Whether lists hold no item of the user's history.

    Args:
        values: settings of a run, also of a version that did not have all of these keys.
    """
    if values.get("exclude_history") or values.get("mask_history"):
        return True
    # RecBole's own way, which it has for general models alone
    return values.get("repeatable") is False


def metric_names(metrics: list[str], topk: list[int]) -> list[str]:
    """Names of the figures that an evaluation gives, in lower case."""
    names = []
    for metric in map(str.lower, metrics):
        if metric in WITHOUT_K:
            names.append(metric)
        else:
            names += [f"{metric}@{k}" for k in topk]
    return names


def ranking_metric(settings: Any) -> str:
    """``valid_metric``, or the first figure of ranked lists where the loss takes its place.

    Args:
        settings: of a run.
    """
    metric = settings.valid_metric.lower()
    if metric != VALIDATION_LOSS:
        return metric
    names = metric_names(settings.metrics, settings.topk)
    ndcg = [name for name in names if name.startswith("ndcg@")]
    return (ndcg or names)[0]


def whole_ranking_metrics(metrics: Iterable[str]) -> list[str]:
    """Those of ``metrics`` that judge the whole ranking and not its first items, such as GAUC.

    RecBole's metrics declare what they read; a name that it does not know is left to its own check.
    """
    from recbole.evaluator.register import metric_information

    named = [name for name in metrics if name.lower() in metric_information]
    return [name for name in named if "rec.meanrank" in metric_information[name.lower()]]
