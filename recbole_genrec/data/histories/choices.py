"""What users have chosen so far, by raw ids."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recbole_genrec.data.ids import WHOLE_HISTORY, history_column
from recbole_genrec.data.rows.joined_rows import joined_rows
from recbole_genrec.data.rows.row_order import begins_user, order_of_rows


class EventHistories(Mapping[str, list[str]]):
    """Raw item ids of each user, oldest first, made from two columns of numbers when asked for.

    Args:
        users: RecBole's number of each user, each once, int64 ``[U]``.
        counts: how many events each of them has, int64 ``[U]``.
        chosen: RecBole's number of the item of each event, user after user, oldest first.
        user_tokens: raw ids of the users by number.
        item_tokens: raw ids of the items by number.
        user_numbers: number of each user by raw id.
    """

    def __init__(
        self,
        users: np.ndarray,
        counts: np.ndarray,
        chosen: np.ndarray,
        user_tokens: np.ndarray,
        item_tokens: np.ndarray,
        user_numbers: Mapping[str, int],
    ) -> None:
        self.users = users
        self.counts = counts
        self.chosen = chosen
        self.user_tokens = user_tokens
        self.item_tokens = item_tokens
        self._user_numbers = user_numbers
        self._ends = counts.cumsum()
        self._row = np.full(len(user_tokens), -1, dtype=np.int64)
        self._row[users] = np.arange(len(users))

    @classmethod
    def of_events(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        user_tokens: np.ndarray,
        item_tokens: np.ndarray,
        user_numbers: Mapping[str, int],
    ) -> EventHistories:
        """Those of events one by one.

        Args:
            users: RecBole's number of the user of each event, ascending, int64 ``[n]``.
            items: that of its item, oldest first for each user, int64 ``[n]``.
            user_tokens: see the class.
            item_tokens: see the class.
            user_numbers: see the class.
        """
        starts = np.flatnonzero(begins_user(users))
        counts = np.diff(starts, append=len(users))
        return cls(users[starts], counts, items, user_tokens, item_tokens, user_numbers)

    def __len__(self) -> int:
        return len(self.users)

    def __iter__(self) -> Iterator[str]:
        for number in self.users.tolist():
            yield str(self.user_tokens[number])

    def __contains__(self, user: object) -> bool:
        return self._row_of(user) >= 0

    def __getitem__(self, user: str) -> list[str]:
        return [str(token) for token in self.item_tokens[self.numbers_of(user)]]

    def numbers_of(self, user: str) -> np.ndarray:
        """RecBole's numbers of a user's items, oldest first.

        Raises:
            KeyError: there is no event of this user.
        """
        row = self._row_of(user)
        if row < 0:
            raise KeyError(user)
        end = self._ends[row]
        return self.chosen[end - self.counts[row] : end]

    def _row_of(self, user: object) -> int:
        number = self._user_numbers.get(user)  # type: ignore[call-overload]
        return -1 if number is None else int(self._row[number])

    def part(self, users: Sequence[str]) -> EventHistories:
        """The same for some users, each once.

        Args:
            users: raw ids of users with events.
        """
        rows = np.array([self._row_of(user) for user in users], dtype=np.int64)
        items = [self.numbers_of(user) for user in users]
        return EventHistories(
            self.users[rows],
            self.counts[rows],
            np.concatenate([self.chosen[:0], *items]),
            self.user_tokens,
            self.item_tokens,
            self._user_numbers,
        )


Histories = Mapping[str, Sequence[str]]
"""Raw item ids of each user, oldest first, by raw user id."""


def histories(dataset: Any) -> EventHistories:
    """Raw item ids of each user, oldest first.

    Args:
        dataset: RecBole's dataset before its loaders are made, so that its rows are those of the
            files. In files that are split a row may carry a history.
    """
    users, items = ordered_events(dataset)
    user_tokens = dataset.field2id_token[dataset.uid_field]
    item_tokens = dataset.field2id_token[dataset.iid_field]
    numbers = dataset.field2token_id[dataset.uid_field]
    return EventHistories.of_events(users, items, user_tokens, item_tokens, numbers)


def chosen_items(bought: EventHistories) -> set[str]:
    """Raw ids of the items in any history."""
    return {str(token) for token in bought.item_tokens[np.unique(bought.chosen)]}


def ordered_events(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of all events by user, oldest first, as RecBole's numbers.

    Args:
        dataset: RecBole's dataset before its loaders are made.
    """
    frame: pd.DataFrame = dataset.inter_feat
    users = frame[dataset.uid_field].to_numpy()
    items = frame[dataset.iid_field].to_numpy()
    times = frame[dataset.time_field].to_numpy() if dataset.time_field in frame else None
    before = _told_histories(dataset)
    lengths = None if before is None else before.map(len).to_numpy()
    order = order_of_rows(users, times, lengths)
    users, items = users[order], items[order]
    if before is None:
        return users, items
    return joined_rows(users, items, before.to_numpy()[order])


def _told_histories(dataset: Any) -> pd.Series | None:
    """What each row says of its user's history; ``None`` where rows say nothing."""
    for name in (WHOLE_HISTORY, history_column(dataset.config)):
        if name in dataset.inter_feat:
            return dataset.inter_feat[name]
    return None


def buyers(bought: EventHistories, items: Sequence[str]) -> dict[str, list[str]]:
    """Raw ids of the users who chose some items, by raw item id.

    Args:
        bought: see :func:`histories`.
        items: raw ids.
    """
    users: dict[str, list[str]] = {item: [] for item in items}
    for user, history in _with_one_of(bought, users).items():
        for item in dict.fromkeys(history):
            if item in users:
                users[item].append(user)
    return users


def _with_one_of(bought: EventHistories, items: Container[str]) -> EventHistories:
    """The histories that hold one of some items."""
    is_one = np.array([str(token) in items for token in bought.item_tokens], dtype=bool)
    rows = np.arange(len(bought.users)).repeat(bought.counts)
    chosen = np.unique(rows[is_one[bought.chosen]])
    return bought.part([str(bought.user_tokens[number]) for number in bought.users[chosen]])
