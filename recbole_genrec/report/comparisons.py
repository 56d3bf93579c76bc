"""Intervals of metrics, and paired tests of several runs with a correction for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import false_discovery_control

from recbole_genrec.report.contents import ReportEntry
from recbole_genrec.report.ranks import UserRanks, in_one_form
from recbole_genrec.report.significance import REPEATS, Comparison, bootstrap_interval, compare

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
        comparison: of the two over the users.
        p_adjusted: its p-value, corrected for the number of comparisons.
    """

    run: str
    metric: str
    comparison: Comparison
    p_adjusted: float


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
    return {
        metric: bootstrap_interval(ranks.values(metric)) for metric in metrics if ranks.has(metric)
    }


def adjusted(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order; see :data:`CORRECTION`."""
    if not p_values:
        return []
    return [float(value) for value in false_discovery_control(p_values, method="bh")]


def paired_tests(
    pairs: Sequence[tuple[ReportEntry, ReportEntry]], metrics: Sequence[str]
) -> list[PairedTest]:
    """Every run with ranks against the baseline, in every metric that ranks give.

    Args:
        pairs: runs, each with the run of the baseline on its dataset with its seed.
        metrics: names as in result files.
    """
    comparisons: list[tuple[str, str, Comparison]] = []
    for entry, baseline in pairs:
        if entry.ranks is None or baseline.ranks is None:
            continue
        own, others = in_one_form([entry.ranks, baseline.ranks])
        for metric in metrics:
            if not (own.has(metric) and others.has(metric)):
                continue
            comparison = compare({0: own.by_case(metric)}, {0: others.by_case(metric)})
            if comparison is not None:
                comparisons.append((entry.name, metric, comparison))
    corrected = adjusted([comparison.p for _, _, comparison in comparisons])
    return [
        PairedTest(run, metric, comparison, p_adjusted)
        for (run, metric, comparison), p_adjusted in zip(comparisons, corrected, strict=True)
    ]
