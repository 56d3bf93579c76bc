"""Which results may stand in one table."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from recbole_genrec.data.rows.evaluation_rows import holds_out_several
from recbole_genrec.errors import ConfigError
from recbole_genrec.report.evaluated_data import different_data, evaluated_data
from recbole_genrec.settings.classification import display_keys
from recbole_genrec.settings.protocol_values import evaluation_modes, history_masked
from recbole_genrec.storage.digests import digest

PROTOCOL_KEYS = ("eval_args", "repeatable", "candidate_file")  # which items are ranked for whom
TAIL_RATIO = 0.1
"""The share that RecBole takes where ``tail_ratio`` is none."""


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
    test and its users and items. Results of earlier versions do not say which pairs of a user and
    an item were tested; their settings are compared alone.

    Raises:
        ConfigError: two results differ in these.
    """
    finished = [run for run in runs if run.result is not None]
    _check_groups(finished, attrgetter("name", "dataset"), different_settings, "seeds of one run")
    _check_groups(finished, attrgetter("dataset"), different_tests, "rows of one table")
    _check_tested_pairs(finished)
    for dataset in {run.dataset for run in finished}:
        results = [(run.name, _result(run)) for run in finished if run.dataset == dataset]
        settings = {name: _settings_of_test(result) for name, result in results}
        several = {name for name, result in results if _may_join_rows(result)}
        check_one_table(settings, one_row_a_user=settings.keys() - several)


def _result(run: ComparedRun) -> dict[str, Any]:
    """The result of a finished run."""
    assert run.result is not None
    return run.result


def _settings_of_test(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a result; of ``candidate_file`` what it held, where the result says so."""
    settings = dict(result["config"])
    if result.get("candidates") is not None:
        settings["candidate_file"] = result["candidates"]
    return settings


def _may_join_rows(result: Mapping[str, Any]) -> bool:
    """Whether a list of a test may have been judged by several held-out items of its user."""
    pairs = result.get("tested_pairs")
    return pairs is None or pairs["lists"] != pairs["pairs"]


def _tested_rows(run: ComparedRun) -> Hashable:
    """The dataset; under a random order also the seed, from which the tested rows follow."""
    order = (_result(run)["config"].get("eval_args") or {}).get("order")
    return run.dataset, _result(run)["seed"] if order == "RO" else None


def _with_firsts(
    runs: Iterable[ComparedRun], group_of: Callable[[ComparedRun], Hashable]
) -> Iterator[tuple[ComparedRun, ComparedRun]]:
    """Every run behind the first of its group."""
    firsts: dict[Hashable, ComparedRun] = {}
    for run in runs:
        yield firsts.setdefault(group_of(run), run), run


def _check_groups(
    runs: Sequence[ComparedRun],
    group_of: Callable[[ComparedRun], Hashable],
    different_keys: Callable[[dict[str, Any], dict[str, Any]], list[str]],
    group: str,
) -> None:
    """Compare every finished run with the first of its group."""
    for first, run in _with_firsts(runs, group_of):
        one = _settings_of_test(_result(first))
        other = _settings_of_test(_result(run))
        keys = different_keys(one, other)
        if keys:
            raise ConfigError(
                f"{first.file} and {run.file} cannot be {group}: they differ in "
                f"{_differences(keys, one, other)}. Make a leaderboard of each."
            )


def _check_tested_pairs(runs: Sequence[ComparedRun]) -> None:
    """Check that all results of a dataset whose pairs are known were tested on the same ones.

    Raises:
        ConfigError: two were not.
    """
    known = [run for run in runs if _result(run).get("tested_pairs") is not None]
    for first, run in _with_firsts(known, _tested_rows):
        one = _result(first)["tested_pairs"]
        other = _result(run)["tested_pairs"]
        refusal = f"{first.file} and {run.file} cannot be rows of one table"
        if one["digest"] != other["digest"]:
            raise ConfigError(
                f"{refusal}: the users and items of their tests are others ({one['pairs']:,} and "
                f"{other['pairs']:,} pairs). The data of {run.dataset} changed between the two, "
                "or the models are tested on other rows. Run the older one again, or make a "
                "leaderboard of each."
            )
        if one["lists"] != other["lists"]:
            raise ConfigError(
                f"{refusal}: {one['lists']:,} and {other['lists']:,} lists are judged by "
                f"{other['pairs']:,} pairs, once by all held-out items of a user together. Use "
                "--ratio_rows=interactions."
            )


def _differences(keys: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Names of keys, with both values of the first."""
    values = f"{_shown(keys[0], one)} and {_shown(keys[0], other)}"
    return f"{', '.join(keys)} ({values})"


def _shown(key: str, config: Mapping[str, Any]) -> object:
    """The value of a key as far as it says how the run was tested."""
    if key == "exclude_history":
        return history_masked(config)
    return {**config, **evaluated_data(config)}.get(key)


def different_settings(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys that both configurations have, with other values."""
    keys = [key for key in one if key in other and key not in free_keys()]
    return [key for key in keys if digest(one[key]) != digest(other[key])]


def different_tests(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys by which two runs were tested in another way, or on other users or items."""
    return [*different_protocols(one, other), *different_data(one, other)]


def different_protocols(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys of the protocol of the test with other values.

    How validation was done may differ from run to run.
    """
    different = []
    for key in PROTOCOL_KEYS:
        if digest(_of_test(one.get(key))) != digest(_of_test(other.get(key))):
            different.append(key)
    if history_masked(one) != history_masked(other):
        different.append("exclude_history")
    return different


def check_one_table(
    settings: Mapping[str, Mapping[str, Any]], one_row_a_user: Container[str] = ()
) -> None:
    """Check before the training that the results of several models may stand in one table.

    Args:
        settings: by name of the model.
        one_row_a_user: names of models whose results show that no user had several test rows.

    Raises:
        ConfigError: the lists of some hold items of the history and those of others do not, the
            models are tested in different ways, on different rows or on different data, their
            tails are others, or one is not tested.
    """
    untested = [name for name, values in settings.items() if values.get("hold_out") is False]
    if untested:
        raise ConfigError(
            f"hold_out: False trains {', '.join(untested)} on every interaction, so there are no "
            "test figures for a table. Leave the key out, or run such models one at a time."
        )
    masked = {name: history_masked(values) for name, values in settings.items()}
    if len(set(masked.values())) > 1:
        names = ", ".join(name for name, value in masked.items() if value)
        raise ConfigError(
            f"The history is masked for {names} alone, and such results cannot stand in one table "
            "with the others. Set exclude_history for all models, or run them apart."
        )
    _check_tails(settings)
    examples = {}
    for name, values in settings.items():
        kind = kind_of_rows(values)
        if kind != "user" or name not in one_row_a_user:
            examples[kind] = name
    if "interaction" in examples and "user" in examples:
        raise ConfigError(_different_rows(examples["interaction"], examples["user"]))
    first_name, first = next(iter(settings.items()), ("", {}))
    for name, values in settings.items():
        keys = different_tests(first, values)
        if keys:
            raise ConfigError(
                f"{first_name} and {name} cannot stand in one table: they differ in "
                f"{_differences(keys, first, values)}. Set {keys[0]} for all models, or run them "
                "apart."
            )


def tail_ratio(values: Mapping[str, Any]) -> float | None:
    """The share of the items that TailPercentage takes for the tail; ``None`` without the metric.

    Args:
        values: settings of a run.
    """
    metrics = values.get("metrics") or []
    names = [metrics] if isinstance(metrics, str) else metrics
    if "tailpercentage" not in [name.lower() for name in names]:
        return None
    return values.get("tail_ratio") or TAIL_RATIO


def _check_tails(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that TailPercentage counts the same items in all models that have it.

    Raises:
        ConfigError: two have another ``tail_ratio``.
    """
    names: dict[float, str] = {}
    for name, values in settings.items():
        ratio = tail_ratio(values)
        if ratio is not None:
            names.setdefault(ratio, name)
    if len(names) > 1:
        examples = " and ".join(f"{ratio} of {name}" for ratio, name in names.items())
        raise ConfigError(
            f"TailPercentage takes other items for the tail under tail_ratio {examples}, so the "
            "values cannot stand in one table. Set tail_ratio for all models, or run them apart."
        )


def kind_of_rows(values: Mapping[str, Any]) -> str:
    """What a test row is, under the split of a run.

    Under leave-one-out a row is a user and its last item, for every model. Files that are split may
    hold several rows of a user.
    """
    if not holds_out_several(values):
        return "last item"
    kind = values.get("MODEL_TYPE")
    by_interaction = values.get("ratio_rows") == "interactions"
    if by_interaction or getattr(kind, "name", kind) == "SEQUENTIAL":
        return "interaction"
    return "user"


def _different_rows(by_interaction: str, by_user: str) -> str:
    return (
        "Under a split by ratio, and in the files of benchmark_filename, a user may have several "
        f"held-out interactions: {by_interaction} is tested on each of them, {by_user} once on all "
        "of them together, so the same list gives other figures. Use --ratio_rows=interactions, "
        "which tests all models on each held-out interaction."
    )


def _of_test(value: object) -> object:
    """``eval_args`` with the mode of the test alone; other values as they are."""
    if not isinstance(value, dict):
        return value
    return {**value, "mode": evaluation_modes(value)["test"]}
