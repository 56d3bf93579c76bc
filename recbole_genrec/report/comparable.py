"""Which results may stand in one table, and what their settings call them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.classification import display_keys
from recbole_genrec.storage.digests import digest

PROTOCOL_KEYS = ("eval_args", "repeatable", "candidate_file")  # which items are ranked for whom


class ComparedRun(Protocol):
    """What a comparison reads of a run."""

    @property
    def name(self) -> str:
        """Name of the row in the leaderboard."""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""

    @property
    def file(self) -> Path | None:
        """The result file."""

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of the result file."""


def free_keys() -> frozenset[str]:
    """Settings in which the seeds of one run may differ."""
    return display_keys() | {"seed"}


def check_comparable(runs: Sequence[ComparedRun]) -> None:
    """Check that the runs may stand in one table.

    The seeds of a run must share its settings, and all results of a dataset the protocol of the
    test.

    Raises:
        ConfigError: two results differ in these.
    """
    _check_groups(runs, _run_of_seeds, different_settings, "seeds of one run")
    _check_groups(runs, _dataset, different_protocols, "rows of one table")


def _run_of_seeds(run: ComparedRun) -> Hashable:
    return run.name, run.dataset


def _dataset(run: ComparedRun) -> Hashable:
    return run.dataset


def _check_groups(
    runs: Sequence[ComparedRun],
    group_of: Callable[[ComparedRun], Hashable],
    different_keys: Callable[[dict[str, Any], dict[str, Any]], list[str]],
    group: str,
) -> None:
    """Compare every finished run with the first of its group."""
    firsts: dict[Hashable, tuple[Path | None, dict[str, Any]]] = {}
    for run in runs:
        if run.result is None:
            continue
        config = run.result["config"]
        first_file, first = firsts.setdefault(group_of(run), (run.file, config))
        keys = different_keys(first, config)
        if keys:
            raise ConfigError(
                f"{first_file} and {run.file} cannot be {group}: they differ in "
                f"{', '.join(keys)} ({first.get(keys[0])} and {config.get(keys[0])}). "
                f"Make a leaderboard of each."
            )


def different_settings(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys that both configurations have, with other values."""
    keys = [key for key in one if key in other and key not in free_keys()]
    return [key for key in keys if digest(one[key]) != digest(other[key])]


def different_protocols(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys of the protocol of the test with other values.

    How validation was done may differ from run to run.
    """
    different = []
    for key in PROTOCOL_KEYS:
        if digest(_of_test(one.get(key))) != digest(_of_test(other.get(key))):
            different.append(key)
    return different


def _of_test(value: object) -> object:
    """``eval_args`` with the mode of the test alone; other values as they are."""
    if not isinstance(value, dict):
        return value
    mode = value.get("mode")
    if isinstance(mode, dict) and "test" in mode:
        return {**value, "mode": mode["test"]}
    return value


def distinct_names(results: Sequence[dict[str, Any]]) -> list[str]:
    """Names for results: model and tokenizer, and settings where these are not enough.

    Args:
        results: contents of result files.

    Returns:
        A name for each. Runs of one model and tokenizer on one dataset are told apart by the
        settings in which they differ.
    """
    groups = [(result["dataset"], _model_and_tokenizer(result)) for result in results]
    settings = [_named_settings(result) for result in results]
    names = []
    for group, own_settings in zip(groups, settings, strict=True):
        same_group = [
            others for other, others in zip(groups, settings, strict=True) if other == group
        ]
        words = [group[1]]
        for key, value in own_settings.items():
            if any(digest(others.get(key)) != digest(value) for others in same_group):
                words.append(f"{key}={value}")
        names.append(" ".join(words))
    return names


def _model_and_tokenizer(result: dict[str, Any]) -> str:
    name = result["model"]
    if result["report"] and result["config"]["tokenizer"]:
        name += f"-{result['config']['tokenizer']}"
    return name


def _named_settings(result: dict[str, Any]) -> dict[str, Any]:
    """Settings that may name a result."""
    free = free_keys()
    return {key: value for key, value in result["config"].items() if key not in free}
