"""Intervals of metrics, and paired tests of several runs with a correction for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import false_discovery_control

from recbole_genrec.report.contents import ReportEntry
from recbole_genrec.report.ranks import UserRanks, comparable
from recbole_genrec.report.significance import REPEATS, bootstrap_interval, compare

CORRECTION = "Benjamini-Hochberg (false discovery rate)"
"""How p-values of several comparisons are adjusted."""
NOTE = (
    "Per-user differences over the users that both runs tested, 95 % percentile bootstrap interval "
    f"and two-sided sign-flip permutation test over users ({REPEATS:,} draws each). The adjusted p "
    f"is corrected by {CORRECTION} over all {{n}} comparisons of this table. The tests say whether "
    "other users would show the difference, not whether other seeds would."
)


@dataclass(frozen=True)
class PairedTest:
    """A run against the baseline in one metric.

    Attributes:
        run: name of the run.
        metric: ``recall@k`` or ``ndcg@k``.
        difference: mean difference over the users.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided p-value.
        p_adjusted: corrected for the number of comparisons.
        users: number of users.
    """

    run: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    users: int


def by_rank(metric: str, ranks: UserRanks) -> bool:
    """Whether a metric follows from the ranks of one target a user."""
    name, _, k = metric.partition("@")
    return name in ("recall", "ndcg") and k.isdigit() and int(k) <= ranks.depth


def metric_intervals(
    ranks: UserRanks | None, metrics: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over users of the metrics that ranks give.

    Args:
        ranks: of the test users; None = no intervals.
        metrics: names as in result files.
    """
    if ranks is None:
        return {}
    intervals = {}
    for metric in metrics:
        if by_rank(metric, ranks):
            name, _, k = metric.partition("@")
            values = ranks.recall(int(k)) if name == "recall" else ranks.ndcg(int(k))
            intervals[metric] = bootstrap_interval(values)
    return intervals


def adjusted(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order; see :data:`CORRECTION`."""
    if not p_values:
        return []
    return [float(value) for value in false_discovery_control(p_values, method="bh")]


def paired_tests(
    entries: Sequence[ReportEntry], baseline: ReportEntry, metrics: Sequence[str]
) -> list[PairedTest]:
    """Every run with ranks against the baseline, in every metric that ranks give.

    Args:
        entries: the runs.
        baseline: one of them.
        metrics: names as in result files.
    """
    if baseline.ranks is None:
        return []
    comparisons: list[tuple[str, str, Mapping[str, Any]]] = []
    for entry in entries:
        if entry is baseline or entry.ranks is None:
            continue
        if entry.run.dataset != baseline.run.dataset:
            continue
        own, others = comparable([entry.ranks, baseline.ranks])
        for metric in metrics:
            if not (by_rank(metric, own) and by_rank(metric, others)):
                continue
            comparison = compare({0: own.by_case(metric)}, {0: others.by_case(metric)})
            if comparison is not None:
                comparisons.append((entry.name, metric, comparison.plain()))
    corrected = adjusted([values["p"] for _, _, values in comparisons])
    tests = []
    for (run, metric, values), p_adjusted in zip(comparisons, corrected, strict=True):
        tests.append(
            PairedTest(
                run,
                metric,
                values["difference"],
                values["low"],
                values["high"],
                values["p"],
                p_adjusted,
                values["users"],
            )
        )
    return tests
