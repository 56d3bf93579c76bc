"""Lists of a model that scores all items at once: nothing is pruned, so every list is exact."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.protocol import SearchResult
from recbole_genrec.decoding.scores import top

OUTSIDE = -1e7
"""Finite score of the padding item and of items that may not be returned."""


def catalogue_search(
    scores: Tensor,
    members: Tensor,
    k: int,
    *,
    fill: bool = False,
    excluded: Tensor | None = None,
) -> SearchResult:
    """The ``k`` best items of each user.

    Args:
        scores: float32 ``[B, n_items]``, log-probabilities of the items.
        members: bool ``[n_items]``, the items that may be returned.
        k: number of items returned.
        fill: also return the scores of all items.
        excluded: int64 ``[B, H]``, items that each user must not get, 0 = none. The scores of the
            others do not change.

    Returns:
        The items and their scores; ``bound`` is -inf.
    """
    values = torch.where(members, scores.clamp(OUTSIDE / 2, 0), OUTSIDE)
    values[:, 0] = OUTSIDE
    if excluded is not None:
        values = values.scatter(1, excluded, 2 * OUTSIDE)
    items, _ = top(values, k)
    best = values.gather(1, items)
    is_missing = best <= OUTSIDE
    padding = (0, k - items.shape[1])
    items = pad(items.masked_fill(is_missing, 0), padding)
    best = pad(best.masked_fill(is_missing, -torch.inf), padding, value=-torch.inf)
    bound = best.new_full((len(best),), -torch.inf)
    every_score: Tensor | None = None
    if fill:
        every_score = values
    return SearchResult(items, best, bound, every_score)
