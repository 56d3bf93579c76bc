"""A row of a leaderboard, and the rows of one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from recbole_genrec.report.best import best_value
from recbole_genrec.report.protocol import protocol_sentences


class Spread(TypedDict):
    """A figure over the seeds of a run.

    Attributes:
        mean: over the seeds that have it; ``None`` where none has.
        std: sample standard deviation; ``None`` for a single value.
        n: number of values.
    """

    mean: float | None
    std: float | None
    n: int


class Codes(TypedDict):
    """The codes of a row: means over the seeds, of the largest group the maximum.

    Attributes:
        sizes: of the alphabet of each level.
        perplexity: of each level.
        collision_rate: share of the items that shared all codes with another, before the repair.
        largest_group: most items with the same codes, before the repair.
        unique_ids_before: different code sequences, before the repair.
        unique_ids: different code sequences, after it.
        items: number of items.
    """

    sizes: list[int]
    perplexity: list[float | None]
    collision_rate: float | None
    largest_group: int
    unique_ids_before: float | None
    unique_ids: float | None
    items: int


class Measurements(TypedDict, total=False):
    """What the runs of a row that are done measured, and what they were made with.

    Attributes:
        valid: the metric that rows are ordered by, on the validation split.
        parameters: number of weights.
        cpu_seconds: of each stage of a run.
        certified: share of users whose list is proven to be the exact best of the model.
        codes: statistics of the codes; ``None`` for models without.
        protocol: how the runs were tested, in words.
        details: the command, commits, versions and settings.
    """

    valid: dict[str, Spread]
    parameters: float | None
    cpu_seconds: dict[str, float | None]
    certified: float | None
    codes: Codes | None
    protocol: str
    details: dict[str, Any]


class Row(Measurements):
    """The runs of one name and dataset, over their seeds; plain values, as JSON holds them.

    Where no run is done, it has no :class:`Measurements`.

    Attributes:
        dataset: its name.
        run: name of the runs.
        model: name of the model.
        tokenizer: name of the item tokenizer; ``None`` for models without.
        seeds: of the runs that are done.
        failed: why a run failed, by seed.
        pending: seeds that are still to be run.
        test: metrics of the test that all runs have which are done; empty where none is.
        users: how many have a rank; ``None`` where ranks were not kept.
        is_baseline: whether the others are tested against these runs.
        against_baseline: the paired test, with ``p_adjusted``; ``None`` without one.
    """

    dataset: str
    run: str
    model: str
    tokenizer: str | None
    seeds: list[int]
    failed: dict[int, str | None]
    pending: list[int]
    test: dict[str, Spread]
    users: int | None
    is_baseline: bool
    against_baseline: dict[str, Any] | None


def mean_metrics(row: Row) -> dict[str, float | None]:
    """Mean of each test metric of a row."""
    return {name: value["mean"] for name, value in row["test"].items()}


class Board:
    """The rows of one dataset.

    Args:
        dataset: its name.
        rows: its rows, best first.

    Attributes:
        done: rows with a result.
        failed: rows with a failed run.
        coded: rows of models with codes.
        tested: rows with a test against the baseline.
        metrics: names of the metrics of the test.
    """

    def __init__(self, dataset: str, rows: Sequence[Row]) -> None:
        self.dataset = dataset
        self.rows = rows
        self.done = [row for row in rows if row["test"]]
        self.failed = [row for row in rows if row["failed"]]
        self.coded = [row for row in self.done if row["tokenizer"] and row["codes"]]
        self.tested = [row for row in self.done if row["against_baseline"]]
        self.metrics = list(dict.fromkeys(name for row in self.done for name in row["test"]))

    @property
    def protocols(self) -> list[str]:
        """How the runs were tested."""
        return protocol_sentences(self.done)

    def best(self, metric: str) -> float | None:
        """The best mean of a metric."""
        means = [row["test"][metric]["mean"] for row in self.done if metric in row["test"]]
        return best_value(metric, means)

    def means(self) -> dict[str, dict[str, float | None]]:
        """Mean of each metric of the test, by run."""
        return {row["run"]: mean_metrics(row) for row in self.done}


def boards(rows: Sequence[Row]) -> list[Board]:
    """The rows of a leaderboard by dataset, in the order of the first row of each."""
    by_dataset: dict[str, list[Row]] = {}
    for row in rows:
        by_dataset.setdefault(row["dataset"], []).append(row)
    return [Board(dataset, of_dataset) for dataset, of_dataset in by_dataset.items()]
