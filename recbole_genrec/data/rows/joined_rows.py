"""One history of each user, from rows that carry histories, without a Python loop over rows.

In files that are split a row's history may be cut, may be that of one session, or may tell of items
that no row has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from recbole_genrec.data.rows.event_rows import ROWS_AT_ONCE
from recbole_genrec.data.rows.row_order import begins_user, ends_user


def joined_rows(
    users: np.ndarray, items: np.ndarray, before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of all events by user, oldest first.

    The history of a user's first row, and the item of each row. An item that only a later history
    tells comes first if it stands there before the item of the row before, else before the row's
    own item. The last row is at the end as the file has it, with its history.

    Args:
        users: user of each row ``[n]``, ascending; the rows of a user oldest first.
        items: item of each row ``[n]``.
        before: history of each row, arrays of item numbers ``[n]``.
    """
    parts = []
    for rows in _slices_of_whole_users(users):
        told = _told(before[rows])
        events = _events(users[rows], items[rows], told)
        parts.append(_with_last_rows(*events, users[rows], told))
    of_users, of_items = zip(*parts, strict=True)
    return np.concatenate(of_users), np.concatenate(of_items)


class _Told(NamedTuple):
    """The items of histories, one after another.

    Attributes:
        items: int64 ``[N]``.
        row: of each ``[N]``.
        place: of each in its history ``[N]``.
        lengths: of the histories ``[n]``.
    """

    items: np.ndarray
    row: np.ndarray
    place: np.ndarray
    lengths: np.ndarray


def _told(before: np.ndarray) -> _Told:
    lengths = np.array([len(history) for history in before], dtype=np.int64)
    starts = lengths.cumsum() - lengths
    items = np.concatenate(before).astype(np.int64)
    place = np.arange(len(items)) - starts.repeat(lengths)
    return _Told(items, np.arange(len(before)).repeat(lengths), place, lengths)


def _slices_of_whole_users(users: np.ndarray) -> Iterator[slice]:
    """Slices of some :data:`ROWS_AT_ONCE` rows, which bound the memory."""
    starts = np.flatnonzero(begins_user(users))
    wanted = np.arange(0, len(users), ROWS_AT_ONCE)
    borders = np.unique(starts[np.searchsorted(starts, wanted, side="right") - 1])
    for first, end in zip(borders, [*borders[1:], len(users)], strict=True):
        yield slice(first, end)


def _events(users: np.ndarray, items: np.ndarray, told: _Told) -> tuple[np.ndarray, np.ndarray]:
    """The first histories, the items of all rows, and what later histories add."""
    is_first = begins_user(users)
    of_first = is_first[told.row]
    span = 1 + max(told.items.max(initial=0), items.max())
    pairs = users[told.row] * span + told.items
    known = np.concatenate([pairs[of_first], users * span + items])
    added = np.flatnonzero(~of_first)
    added = added[~np.isin(pairs[added], known)]
    added = added[np.unique(pairs[added], return_index=True)[1]]

    item_before = np.where(is_first, 0, np.roll(items, 1))
    place_before = np.full(len(items), -1)
    is_item_before = told.items == item_before[told.row]
    place_before[told.row[is_item_before]] = told.place[is_item_before]  # the last one stays
    is_older = told.place[added] < place_before[told.row[added]]

    chosen = np.concatenate([np.flatnonzero(of_first), added])
    row = np.concatenate([told.row[chosen], np.arange(len(items))])
    place = np.concatenate([told.place[chosen], told.lengths])
    is_recent = np.ones(len(row), dtype=bool)
    is_recent[of_first.sum() : len(chosen)] = ~is_older
    order = np.lexsort([place, row, is_recent, users[row]])
    return users[row][order], np.concatenate([told.items[chosen], items])[order]


def _with_last_rows(
    of_users: np.ndarray, of_items: np.ndarray, users: np.ndarray, told: _Told
) -> tuple[np.ndarray, np.ndarray]:
    """Events that end with the history of the last row and its item, as models read them."""
    is_last = ends_user(users)
    last = np.flatnonzero(is_last[told.row])
    owner = users[told.row[last]]
    begin = np.searchsorted(of_users, owner)
    end = np.searchsorted(of_users, owner, side="right")
    place = end - 1 - told.lengths[told.row[last]] + told.place[last]
    is_there = (place >= begin) & (of_items[place] == told.items[last])
    missing = np.isin(owner, owner[~is_there])

    stage = np.zeros(len(of_users), dtype=np.int64)
    stage[ends_user(of_users)] = 2
    stage = np.concatenate([stage, np.ones(missing.sum(), dtype=np.int64)])
    all_users = np.concatenate([of_users, owner[missing]])
    order = np.lexsort([stage, all_users])
    return all_users[order], np.concatenate([of_items, told.items[last[missing]]])[order]
