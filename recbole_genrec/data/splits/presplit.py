"""Interactions that come split into a training, a validation and a test file.

``benchmark_filename`` names them. RecBole expects a history in each row and models cut it or fail;
here histories are built where the files have none, and cut to ``MAX_ITEM_LIST_LENGTH`` for every
model.
"""

from __future__ import annotations

from logging import getLogger

import numpy as np
import pandas as pd

from recbole_genrec.data.files.headers import check_alias
from recbole_genrec.data.files.times import event_order, warn_of_mixed_units
from recbole_genrec.data.ids import WHOLE_HISTORY, history_column
from recbole_genrec.data.inter_files import InteractionTable
from recbole_genrec.data.rows.evaluation_rows import rows_are_interactions
from recbole_genrec.data.splits.repeated_rows import check_repeated_rows
from recbole_genrec.data.splits.split_ids import check_split_ids
from recbole_genrec.data.splits.split_rows import SplitRows
from recbole_genrec.data.splits.written_histories import check_histories
from recbole_genrec.errors import DataError

logger = getLogger(__name__)


class Presplit:
    """The rows of the three files, each part in the order of events.

    A history that is built holds what the user did before: in earlier files and in the row's own,
    never in later ones.

    Args:
        tables: the training, the validation and the test file.
        config: names of columns and the length of histories.
        sequential: whether rows have histories.

    Attributes:
        kinds: RecBole's type of each column.

    Raises:
        DataError: the files have different columns, ids that are written in several ways, common
            rows, or histories that are none.
    """

    def __init__(self, tables: list[InteractionTable], config, sequential: bool):
        settings = config.settings
        self._user = settings.USER_ID_FIELD
        self._item = settings.ITEM_ID_FIELD
        self._time = settings.TIME_FIELD
        self._limit = settings.MAX_ITEM_LIST_LENGTH
        self._history = history_column(config)
        self._tables = tables
        self._sequential = sequential
        self._needs_histories = sequential or rows_are_interactions(config)
        _check_same_columns(tables)
        self.kinds = dict(tables[0].kinds)
        self._has_histories = self._history in self.kinds
        if self._needs_histories and not self._has_histories:
            _check_other_columns(tables[0], self._history, check_alias(config, "alias_of_item_id"))
        self._frame = pd.concat([table.frame for table in tables], ignore_index=True)
        columns = (self._user, self._item, self._history, self._time)
        rows = SplitRows(tables, self._frame, *columns)
        if self._time in self._frame:
            warn_of_mixed_units(self._frame[self._time].to_numpy(), rows.where)
        self._part = rows.part
        self._order = self._order_of_events()
        check_split_ids(rows)
        if self._has_histories:
            check_histories(rows, self._frame[self._history].tolist(), self._order)
        check_repeated_rows(rows)

    def numbering(self) -> dict[str, pd.DataFrame]:
        """Ids of users and items in the order of events, by column: they give RecBole's numbers."""
        frame = self._frame.iloc[self._order]
        items = frame[self._item].to_numpy()
        if self._has_histories:
            pairs = zip(frame[self._history], items, strict=True)
            words = (word for history, item in pairs for word in (*history, item))
            items = np.array(list(dict.fromkeys(words)), dtype=object)
        return {
            self._user: pd.DataFrame({self._user: frame[self._user].to_numpy()}),
            self._item: pd.DataFrame({self._item: items}),
        }

    def rows(self) -> tuple[pd.DataFrame, list[int]]:
        """The rows, training first, and how many each part has.

        Raises:
            DataError: no row of a part has a history.
        """
        if self._needs_histories:
            self._add_histories()
        frame = self._frame.iloc[self._order]
        part = self._part[self._order]
        if self._needs_histories:
            filled = (frame[self._history].map(len) > 0).to_numpy()
            self._report_empty(part, filled)
            kept = filled if self._sequential else filled | (part == 0)
            frame, part = frame[kept], part[kept]
        if not self._sequential and self._history in frame:
            frame = self._moved_aside(frame)
        by_part = np.argsort(part, kind="stable")
        sizes = np.bincount(part, minlength=len(self._tables)).tolist()
        return frame.iloc[by_part].reset_index(drop=True), sizes

    def _order_of_events(self) -> np.ndarray:
        """Row numbers by user, time, length of the history and place in the files."""
        keys = [self._part]
        if self._has_histories:
            keys.insert(0, self._frame[self._history].map(len).to_numpy())
        if self._time in self._frame:
            keys.append(self._frame[self._time].to_numpy())
        place = np.argsort(np.lexsort(keys))
        return event_order(self._frame[self._user].to_numpy(), place)

    def _add_histories(self) -> None:
        """Build the histories, or cut those of the files."""
        if not self._has_histories:
            self._frame[self._history] = self._built()
            self.kinds[self._history] = "token_seq"
            return
        histories = self._frame[self._history]
        cut = int((histories.map(len) > self._limit).sum())
        if cut:
            self._keep_whole()
            self._frame[self._history] = [history[-self._limit :] for history in histories]
            logger.info(
                "%s: %d of %d histories are longer than MAX_ITEM_LIST_LENGTH and are cut to their "
                "last %d items.",
                self._tables[0].path,
                cut,
                len(histories),
                self._limit,
            )

    def _moved_aside(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of a general model, which has no histories."""
        del self.kinds[self._history]
        if WHOLE_HISTORY in frame:
            return frame.drop(columns=self._history)
        self.kinds[WHOLE_HISTORY] = "token_seq"
        return frame.rename(columns={self._history: WHOLE_HISTORY})

    def _keep_whole(self) -> None:
        """Keep the histories for ``exclude_history`` and for lists without known items."""
        self._frame[WHOLE_HISTORY] = self._frame[self._history]
        self.kinds[WHOLE_HISTORY] = "token_seq"

    def _built(self) -> pd.Series:
        """What each row's user did before, at most ``MAX_ITEM_LIST_LENGTH`` items."""
        users = self._frame[self._user].to_numpy()
        items = self._frame[self._item].to_numpy()
        histories: list = [None] * len(self._frame)
        current = None
        earlier_items: list[str] = []
        earlier_parts: list[int] = []
        for row in self._order:
            if users[row] != current:
                current, earlier_items, earlier_parts = users[row], [], []
            part = self._part[row]
            if earlier_parts and max(earlier_parts[-self._limit :]) > part:
                pairs = zip(earlier_items, earlier_parts, strict=True)
                earlier = [item for item, other in pairs if other <= part]
            else:
                earlier = earlier_items
            histories[row] = np.array(earlier[-self._limit :], dtype=object)
            earlier_items.append(items[row])
            earlier_parts.append(part)
        return pd.Series(histories, dtype="object")

    def _report_empty(self, part: np.ndarray, filled: np.ndarray) -> None:
        for number, table in enumerate(self._tables):
            here = part == number
            empty = int((here & ~filled).sum())
            if empty == here.sum():
                raise DataError(
                    f"{table.path}: no row has a history, that is an earlier interaction of its "
                    "user in this file or those before it. Check the users' ids and TIME_FIELD."
                )
            if empty:
                logger.info(
                    "%s: %d of %d rows have no history and are no targets.",
                    table.path,
                    empty,
                    int(here.sum()),
                )


def _check_same_columns(tables: list[InteractionTable]) -> None:
    first = tables[0]
    for other in tables[1:]:
        if other.kinds != first.kinds:
            if set(other.kinds.items()) == set(first.kinds.items()):
                continue
            raise DataError(
                f"{other.path}, line 1: its columns are {_header(other)}, those of {first.path} "
                f"are {_header(first)}. The files of benchmark_filename need the same columns and "
                "types."
            )


def _check_other_columns(table: InteractionTable, history: str, aliases: list[str]) -> None:
    """Refuse a list of items under another name than that of histories; report other lists.

    Args:
        table: a file without histories.
        history: name of the column of histories.
        aliases: columns that hold items.

    Raises:
        DataError: names the column and how it must be called.
    """
    lists = [name for name, kind in table.header.items() if kind == "token_seq" and name != history]
    if not lists:
        return
    advice = (
        f"Histories are read from {history!r} alone. Write {history}:token_seq in the header of "
        "each file if these are the histories"
    )
    items = [name for name in lists if name in aliases]
    if items:
        raise DataError(
            f"{table.path}, line 1: alias_of_item_id says that {items[0]!r} lists items, and it is "
            f"not read as the history. {advice}; else take {items[0]!r} out of alias_of_item_id, "
            "and histories are built from the rows."
        )
    logger.warning(
        "%s, line 1: the lists in %s are not read as histories, which are built from the rows. %s.",
        table.path,
        ", ".join(map(repr, lists)),
        advice,
    )


def _header(table: InteractionTable) -> str:
    return ", ".join(f"{name}:{kind}" for name, kind in table.kinds.items())
