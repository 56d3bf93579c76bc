"""Checks of RecBole's composed values: evaluation, metrics, clipping, changes of histories."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.filters import check_filters
from recbole_genrec.settings.protocol_values import (
    VALIDATION_LOSS,
    evaluation_modes,
    metric_names,
)
from recbole_genrec.settings.rules import did_you_mean

EVAL_ARGS = ("split", "order", "group_by", "mode")
PARTS = ("valid", "test")
TRANSFORM_KEYS = {
    "mask_itemseq": ("mask_ratio",),
    "crop_itemseq": ("eta",),
    "reorder_itemseq": ("beta",),
    "inverse_itemseq": (),
    "user_defined": (),
}
"""What RecBole's changes of histories read."""
PICKLES = ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path")
NEGATIVES = {
    "distribution": "uniform",
    "sample_num": 1,
    "alpha": 1.0,
    "dynamic": False,
    "candidate_num": 0,
}
"""RecBole's ``train_neg_sample_args``, for the models that learn from negatives."""


def check_recbole_values(values: dict) -> None:
    """Check values that RecBole would leave out with a warning, or stumble over after an epoch.

    Args:
        values: all values of a run.

    Raises:
        ConfigError: one of them cannot be used.
    """
    ranking = values["eval_type"].name == "RANKING"
    check_eval_args(values["eval_args"], ranking)
    if ranking:
        _check_samples(values["eval_args"], values["topk"])
    _check_valid_metric(values)
    _check_pickles(values)
    _check_clipping(values.get("clip_grad_norm"))
    _check_transform(values)
    _check_worker(values)
    _check_trackers(values)
    _check_exclude_history(values)
    check_filters(values)


def check_eval_args(eval_args: object, ranking: bool = False) -> None:
    """Check that RecBole understands all of ``eval_args``: it takes its own defaults for the rest.

    Args:
        eval_args: value of the key.
        ranking: whether the metrics judge ranked lists.

    Raises:
        ConfigError: an unknown part, or a mode that cannot be used.
    """
    if not isinstance(eval_args, dict):
        known = ", ".join(EVAL_ARGS)
        raise ConfigError(
            f"eval_args is {eval_args!r}; it must be a dictionary of {known}. To train on every "
            "interaction and test nothing: --hold_out=False."
        )
    _check_keys("eval_args", eval_args, EVAL_ARGS)
    _check_split(eval_args.get("split"))
    if isinstance(eval_args.get("mode"), dict):
        _check_keys("eval_args: mode", eval_args["mode"], PARTS)
    for mode in evaluation_modes(eval_args).values():
        if not re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", str(mode)):
            raise ConfigError(
                f"eval_args: mode is {mode!r}; use full, uniN or popN "
                "(N sampled negatives, for example uni100)."
            )
        if mode == "labeled" and ranking:
            raise ConfigError(
                "eval_args: mode labeled needs labels and metrics of values (AUC, LogLoss); "
                "use full, uniN or popN."
            )


def _check_keys(name: str, values: dict, known: Sequence[str]) -> None:
    """Refuse a dictionary, called ``name`` in the message, with other keys than the known ones."""
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{name} has no {key!r}; its keys are {', '.join(known)}.{hint}")


def _check_split(split: object) -> None:
    """Check the form of a split; RecBole takes a wrong one apart and fails."""
    if split is None:
        return
    form = "{LS: valid_and_test}, {RS: [0.8, 0.1, 0.1]} or {TS: [0.8, 0.1, 0.1]}"
    if not isinstance(split, dict) or len(split) != 1:
        raise ConfigError(f"eval_args: split is {split!r}; write one of {form}.")
    kind, value = next(iter(split.items()))
    ratios = isinstance(value, (list, tuple)) and len(value) == 3
    numbers = ratios and all(isinstance(part, (int, float)) for part in value)
    if kind == "LS" and value in ("valid_and_test", "valid_only", "test_only"):
        return
    if kind in ("RS", "TS") and numbers:
        return
    raise ConfigError(
        f"eval_args: split is {split!r}; write one of {form}: shares of training, validation, test."
    )


def _check_samples(eval_args: dict, topk: list[int]) -> None:
    """Refuse lists that hold all sampled candidates, whose figures are perfect."""
    for mode in evaluation_modes(eval_args).values():
        sampled = re.fullmatch(r"(?:uni|pop)(\d+)", str(mode))
        if sampled and max(topk) > int(sampled[1]):
            raise ConfigError(
                f"eval_args: mode {mode} ranks a target among {sampled[1]} sampled items, and topk "
                f"{topk} asks for lists of {max(topk)}, which hold all of them. Sample more items, "
                "or ask for shorter lists."
            )


def check_metrics(values: Mapping[str, Any]) -> None:
    """Check ``metrics`` against those of RecBole, and against the way of the evaluation.

    Args:
        values: settings, before RecBole has looked at them.

    Raises:
        ConfigError: there is no such metric, or it does not judge a full ranking.
    """
    from recbole.evaluator.register import metric_types, metrics_dict
    from recbole.utils import EvaluatorType

    metrics = values["metrics"]
    known = {name: metric.__name__ for name, metric in metrics_dict.items()}
    if not isinstance(metrics, str | list | tuple):
        raise ConfigError(
            f"metrics is {metrics!r}; it must be a list of {', '.join(known.values())}."
        )
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    of_rankings = [known[name] for name in known if metric_types[name] == EvaluatorType.RANKING]
    ranks_all = "full" in evaluation_modes(values["eval_args"]).values()
    for name in names:
        if str(name).lower() not in known:
            hint = did_you_mean(str(name), known.values())
            raise ConfigError(
                f"There is no metric {name!r}.{hint} RecBole's: {', '.join(known.values())}."
            )
        judges_values = metric_types[name.lower()] == EvaluatorType.VALUE
        if judges_values and ranks_all:
            raise ConfigError(
                f"metrics: {name} judges predicted values, and eval_args has mode: full, which "
                f"ranks all items. Use {', '.join(of_rankings)}."
            )


def _check_valid_metric(values: dict) -> None:
    """Refuse a ``valid_metric`` that the evaluation does not give."""
    names = [VALIDATION_LOSS, *metric_names(values["metrics"], values["topk"])]
    if str(values["valid_metric"]).lower() not in names:
        raise ConfigError(
            f"valid_metric {values['valid_metric']} must be one of metrics {values['metrics']} "
            f"at one of topk {values['topk']}, or {VALIDATION_LOSS}."
        )


def _check_pickles(values: dict) -> None:
    """Refuse what makes RecBole write or read pickles."""
    for name in PICKLES:
        if values.get(name):
            raise ConfigError(
                f"{name} makes RecBole write and read pickles, which this package never loads. "
                "Leave it out."
            )


def _check_clipping(clip: object) -> None:
    """Refuse a value of ``clip_grad_norm`` that torch would misread."""
    if clip is None or clip == {}:
        return
    form = "write --clip_grad_norm=\"{'max_norm': 1.0}\""
    if not isinstance(clip, dict):
        raise ConfigError(f"clip_grad_norm is {clip}; {form}.")
    unknown = [name for name in clip if name not in ("max_norm", "norm_type")]
    norm = clip.get("max_norm")
    is_number = isinstance(norm, (int, float)) and not isinstance(norm, bool)
    if unknown or not is_number or not float(norm or 0) > 0:
        raise ConfigError(
            f"clip_grad_norm is {clip}; max_norm must be a number above 0, and only norm_type may "
            f"stand beside it: {form}."
        )


def _check_transform(values: dict) -> None:
    """Refuse a change of histories that RecBole does not know, or whose key is missing."""
    name = values.get("transform")
    if name is None:
        return
    if name not in TRANSFORM_KEYS:
        hint = did_you_mean(str(name), TRANSFORM_KEYS)
        known = ", ".join(TRANSFORM_KEYS)
        raise ConfigError(f"transform is {name!r}; it must be one of {known}.{hint}")
    for key in TRANSFORM_KEYS[name]:
        if values.get(key) is None:
            raise ConfigError(
                f"transform: {name} reads the key {key}, which {values['model']} does not have. "
                "Leave transform out."
            )


def _check_worker(values: dict) -> None:
    """Refuse a negative number of processes that make batches."""
    if int(values.get("worker") or 0) < 0:
        raise ConfigError(f"worker is {values['worker']}; it must be 0 or a number of processes.")


def _check_trackers(values: dict) -> None:
    """Refuse a tracker whose package is not installed, before anything is trained."""
    for package in ("wandb", "mlflow"):
        if values.get(f"log_{package}") and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"log_{package}: the package {package} is not installed. "
                f"Run `pip install {package}`, or leave it out."
            )


def _check_exclude_history(values: dict) -> None:
    """Refuse ``exclude_history`` where lists are drawn from samples."""
    if not values["exclude_history"]:
        return
    for mode in evaluation_modes(values["eval_args"]).values():
        if mode != "full":
            raise ConfigError(
                f"exclude_history: True needs eval_args with mode: full; with mode {mode} lists "
                "hold sampled items, and whose history they are is not looked at."
            )
