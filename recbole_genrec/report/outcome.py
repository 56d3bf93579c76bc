"""The tables at the end of a run: metrics, costs, the distance from a baseline; kinds of users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.report.best import best_epoch, best_value, valid_metric
from recbole_genrec.report.metric_names import is_of_rank
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.report.result_files import ranks_of, result_file
from recbole_genrec.report.rows import common_metrics
from recbole_genrec.report.significance import Comparison, compare

NOT_STAGES = ("train", "valid", "cpu")
"""Entries of ``seconds`` that are parts of the stage ``fit``, or CPU time."""
SMALLEST_P = 0.001

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Results of runs on the same split as the cells of a table.

    Attributes:
        columns: the headings.
        rows: the cells of each run.
        best: row and column of the best value of each metric, where there are several runs.
        note: how the distance from the baseline was measured, and what was left out.
    """

    columns: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]
    note: str = ""

    def markdown(self) -> str:
        """An aligned Markdown table; the best values stand between asterisks."""
        rows = [list(row) for row in self.rows]
        for row, column in self.best:
            rows[row][column] = f"**{rows[row][column]}**"
        widths = [max(map(len, cells)) for cells in zip(self.columns, *rows, strict=True)]
        lines = [_line(self.columns, widths)]
        lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        lines += [_line(row, widths) for row in rows]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)


def outcome(results: Mapping[str, Result]) -> Outcome:
    """The table of some results.

    Args:
        results: name -> result of the run.

    Returns:
        One row a run, with the metrics that all runs have, in the order of the first.
    """
    metrics = common_metrics(list(results.values()))
    metric = _main_metric(results, metrics)
    baseline = _baseline(results, metric)
    columns = ["model", *metrics]
    if baseline is not None:
        columns += [f"{metric} - {baseline}", "p"]
    columns += ["best epoch", "CPU min", "minutes"]

    rows = []
    for name, result in results.items():
        cells = [name, *(f"{result['test_result'][entry]:.4f}" for entry in metrics)]
        if baseline is not None:
            cells += _distance(result, results[baseline], str(metric))
        cpu = result["seconds"].get("cpu")
        minutes = minutes_of(result["seconds"])
        cells += [shown_epoch(result), "" if cpu is None else f"{cpu / 60:.1f}", f"{minutes:.1f}"]
        rows.append(cells)
    notes = []
    if baseline is not None:
        notes.append(
            f"Distance from {baseline}: mean over the users who have the same test item in both; "
            "p of a paired sign-flip test, not corrected for the number of runs."
        )
    every = {entry: None for result in results.values() for entry in result["test_result"]}
    left_out = [entry for entry in every if entry not in metrics]
    if left_out:
        notes.append(f"Left out, because not every run has it: {', '.join(left_out)}.")
    return Outcome(columns, rows, _best(results, metrics), "\n".join(notes))


def side_by_side(columns: dict[str, dict[str, float]]) -> str:
    """The same figures of several groups, one a line.

    Args:
        columns: group -> figure -> value.
    """
    first = next(iter(columns.values()))
    header = "".join(f"{name:>10}" for name in columns)
    lines = [f"{'':<12}{header}"]
    for figure in first:
        values = "".join(f"{group[figure]:>10.6g}" for group in columns.values())
        lines.append(f"{figure:<12}{values}")
    return "\n".join(lines)


def minutes_of(seconds: Mapping[str, float]) -> float:
    """Wall time of all stages of a run, in minutes.

    Args:
        seconds: the entry of its result.
    """
    return sum(value for name, value in seconds.items() if name not in NOT_STAGES) / 60


def shown_epoch(result: Result) -> str:
    """``"3 of 8"``: which epoch of the training was tested; empty without validation."""
    number = best_epoch(result)
    if number is None:
        return ""
    return f"{number} of {len(result['epochs'])}"


def _main_metric(results: Mapping[str, Result], metrics: list[str]) -> str | None:
    """The validated metric where it is one of a user's rank, else the first such."""
    first = next(iter(results.values()))
    validated = valid_metric(first)
    ranked = [name for name in metrics if is_of_rank(name)]
    if validated in ranked:
        return validated
    return ranked[0] if ranked else None


def _baseline(results: Mapping[str, Result], metric: str | None) -> str | None:
    """The best of RecBole's own models, where ours stand beside them."""
    baselines = [name for name, result in results.items() if not result.get("report")]
    if metric is None or not baselines or len(results) == 1:
        return None
    return max(baselines, key=lambda name: results[name]["test_result"][metric])


def _distance(result: Result, baseline: Result, metric: str) -> list[str]:
    """The cells with the distance from the baseline, and with p."""
    if result is baseline:
        return ["", ""]
    difference = result["test_result"][metric] - baseline["test_result"][metric]
    comparison = _compared(result, baseline, metric)
    if comparison is None:
        return [f"{difference:+.4f}", "?"]
    p = f"{comparison.p:.3f}"
    if comparison.p < SMALLEST_P:
        p = f"< {SMALLEST_P}"
    return [f"{comparison.difference:+.4f}", p]


def _compared(result: Result, baseline: Result, metric: str) -> Comparison | None:
    """The paired test over users, where both runs kept their ranks."""
    one = _ranks(result)
    other = _ranks(baseline)
    if one is None or other is None:
        return None
    return compare({0: one.by_case(metric)}, {0: other.by_case(metric)})


def _ranks(result: Result) -> UserRanks | None:
    """The stored ranks of a run that has just ended, in its own working folder."""
    try:
        return ranks_of(result, result_file(result))
    except (ArtefactError, ConfigError):
        return None


def _best(results: Mapping[str, Result], metrics: list[str]) -> set[tuple[int, int]]:
    """Row and column of the best value of each metric."""
    if len(results) == 1:
        return set()
    best = set()
    for column, metric in enumerate(metrics, start=1):
        values = [result["test_result"][metric] for result in results.values()]
        best.add((values.index(best_value(metric, values)), column))
    return best


def _line(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join(padded) + " |"
