"""What users have chosen so far, by raw ids."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from recbole_genrec.data.presplit import WHOLE_HISTORY


def histories(dataset: Any) -> dict[str, list[str]]:
    """Raw item ids of each user, oldest first.

    Args:
        dataset: RecBole's dataset before its loaders are made, so that its rows are those of the
            files. In files that are split a row may carry a history.
    """
    frame: pd.DataFrame = dataset.inter_feat
    users = frame[dataset.uid_field].to_numpy()
    items = frame[dataset.iid_field].to_numpy()
    user_tokens = dataset.field2id_token[dataset.uid_field]
    item_tokens = dataset.field2id_token[dataset.iid_field]
    history = f"{dataset.iid_field}{dataset.config['LIST_SUFFIX']}"
    if WHOLE_HISTORY in frame:
        history = WHOLE_HISTORY
    keys = [users]
    if dataset.time_field in frame:
        keys.insert(0, frame[dataset.time_field].to_numpy())
    if history in frame:
        keys.insert(0, frame[history].map(len).to_numpy())
    order = np.lexsort(keys)  # stable: rows of the same time stay in the order of the file
    users, items = users[order], items[order]
    if history in frame:
        before = frame[history].to_numpy()[order]
        return _from_last_rows(users, items, before, user_tokens, item_tokens)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    lists = {}
    for start, end in pairwise([*starts.tolist(), len(users)]):
        tokens = item_tokens[items[start:end]]
        lists[str(user_tokens[users[start]])] = [str(token) for token in tokens]
    return lists


def _from_last_rows(
    users: np.ndarray,
    items: np.ndarray,
    before: np.ndarray,
    user_tokens: np.ndarray,
    item_tokens: np.ndarray,
) -> dict[str, list[str]]:
    """The history and the item of each user's last row."""
    lists = {}
    for user, item, history in zip(users, items, before, strict=True):
        tokens = item_tokens[[*history, item]]
        lists[str(user_tokens[user])] = [str(token) for token in tokens]
    return lists


def buyers(bought: dict[str, list[str]]) -> dict[str, list[str]]:
    """Raw user ids by the items that they chose, the inverse of :func:`histories`."""
    users: dict[str, list[str]] = {}
    for user, items in bought.items():
        for item in dict.fromkeys(items):
            users.setdefault(item, []).append(user)
    return users
