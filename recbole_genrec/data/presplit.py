"""Interactions that come split into a training, a validation and a test file.

``benchmark_filename`` names them. RecBole expects a history in each row and models cut it or fail;
here histories are built where the files have none, cut to ``MAX_ITEM_LIST_LENGTH`` for every model,
and checked for padding.
"""

from __future__ import annotations

from logging import getLogger

import numpy as np
import pandas as pd

from recbole_genrec.data.inter_files import RESERVED, Interactions
from recbole_genrec.data.times import event_order
from recbole_genrec.errors import DataError

logger = getLogger(__name__)

FILLERS = frozenset({"0", "-1", "pad", "<pad>", "padding", "[pad]", "none", "null", "nan", "na"})
"""What people write, in lower case, where a history is shorter than others."""


WHOLE_HISTORY = "whole_history"
"""Column of what a file says of a user's history, where the models get less or none of it."""


def history_column(config) -> str:
    """Name of the column of histories, in files and in RecBole's batches."""
    return f"{config.settings.ITEM_ID_FIELD}{config.settings.LIST_SUFFIX}"


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
        self._keeps_whole = bool(config.settings.exclude_history)
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
        if self._sequential:
            self._add_histories()
        elif self._has_histories:
            self._keep_whole()
            del self.kinds[self._history], self._frame[self._history]
        frame = self._frame.iloc[self._order]
        part = self._part[self._order]
        if self._sequential:
            filled = (frame[self._history].map(len) > 0).to_numpy()
            self._report_empty(part, filled)
            frame, part = frame[filled], part[filled]
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

    def _keep_whole(self) -> None:
        """Keep the histories of the files for ``exclude_history``."""
        if self._keeps_whole:
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
        filler = _filler(histories, strangers)
        if filler is not None:
            row, item = filler
            raise DataError(
                f"{self._where(row)}: item {item!r} fills up histories and is never a target. "
                f"{_ADVICE}"
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


def _filler(histories: list[np.ndarray], strangers: set[str]) -> tuple[int, str] | None:
    """Row and id of padding: an id that is no target and fills an end of histories.

    Two in a row at an end are padding; a single one is where it has a name that padding has, and
    where it ends a history or all histories have the same length.

    Args:
        histories: ids of each row.
        strangers: ids that are never a target.
    """
    lengths = {len(history) for history in histories}
    for row, history in enumerate(histories):
        if len(history) < 2:
            continue
        first, second, before, last = history[0], history[1], history[-2], history[-1]
        for item, neighbour, may_be_single in (
            (last, before, True),
            (first, second, len(lengths) == 1 and len(histories) > 1),
        ):
            if item not in strangers:
                continue
            named = may_be_single and item.lower() in FILLERS
            if item == neighbour or named:
                return row, item
    return None


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
