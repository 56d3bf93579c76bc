"""The order of events: times of files, the order of rows, and ranks in place of times."""

from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pandas as pd

EXACT = 2**23
"""As many different ranks float32 holds exactly, also after RecBole's division by the largest."""


def read_time(text: str) -> float | None:
    """A time as a number: the number itself, or an ISO date in seconds since 1970 (UTC).

    Returns:
        None for anything else, infinity and ``nan`` too.
    """
    try:
        number = float(text)
    except ValueError:
        return _seconds(text.strip())
    return number if math.isfinite(number) and "_" not in text else None


def is_date(text: str) -> bool:
    """Whether a time that :func:`read_time` can read is a date, not a number."""
    try:
        float(text)
    except ValueError:
        return True
    return False


def event_order(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Row numbers by user and time; rows of one user at one time keep their order.

    Users stand in the order of their first events.

    Args:
        users: user of each row ``[n]``.
        times: float64 ``[n]``.
    """
    by_time = np.argsort(times, kind="stable")
    user_number = pd.factorize(users[by_time])[0]
    return by_time[np.argsort(user_number, kind="stable")]


def has_ties(users: np.ndarray, times: np.ndarray) -> bool:
    """Whether a user has two rows at the same time, so that only the file says which came first.

    Args:
        users: user of each row ``[n]``, in the order of :func:`event_order`.
        times: their times ``[n]``.
    """
    same_user = users[1:] == users[:-1]
    return bool((same_user & (times[1:] == times[:-1])).any())


def in_order_of_events(frame: pd.DataFrame, user: str, time: str) -> pd.DataFrame:
    """The rows in an order that does not depend on the file, wherever the times fix one.

    Where a user has several rows at one time, the file's own order counts and stays.

    Args:
        frame: interactions.
        user: name of the column of users.
        time: name of the column of times.
    """
    users = frame[user].to_numpy()
    times = frame[time].to_numpy()
    order = event_order(users, times)
    if has_ties(users[order], times[order]):
        return frame
    return frame.iloc[order].reset_index(drop=True)


def ranks(times: np.ndarray) -> np.ndarray:
    """1, 2, ... in the order of the times; equal times have equal ranks.

    RecBole keeps floats as float32, which tells neither Unix seconds nor dates written as digits
    apart. Ranks are exact there; more of them than :data:`EXACT` are whole numbers, which
    :class:`~recbole_genrec.data.exact_times.RankedTimes` keeps.

    Args:
        times: float64 ``[n]``.
    """
    different, rank = np.unique(times, return_inverse=True)
    rank = rank.reshape(-1) + 1
    if len(different) > EXACT:
        return rank.astype(np.int64)
    return rank.astype(np.float64)


def _seconds(text: str) -> float | None:
    if text.endswith(("Z", "z")):
        text = f"{text[:-1]}+00:00"
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return date.timestamp()
