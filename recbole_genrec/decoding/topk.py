"""The best columns of score rows, with ties decided the same way in every batch."""

from __future__ import annotations

from torch import Tensor


def ordered_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` highest scores of each row, best first; equal ones by ascending column.

    ``torch.topk`` leaves the order of equal scores open.

    Args:
        scores: float ``[B, C]``, without NaN.
        k: how many, at most C.

    Returns:
        Values ``[B, k]`` and columns int64 ``[B, k]``.
    """
    values, columns = scores.topk(k)
    columns, order = columns.sort(1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)

    # Where more than k columns reach the last value, topk may have taken any of them.
    crowded = ((scores >= values[:, -1:]).sum(1) > k).nonzero().squeeze(1)  # [R]
    if len(crowded):
        sorted_scores = scores[crowded].sort(dim=1, descending=True, stable=True)
        values[crowded] = sorted_scores.values[:, :k]
        columns[crowded] = sorted_scores.indices[:, :k]
    return values, columns
