"""The rows of files that come split, as numbers, which is what their checks compare."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from recbole_genrec.data.inter_files import InteractionTable


class Cells(NamedTuple):
    """Ids of one kind in all files.

    Attributes:
        column: name of the column.
        names: the different ids, object ``[n_names]``.
        codes: the id of each cell, int64 ``[n_cells]``.
        rows: the row of each cell, int64 ``[n_cells]``.
    """

    column: str
    names: np.ndarray
    codes: np.ndarray
    rows: np.ndarray


class SplitRows:
    """The rows of all files, those of the training file first.

    Args:
        tables: the training, the validation and the test file.
        frame: their rows, one file after another.
        user: name of the column of users.
        item: name of the column of items.
        history: name of the column of histories, which the files need not have.
        time: name of the column of times, which the files need not have.

    Attributes:
        part: file of each row, int64 ``[n]``.
        times: float64 ``[n]``; ``None`` where the files have none.
        has_histories: whether the files have them.
        users: the user of each row.
        targets: the item of each row; its names are those of all items, the histories' too.
        words: the items of all histories, one row after another.
        starts: the first word of each row, int64 ``[n + 1]``.
        lengths: number of words of each row, int64 ``[n]``.
    """

    def __init__(
        self,
        tables: list[InteractionTable],
        frame: pd.DataFrame,
        user: str,
        item: str,
        history: str,
        time: str | None,
    ):
        self.tables = tables
        self.part = np.repeat(np.arange(len(tables)), [len(table.frame) for table in tables])
        self.times = frame[time].to_numpy() if time in frame else None
        self.has_histories = history in frame
        rows = np.arange(len(frame))

        codes, names = pd.factorize(frame[user].to_numpy())
        self.users = Cells(user, names, codes, rows)

        histories = frame[history].tolist() if self.has_histories else []
        codes, names = pd.factorize(np.concatenate([frame[item].to_numpy(), *histories]))
        self.lengths = np.zeros(len(frame), dtype=np.int64)
        if self.has_histories:
            self.lengths = frame[history].map(len).to_numpy()
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.targets = Cells(item, names, codes[: len(frame)], rows)
        self.words = Cells(history, names, codes[len(frame) :], np.repeat(rows, self.lengths))

    @property
    def is_target(self) -> np.ndarray:
        """Whether an item is the target of a row, bool ``[n_names]``."""
        return self.named(self.targets)

    def named(self, cells: Cells, part: int | None = None) -> np.ndarray:
        """Which ids stand in a file, or in any, bool ``[n_names]``."""
        found = np.zeros(len(cells.names), dtype=bool)
        chosen = slice(None) if part is None else self.part[cells.rows] == part
        found[cells.codes[chosen]] = True
        return found

    def where(self, row: int) -> str:
        """File and line of a row."""
        part = int(self.part[row])
        first = int(np.searchsorted(self.part, part))
        table = self.tables[part]
        return f"{table.path}, line {table.lines[row - first]}"

    def where_named(self, code: int, *columns: Cells) -> str:
        """File and line of the first row that has an id in one of the columns."""
        rows = [cells.rows[cells.codes == code] for cells in columns]
        return self.where(int(np.concatenate(rows).min()))
