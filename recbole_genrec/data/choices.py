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
    events = ordered_events(dataset)
    user_tokens = dataset.field2id_token[dataset.uid_field]
    item_tokens = dataset.field2id_token[dataset.iid_field]
    if events is None:
        return _from_last_rows(*_rows_with_histories(dataset), user_tokens, item_tokens)
    users, items = events
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    lists = {}
    for start, end in pairwise([*starts.tolist(), len(users)]):
        tokens = item_tokens[items[start:end]]
        lists[str(user_tokens[users[start]])] = [str(token) for token in tokens]
    return lists


def ordered_events(dataset: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Users and items of all events by user, oldest first, as RecBole's numbers.

    Args:
        dataset: RecBole's dataset before its loaders are made.

    Returns:
        ``None`` where rows carry histories.
    """
    frame: pd.DataFrame = dataset.inter_feat
    if _history_column(dataset) in frame:
        return None
    users = frame[dataset.uid_field].to_numpy()
    items = frame[dataset.iid_field].to_numpy()
    keys = [users]
    if dataset.time_field in frame:
        keys.insert(0, frame[dataset.time_field].to_numpy())
    order = np.lexsort(keys)  # stable: rows of the same time stay in the order of the file
    return users[order], items[order]


def _history_column(dataset: Any) -> str:
    if WHOLE_HISTORY in dataset.inter_feat:
        return WHOLE_HISTORY
    return f"{dataset.iid_field}{dataset.config.settings.LIST_SUFFIX}"


def _rows_with_histories(dataset: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and histories before them, by user, the longest history last."""
    frame: pd.DataFrame = dataset.inter_feat
    users = frame[dataset.uid_field].to_numpy()
    before = frame[_history_column(dataset)]
    keys = [before.map(len).to_numpy()]
    if dataset.time_field in frame:
        keys.append(frame[dataset.time_field].to_numpy())
    order = np.lexsort([*keys, users])
    items = frame[dataset.iid_field].to_numpy()
    return users[order], items[order], before.to_numpy()[order]


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
