"""The order of rows, and where the rows of a user begin and end."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)


def order_of_rows(
    users: np.ndarray, times: np.ndarray | None = None, lengths: np.ndarray | None = None
) -> np.ndarray:
    """Row numbers by user, oldest first; rows that nothing tells apart keep their order.

    Args:
        users: user of each row ``[n]``.
        times: ``[n]``; default: all are the same.
        lengths: of the histories ``[n]``, which tell rows of one time apart.

    Returns:
        int64 ``[n]``.
    """
    keys = [key for key in (lengths, times, users) if key is not None]
    return np.lexsort(keys)


def by_user_and_time(data, users: np.ndarray | None = None) -> np.ndarray:
    """Order of the rows (prefix -> next item) of a split by user, oldest target first.

    RecBole's leave-one-out split has that order; splits by ratio over all users and files of
    ``benchmark_filename`` need not.

    Args:
        data: a part of a sequential split.
        users: what to sort users by, one entry a row; default their first row.
    """
    rows = data.inter_feat
    if users is None:
        _, first, number = np.unique(
            rows[data.uid_field].numpy(), return_index=True, return_inverse=True
        )
        users = first[number]
    times = rows[data.time_field].numpy() if data.time_field in rows else None
    return order_of_rows(users, times, rows[data.item_list_length_field].numpy())


def begins_user(users: Rows) -> Rows:
    """Which rows are the first of their user, bool ``[n]``.

    Args:
        users: user of each row ``[n]``; the rows of a user follow each other.
    """
    begins = users == users  # True: so is the first row
    begins[1:] = users[1:] != users[:-1]
    return begins


def ends_user(users: Rows) -> Rows:
    """Which rows are the last of their user, bool ``[n]``; see :func:`begins_user`."""
    ends = users == users  # True: so is the last row
    ends[:-1] = users[1:] != users[:-1]
    return ends
