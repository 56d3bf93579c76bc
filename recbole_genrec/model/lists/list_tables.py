"""Users by number, and lists as tables: the parts of :class:`UserLists`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_genrec.data.given_ids import raw_id
from recbole_genrec.data.histories.choices import EventHistories, Histories
from recbole_genrec.model.lists.answers import Ranked
from recbole_genrec.model.lists.catalogue import Catalogue


class People(NamedTuple):
    """Users for whom lists are made.

    Attributes:
        tokens: raw ids of N users.
        numbers: int64 ``[N]``, their ids in the model; 0 = somebody new.
        known: item ids of each one's whole history, oldest first.
    """

    tokens: list[str]
    numbers: Tensor
    known: list[Tensor]


class Numbers:
    """Ids of items and users in a model, by raw id.

    Args:
        catalogue: of the model.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._of_data: tuple[np.ndarray, np.ndarray] | None = None

    def people(self, tokens: list[str], histories: Histories) -> People:
        """Users with the part of their histories that the model knows.

        Args:
            tokens: raw ids of the users.
            histories: raw item ids by user.
        """
        known = []
        for user in tokens:
            numbers = self._known(user, histories)
            known.append(torch.from_numpy(numbers[numbers > 0]))
        of_users = self._catalogue.user_numbers()
        users = torch.tensor([of_users.get(user, 0) for user in tokens], dtype=torch.long)
        return People(tokens, users, known)

    def _known(self, user: str, histories: Histories) -> np.ndarray:
        """Ids in the model of the items of a user, 0 = none, int64."""
        if isinstance(histories, EventHistories):
            return self._ids_of(histories.item_tokens)[histories.numbers_of(user)]
        of_items = self._catalogue.item_numbers()
        ids = [of_items.get(raw_id(item), 0) for item in histories[user]]
        return np.array(ids, dtype=np.int64)

    def _ids_of(self, tokens: np.ndarray) -> np.ndarray:
        """Id in the model of each of the data's items by its number, 0 = none, int64."""
        if self._of_data is None or self._of_data[0] is not tokens:
            of_items = self._catalogue.item_numbers()
            ids = [of_items.get(str(token), 0) for token in tokens]
            self._of_data = (tokens, np.array(ids, dtype=np.int64))
        return self._of_data[1]


class ListTable:
    """Lists as a table, a row for each user and item.

    Args:
        items: raw ids by item id.
        titles: titles by item id.
        codes: codes by item id, as text; ``None`` for models without codes, whose tables have
            neither codes nor certificates.
    """

    def __init__(self, items: list[str], titles: list[str], codes: list[str] | None) -> None:
        self._items = np.array(items, dtype=object)
        self._titles = np.array(titles, dtype=object)
        self._codes = None
        if codes is not None:
            self._codes = np.array(codes, dtype=object)

    def of(self, users: list[str], lists: list[Ranked]) -> pd.DataFrame:
        """The table of some users.

        Args:
            users: raw ids.
            lists: the list of each.
        """
        counts = []
        ranks: list[int] = []
        numbers = []
        facts = []
        for best in lists:
            counts.append(len(best))
            ranks += range(1, len(best) + 1)
            for item, columns_of_item in best:
                numbers.append(item)
                facts.append(columns_of_item)
        items = np.array(numbers, dtype=np.int64)
        columns = {
            "user_id": np.array(users, dtype=object).repeat(counts),
            "rank": np.array(ranks, dtype=np.int64),
            "item_id": self._items[items],
            "title": self._titles[items],
            "score": np.array([fact["score"] for fact in facts], dtype=np.float64),
        }
        if self._codes is not None:
            columns["certified"] = np.array([fact["certified"] for fact in facts], dtype=bool)
            columns["codes"] = self._codes[items]
        return pd.DataFrame(columns)


def lists_bar(n_users: int, shown: bool) -> tqdm:
    """A bar over the users whose lists are made."""
    return tqdm(total=n_users, desc="recommend", unit=" users", disable=not shown)
