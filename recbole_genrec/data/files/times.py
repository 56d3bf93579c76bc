"""The order of events: times of files, the order of rows, and ranks in place of times."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from logging import getLogger

import numpy as np
import pandas as pd

EXACT = 2**23
"""As many different ranks float32 holds exactly, also after RecBole's division by the largest."""

LARGE = 2**53
"""From here on float64 has every second whole number alone, or fewer."""

APART = 300
"""A unit of time is 1000 times the next; Unix times of one file differ by far less."""
LEAST_UNIX = 1e7
"""Smaller times may be positions, or relative to a start. As Unix seconds it is April 1970."""

_BEYOND_MICROSECONDS = re.compile(r"[.,]\d{6}(\d+)")


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


def exact_part(text: str) -> Decimal:
    """What orders times that :func:`read_time` makes equal.

    The value of a number; of a date the digits beyond the microsecond, which Python drops.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if number.is_finite():
        return number
    digits = _BEYOND_MICROSECONDS.search(text)
    return Decimal(f"0.{digits.group(1)}") if digits else Decimal(0)


def whole_times(texts: Sequence[str]) -> np.ndarray | None:
    """Times as int64 ``[n]``, which has all digits of nanoseconds and of dates with milliseconds.

    Returns:
        ``None`` where one is no whole number, or beyond int64.
    """
    try:
        return np.array([int(text) for text in texts], dtype=np.int64)
    except (ValueError, OverflowError):
        return None


def rounded_alike(texts: Sequence[str], times: Sequence[float]) -> tuple[int, int] | None:
    """The first two rows whose times differ and are the same number, so that their order is lost.

    Args:
        texts: as they are written ``[n]``.
        times: what :func:`read_time` makes of them ``[n]``.
    """
    first: dict[float, int] = {}
    for row, (text, time) in enumerate(zip(texts, times, strict=True)):
        other = first.setdefault(time, row)
        if texts[other] != text and exact_part(texts[other]) != exact_part(text):
            return other, row
    return None


def warn_of_mixed_units(times: np.ndarray, where: Callable[[int], str]) -> None:
    """Warn where some times are hundreds of times as large as all others.

    Args:
        times: of events ``[n]``.
        where: the place of a row, for people.
    """
    unix = times[times >= LEAST_UNIX]
    if not len(unix) or unix.max() < APART * float(unix.min()):
        return
    different = np.unique(unix)
    jumps = np.flatnonzero(different[1:] >= APART * different[:-1].astype(np.float64))
    if not len(jumps):
        return
    border = different[jumps[0] + 1]
    small = int(((times >= LEAST_UNIX) & (times < border)).argmax())
    large = int((times >= border).argmax())
    getLogger().warning(
        f"The time in {where(small)}, is {times[small]:.0f}, and in {where(large)}, is "
        f"{times[large]:.0f}: seconds and milliseconds, or other units, seem to be mixed, and then "
        "the order of events is wrong. Write all times in one unit."
    )


def event_order(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Row numbers by user and time; rows of one user at one time keep their order.

    Users stand in the order of their first events.

    Args:
        users: user of each row ``[n]``.
        times: numbers ``[n]``.
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
    :class:`~recbole_genrec.data.rows.exact_times.RankedTimes` keeps.

    Args:
        times: numbers ``[n]``.
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
