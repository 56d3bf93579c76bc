"""Names of metrics in results: ``ndcg@10`` is NDCG at place 10."""

from __future__ import annotations


def kind(metric: str) -> str:
    """The metric without its place: ``ndcg`` of ``ndcg@10``."""
    return metric.partition("@")[0]


def place(metric: str) -> int:
    """The k of ``ndcg@k``; 10 of a metric without one."""
    return int(metric.partition("@")[2] or 10)


def is_of_rank(metric: str) -> bool:
    """Whether a metric follows from the rank of one target a user."""
    return kind(metric) in ("ndcg", "recall")
