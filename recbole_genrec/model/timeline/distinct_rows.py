"""Rows of a table whose gradient holds these rows alone, each once.

torch's ``embedding(sparse=True)`` names a row as often as it is read, so that its gradient must be
sorted and added up before an optimiser can use it. Here that work is done by whoever computes with
the rows, in the small table of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def distinct_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Some rows of a table; the gradient of the table is sparse and coalesced.

    Args:
        table: ``[n, ...]``.
        rows: their numbers, rising and each once, int64 ``[R]``.

    Returns:
        ``[R, ...]``.
    """
    chosen: Tensor = _DistinctRows.apply(table, rows)
    return chosen


def rows_of_items(table: Tensor, items: Tensor) -> Tensor:
    """The rows of some items, which may be named several times, by :func:`distinct_rows`.

    Args:
        table: ``[n, d]``.
        items: int64 ``[...]``.

    Returns:
        ``[..., d]``.
    """
    rows, place = items.unique(return_inverse=True)
    return torch.nn.functional.embedding(place, distinct_rows(table, rows))


class _DistinctRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        """The rows."""
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Their gradient as a sparse one of the table."""
        (rows,) = ctx.saved_tensors
        of_table = torch.sparse_coo_tensor(
            rows.unsqueeze(0), gradient, ctx.shape, check_invariants=False, is_coalesced=True
        )
        return of_table, None
