"""RecBole's metrics of the catalogue on lists that too few items are left for.

Such lists hold item 0 in the places that no item takes, which RecBole's metrics count as an item.
Where all places are filled, the figures are RecBole's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator import Evaluator
from recbole.evaluator.metrics import (
    AveragePopularity,
    GiniIndex,
    ItemCoverage,
    ShannonEntropy,
    TailPercentage,
)


def filled(lists: np.ndarray) -> np.ndarray:
    """The items of lists ``[users, k]``, in the form of lists of one item ``[places, 1]``."""
    return lists[lists > 0].reshape(-1, 1)


def means_of_filled(values: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Mean over users of the mean over the filled places of their lists, for each length.

    Args:
        values: of the places ``[users, k]``.
        lists: item ids ``[users, k]``.

    Returns:
        ``[1, k]``; users without an item up to a place do not count there.
    """
    is_filled = lists > 0
    places = is_filled.cumsum(axis=1)  # [users, k]
    means = (values * is_filled).cumsum(axis=1) / np.maximum(places, 1)
    users = (places > 0).sum(axis=0, keepdims=True)  # [1, k]
    return means.sum(axis=0, keepdims=True) / np.maximum(users, 1)


class FilledCoverage(ItemCoverage):
    """Share of the items that are in a list."""

    def get_coverage(self, item_matrix: np.ndarray, num_items: int) -> float:
        """As RecBole's."""
        return super().get_coverage(filled(item_matrix), num_items)


class FilledEntropy(ShannonEntropy):
    """Entropy of the items of all lists; 0 where no list has an item."""

    def get_entropy(self, item_matrix: np.ndarray) -> float:
        """As RecBole's."""
        items = filled(item_matrix)
        return super().get_entropy(items) if len(items) else 0.0


class FilledGini(GiniIndex):
    """Inequality of the items of all lists; 0 where no list has an item."""

    def get_gini(self, item_matrix: np.ndarray, num_items: int) -> float:
        """As RecBole's."""
        items = filled(item_matrix)
        return super().get_gini(items, num_items) if len(items) else 0.0


class FilledPopularity(AveragePopularity):
    """Training interactions of the items of a list."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """As RecBole's."""
        lists, counts = self.used_info(dataobject)
        means = means_of_filled(self.get_pop(lists, counts), lists)
        return self.topk_result("averagepopularity", means)


class FilledTail(TailPercentage):
    """Share of rare items among those of a list."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """As RecBole's."""
        lists, counts = self.used_info(dataobject)
        means = means_of_filled(self.get_tail(lists, counts), lists)
        return self.topk_result("tailpercentage", means)


OF_FILLED = {
    "itemcoverage": FilledCoverage,
    "shannonentropy": FilledEntropy,
    "giniindex": FilledGini,
    "averagepopularity": FilledPopularity,
    "tailpercentage": FilledTail,
}
"""By RecBole's names in lower case."""


class FilledEvaluator(Evaluator):
    """RecBole's ``Evaluator``, for whose metrics of the catalogue an empty place is no item."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name, metric in OF_FILLED.items():
            if name in self.metric_class:
                self.metric_class[name] = metric(config)
