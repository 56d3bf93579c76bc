"""Interactions that come split into a training, a validation and a test file.

``benchmark_filename`` names them. RecBole expects a history in each row and models cut it or fail;
here histories are built where the files have none, cut to ``MAX_ITEM_LIST_LENGTH`` for every model,
and checked for padding.
"""

from __future__ import annotations

from logging import getLogger

import numpy as np
import pandas as pd

from recbole_genrec.data.evaluation_rows import rows_are_interactions
from recbole_genrec.data.ids import history_column
from recbole_genrec.data.inter_files import RESERVED, Interactions
from recbole_genrec.data.padding import filling_item, filling_stranger
from recbole_genrec.data.times import event_order
from recbole_genrec.errors import DataError

logger = getLogger(__name__)

WHOLE_HISTORY = "whole_history"
"""Column of what a file says of a user's history, where the models get less or none of it."""


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
        DataError: the files have different columns, or histories hold padding.
    """

    def __init__(self, tables: list[Interactions], config, sequential: bool):
        self._user, self._item = config.settings.USER_ID_FIELD, config.settings.ITEM_ID_FIELD
        self._time = config.settings.TIME_FIELD
        self._limit = config.settings.MAX_ITEM_LIST_LENGTH
        self._history = history_column(config)
        self._tables = tables
        self._sequential = sequential
        self._needs_histories = sequential or rows_are_interactions(config)
        _check_same_columns(tables)
        self.kinds = dict(tables[0].kinds)
        self._frame = pd.concat([table.frame for table in tables], ignore_index=True)
        self._part = np.repeat(np.arange(len(tables)), [len(table.frame) for table in tables])
        self._has_histories = self._history in self.kinds
        if self._has_histories:
            self._check_histories()
        self._order = self._order_of_events()

    def numbering(self) -> dict[str, pd.DataFrame]:
        """Ids of users and items in the order of events, by column: they give RecBole's numbers."""
        frame = self._frame.iloc[self._order]
        items = frame[self._item].to_numpy()
        if self._has_histories:
            pairs = zip(frame[self._history], items, strict=True)
            items = np.concatenate([[*history, item] for history, item in pairs])
        return {
            self._user: pd.DataFrame({self._user: frame[self._user].to_numpy()}),
            self._item: pd.DataFrame({self._item: items.astype(object)}),
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
        place = np.empty(len(self._frame))
        place[np.lexsort(keys)] = np.arange(len(self._frame))
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
        current, earlier_items, earlier_parts = None, [], []
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

    # --- histories of the files -------------------------------------------------------------------

    def _check_histories(self) -> None:
        """Refuse padding, and histories whose ids are no items."""
        histories = self._frame[self._history].tolist()
        targets = set(self._frame[self._item])
        known = 0
        for row, history in enumerate(histories):
            for item in history:
                if item in RESERVED:
                    raise DataError(f"{self._where(row)}: the history holds {item!r}. {_ADVICE}")
            known += any(item in targets for item in history)
        strangers = {item for history in histories for item in history} - targets
        filler = filling_stranger(histories, strangers)
        if filler is not None:
            row, item = filler
            raise DataError(
                f"{self._where(row)}: item {item!r} fills up histories and is never a target. "
                f"{_ADVICE}"
            )
        of_training = histories[: len(self._tables[0].frame)]
        filler = filling_item(of_training)
        if filler is not None:
            row, item = filler
            raise DataError(
                f"{self._where(row)}: all histories of the file hold {len(histories[row])} items, "
                f"and many have item {item!r} twice at the same end. It fills them up, although "
                f"there is an item of this name. {_ADVICE}"
            )
        if not known:
            raise DataError(
                f"{self._where(0)}: not one id of the histories in {self._history!r} is a target "
                f"in {self._item!r}; the first history is {list(histories[0])[:3]}. Check the ids, "
                "and --seq_separator, which stands between them."
            )

    def _where(self, row: int) -> str:
        part = int(self._part[row])
        first = int(np.searchsorted(self._part, part))
        table = self._tables[part]
        return f"{table.path}, line {table.lines[row - first]}"


_ADVICE = "Write histories without padding, oldest item first: each ends with the last item."


def _check_same_columns(tables: list[Interactions]) -> None:
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


def _header(table: Interactions) -> str:
    return ", ".join(f"{name}:{kind}" for name, kind in table.kinds.items())
