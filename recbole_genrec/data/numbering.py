"""Items and users as a checkpoint numbers them, with the data at hand or without any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from recbole_genrec.data.ids import history_column, raw_ids


def frames_of(
    ids: dict[str, list[str]] | None, user_field: str, item_field: str
) -> dict[str, pd.DataFrame]:
    """Columns that RecBole numbers first, so that known users and items keep their numbers.

    Args:
        ids: raw ids of ``users`` and ``items`` by internal id, padding first.
        user_field: column of users.
        item_field: column of items.
    """
    if ids is None:
        return {}
    frames = {}
    for field, tokens in ((user_field, ids["users"]), (item_field, ids["items"])):
        frames[field] = pd.DataFrame({field: np.array(tokens[1:], dtype=object)})
    return frames


def is_numbered_by(dataset: Any, ids: dict[str, list[str]]) -> bool:
    """Whether the items of a dataset begin with those of a checkpoint, in the same order."""
    items = raw_ids(dataset)["items"]
    return items[: len(ids["items"])] == ids["items"]


class NumberedData:
    """What the constructor of a model reads of a dataset: ids of a checkpoint, rows of the data.

    Args:
        config: a ``GenRecConfig``.
        items: raw ids of the items by internal id, padding first.
        users: raw ids of the users by internal id, padding first.
        data: RecBole's dataset whose rows count; without it there are none.
    """

    def __init__(self, config: Any, items: list[str], users: list[str], data: Any = None) -> None:
        self.config = config
        self.dataset_name = config.settings.dataset
        self.uid_field = config.settings.USER_ID_FIELD
        self.iid_field = config.settings.ITEM_ID_FIELD
        self.item_list_length_field = config.settings.ITEM_LIST_LENGTH_FIELD
        if data is not None:
            users = raw_ids(data)["users"]
        self.field2id_token = {
            self.uid_field: np.array(users, dtype=object),
            self.iid_field: np.array(items, dtype=object),
        }
        self.inter_feat = self._no_rows() if data is None else data.inter_feat

    def _no_rows(self) -> Interaction:
        none = torch.zeros(0, dtype=torch.long)
        history = history_column(self.config)
        return Interaction(
            {
                self.uid_field: none,
                self.iid_field: none,
                history: none.reshape(0, self.config.settings.MAX_ITEM_LIST_LENGTH),
                self.item_list_length_field: none,
            }
        )

    def num(self, field: str) -> int:
        """Number of users or items, padding included."""
        return len(self.field2id_token[field])

    @property
    def item_num(self) -> int:
        """Number of items, padding included."""
        return self.num(self.iid_field)

    @property
    def user_num(self) -> int:
        """Number of users, padding included."""
        return self.num(self.uid_field)


class KnownData:
    """RecBole's dataset as far as a checkpoint knows its items and users.

    Args:
        data: RecBole's dataset, whose items and users begin with those of the checkpoint.
        ids: raw ids of ``items`` and ``users`` of the checkpoint, padding first.
    """

    def __init__(self, data: Any, ids: dict[str, list[str]]) -> None:
        self._data = data
        self.item_num = len(ids["items"])
        self.user_num = len(ids["users"])
        self.field2id_token = {
            **data.field2id_token,
            data.uid_field: np.array(ids["users"], dtype=object),
            data.iid_field: np.array(ids["items"], dtype=object),
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def num(self, field: str) -> int:
        """Number of users, items or other values, padding included."""
        if field in (self._data.uid_field, self._data.iid_field):
            return len(self.field2id_token[field])
        return self._data.num(field)
