"""Rows of prefixes that hold where their histories lie, instead of the histories.

RecBole keeps the history of each row, ``[rows, MAX_ITEM_LIST_LENGTH]`` for each column, in the
whole dataset and in each part of the split: gigabytes for millions of interactions. Here the events
are kept once, and a batch gets the histories of its rows when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

PLAIN_ROWS = 2**16
"""Rows up to which histories are kept as RecBole keeps them (our choice)."""

ROWS_AT_ONCE = 2**18
"""Rows whose histories are gathered together; bounds the memory of the index."""


class HistoryColumns(dict):
    """Columns of rows by name; those of histories are made each time they are read.

    Args:
        columns: tensors ``[rows, ...]``; ``None`` for histories.
        events: by name of a column of histories, its values at all events.
        start: place of the first event of each history ``[rows]``.
        length: events of each history ``[rows]``.
        width: of the columns of histories.
    """

    def __init__(
        self,
        columns: Mapping[str, Tensor | None],
        events: Mapping[str, Tensor],
        start: Tensor,
        length: Tensor,
        width: int,
    ) -> None:
        super().__init__(columns)
        self.events = events
        self.start = start
        self.length = length
        self.width = width

    def __getitem__(self, name: str) -> Tensor:
        value = super().__getitem__(name)
        if value is None:
            return histories_of_rows(self.events[name], self.start, self.length, self.width)
        return value

    def __iter__(self) -> Iterator[str]:
        # With this ``dict(columns)`` reads the columns one by one too.
        return iter(self.keys())

    def items(self) -> Any:
        """Names and tensors."""
        return [(name, self[name]) for name in self.keys()]

    def values(self) -> Any:
        """The tensors."""
        return [self[name] for name in self.keys()]

    def rows(self, numbers: Tensor) -> HistoryColumns:
        """The columns of some rows, int64 ``[n]``."""
        chosen: dict[str, Tensor | None] = {}
        for name in self.keys():
            column = super().__getitem__(name)
            chosen[name] = None
            if column is not None:
                chosen[name] = column[numbers]
        return HistoryColumns(
            chosen, self.events, self.start[numbers], self.length[numbers], self.width
        )


class EventRows(Interaction):
    """RecBole's rows of a sequential dataset, their histories made when they are asked for.

    Args:
        columns: of the rows.
    """

    def __init__(self, columns: HistoryColumns) -> None:
        self.interaction = columns
        self.length = len(columns.start)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        if isinstance(index, (int, np.integer)):
            row = self[[int(index)]]
            return Interaction({name: column[0] for name, column in row.interaction.items()})
        columns = self.interaction.rows(row_numbers(index, self.length))
        if len(columns.start) > PLAIN_ROWS:
            return EventRows(columns)
        return Interaction(dict(columns))

    def _reindex(self, index: Any) -> None:
        self.interaction = self.interaction.rows(row_numbers(index, self.length))


def row_numbers(index: Any, n_rows: int) -> Tensor:
    """The rows that an index means, int64.

    Args:
        index: a tensor, an array or a list of numbers or of truth values, or a slice.
        n_rows: number of rows.
    """
    if isinstance(index, slice):
        return torch.arange(n_rows)[index]
    numbers = torch.as_tensor(index)
    if numbers.dtype == torch.bool:
        return numbers.nonzero().squeeze(1)
    return numbers.long()


def histories_of_rows(values: Tensor, start: Tensor, length: Tensor, width: int) -> Tensor:
    """A column of the histories, right-padded with 0.

    Args:
        values: the column of all events ``[n, ...]``.
        start: place of the first item of each history ``[rows]``.
        length: items of each history ``[rows]``.
        width: of the column.

    Returns:
        ``[rows, width, ...]``.
    """
    lists = torch.zeros(len(start), width, *values.shape[1:], dtype=values.dtype)
    slots = torch.arange(width)
    for first in range(0, len(start), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        places = start[rows].unsqueeze(1) + slots  # [rows, width]
        inside = slots < length[rows].unsqueeze(1)
        gathered = values[places.clamp(max=len(values) - 1)]
        outside = ~inside.view(*inside.shape, *[1] * (values.dim() - 1))
        lists[rows] = gathered.masked_fill_(outside, 0)
    return lists
