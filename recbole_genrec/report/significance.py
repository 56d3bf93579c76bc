"""Is the difference between two models more than luck of the users? Paired tests over users.

Both treat the trained models as given and the users as the sample; how much a model changes with
its seed is shown by the standard deviation over seeds. The unit is a user's difference of the
metric, averaged over the seeds that both models ran (our choice, unpublished). The tests are those
of Efron & Tibshirani, "An Introduction to the Bootstrap", 1993: sections 15.2 (permutation, here
with the signs of the pairs as the group) and 13.3 (percentile interval).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

SEED = 2020
REPEATS = 10_000
LEVEL = 0.95  # probability of the interval
CHUNK = 2**22  # random numbers held at once

Case = TypeVar("Case", str, tuple[str, str])  # a user, or a user and the test item


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline.

    Attributes:
        difference: mean difference of the metric over the users.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        p: two-sided p-value of "the mean difference is 0".
        users: number of users.
        seeds: the seeds that it is averaged over.
    """

    difference: float
    low: float
    high: float
    p: float
    users: int
    seeds: tuple[int, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {**asdict(self), "seeds": list(self.seeds)}


def sign_flip_p(differences: np.ndarray, repeats: int = REPEATS) -> float:
    """Two-sided p-value of "the mean difference is 0".

    It is the share of random sign assignments with a mean at least as far from 0.

    Args:
        differences: float ``[n]``, one a user.
        repeats: number of sign assignments.

    Returns:
        (1 + hits) / (1 + repeats), which is never 0 (Phipson & Smyth, "Permutation p-values should
        never be zero", 2010).
    """
    moving = differences[differences != 0]  # the sign of a 0 changes nothing
    if not len(moving):
        return 1.0
    draw = np.random.default_rng(SEED)
    # Sums that differ only by the order of addition count as equal.
    observed = abs(moving.sum()) - 1e-9 * np.abs(moving).sum()
    hits = 0
    for rows in _chunks(repeats, len(moving)):
        signs = draw.integers(0, 2, (rows, len(moving)), dtype=np.int8)
        sums = 2 * (signs @ moving) - moving.sum()  # signs of 0 and 1 stand for -1 and 1
        hits += int((np.abs(sums) >= observed).sum())
    return (1 + hits) / (1 + repeats)


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean difference.

    n users are drawn with replacement each time. How often each distinct value is drawn is
    multinomial, which is the same draw as one user after another and far fewer numbers.

    Args:
        differences: float ``[n]``, one a user.

    Returns:
        Lower and upper end.
    """
    values, counts = np.unique(differences, return_counts=True)
    draw = np.random.default_rng(SEED)
    n = len(differences)
    means = []
    for rows in _chunks(REPEATS, len(values)):
        drawn = draw.multinomial(n, counts / n, size=rows)
        means.append(drawn @ values / n)
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(
    runs: dict[int, dict[Case, float]], baseline: dict[int, dict[Case, float]]
) -> Comparison | None:
    """Compare two models by a metric per seed and user.

    Args:
        runs: seed -> raw user id, or (user, test item) -> metric.
        baseline: the same of the baseline.

    Returns:
        The comparison over the users that both have, in all common seeds; ``None`` without a
        common seed or user.
    """
    seeds = sorted(runs.keys() & baseline.keys())
    if not seeds:
        return None
    common = set(runs[seeds[0]])
    for seed in seeds:
        common &= runs[seed].keys() & baseline[seed].keys()
    users = sorted(common)
    if not users:
        return None
    pairs = []
    for seed in seeds:
        pairs.append([runs[seed][user] - baseline[seed][user] for user in users])
    differences = np.array(pairs).mean(0)  # [users]
    low, high = bootstrap_interval(differences)
    return Comparison(
        float(differences.mean()), low, high, sign_flip_p(differences), len(users), tuple(seeds)
    )


def _chunks(repeats: int, width: int) -> list[int]:
    """``repeats`` in parts of at most ``CHUNK`` numbers, ``width`` a repeat."""
    step = max(1, CHUNK // width)
    return [min(step, repeats - start) for start in range(0, repeats, step)]
