"""Times in any common form as seconds since 1970, in UTC."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial

import numpy as np
import pandas as pd

from recbole_genrec.data.files.id_forms import without_point
from recbole_genrec.data.files.times import exact_part, read_time
from recbole_genrec.data.preparation.own.forms import (
    check_zeros,
    form_of_digits,
    seconds_of,
    unsure,
)
from recbole_genrec.data.preparation.own.zones import check_zones, has_zone_name, plain_offset
from recbole_genrec.errors import DataError

UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))
"""Unix times from the first number on are in parts of a second: 1e11 seconds is the year 5138."""

CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
NUMBERED = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d")
NAMED = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y")
DAYS = NUMBERED + NAMED
"""Days by the number or the name of their month, before one of the clocks."""


def read_times(values: Sequence[object], written: str | None = None) -> np.ndarray:
    """Seconds since 1970 of a column; dates without a zone are UTC, positions stay as they are.

    All values of a column must be written in one form, so that their order is sure.

    Args:
        values: numbers, texts, or dates of Python.
        written: form of a text as for Python's ``strptime``; default the form that fits.

    Returns:
        float64 ``[n]``, NaN for cells that are missing or that no form fits.

    Raises:
        DataError: several forms fit and give different times, units are mixed, digits have lost a
            zero, or most times name a zone.
    """
    texts = [_plain(value) for value in values]
    if written is not None:
        check_zeros(texts, written)
        return _by_forms(texts, [written])
    real = [text for text in texts if text is not None]
    if not real:
        return np.full(len(texts), np.nan)
    if _most(real, _is_number):
        return _numbers(texts)
    if _most(real, lambda text: read_time(text) is not None or _iso(text) is not None):
        return np.array([_or_nan(_iso, text) for text in texts])
    if _most(real, lambda text: _mail_date(text) is not None):
        return np.array([_or_nan(_mail_date, text) for text in texts])
    return _by_forms(texts, [day + clock for day in DAYS for clock in CLOCKS])


def finer_ranks(values: Sequence[object]) -> np.ndarray:
    """The order of times that :func:`read_times` makes equal, such as nanoseconds.

    Args:
        values: as of :func:`read_times`.

    Returns:
        int64 ``[n]``; what is written alike has equal ranks.
    """
    texts = [_plain(value) or "" for value in values]
    parts = {text: exact_part(text) for text in set(texts)}
    ranks = {part: rank for rank, part in enumerate(sorted(set(parts.values())))}
    return np.array([ranks[parts[text]] for text in texts], dtype=np.int64)


def _plain(value: object) -> str | None:
    """A cell as text; dates of Python in ISO form, whole numbers without ``.0``."""
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return without_point(text) or None


def _most(texts: Sequence[str], fits: Callable[[str], bool]) -> bool:
    """Whether more than half of the cells are of a form; the others are reported as unreadable."""
    return 2 * sum(map(fits, texts)) > len(texts)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _numbers(texts: Sequence[str | None]) -> np.ndarray:
    """Unix times in any unit, dates written as digits, or positions."""
    real = [text for text in texts if text is not None and _is_number(text)]
    form = form_of_digits(real)
    if form is not None:
        read = partial(seconds_of, form=form)
        return np.array([_or_nan(read, text) for text in texts])
    units = Counter(_unit(text) for text in real if float(text) != 0)
    if len(units) > 1:
        names = " and ".join(sorted(name for name, _ in units))
        raise DataError(
            f"The times mix {names} since 1970, so their order is unsure. Write them in one unit."
        )
    scale = next(iter(units))[1] if units else 1.0
    return np.array([_scaled(text, scale) for text in texts])


def _unit(text: str) -> tuple[str, float]:
    size = abs(float(text))
    for least, scale, name in UNITS:
        if size >= least:
            return name, scale
    return "seconds", 1.0


def _scaled(text: str | None, scale: float) -> float:
    if text is None or not _is_number(text):
        return np.nan
    try:
        return int(text) / scale  # exact also where float64 cannot hold the number
    except ValueError:
        return float(text) / scale


def _iso(text: str) -> float | None:
    """An ISO date in seconds; zones may be written in any of the ISO forms, not by name."""
    seconds = read_time(text)
    if seconds is not None:
        return None if _is_number(text) else seconds
    if not text[:4].isdigit() or "-" not in text[4:8]:
        return None
    cleaned = plain_offset(text)
    if has_zone_name(cleaned):
        return None  # pandas would drop the zone
    try:
        moment = pd.Timestamp(cleaned)
    except (ValueError, OverflowError):
        return None
    if moment is pd.NaT:
        return None
    if moment.tzinfo is None:
        moment = moment.tz_localize("UTC")
    return moment.timestamp()


def _mail_date(text: str) -> float | None:
    """A date as in mails and web logs, ``Fri, 31 May 2024 12:00:00 GMT``."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if "," not in text:
        return None
    if moment.tzinfo is None:
        if re.search("[A-Za-z]", text.split()[-1]) or has_zone_name(text):
            return None  # Python drops PM, GMT+2, and a zone that it does not know
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def _or_nan(read: Callable[[str], float | None], text: str | None) -> float:
    seconds = None if text is None else read(text)
    return np.nan if seconds is None else seconds


def _by_forms(texts: Sequence[str | None], forms: Sequence[str]) -> np.ndarray:
    """The times by one of the forms; names of zones are refused where most cannot be read."""
    times = _with_form(texts, forms)
    real = [(text, time) for text, time in zip(texts, times, strict=True) if text is not None]
    unread = [text for text, time in real if np.isnan(time)]
    if 2 * len(unread) > len(real):
        check_zones(unread)
    return times


def _with_form(texts: Sequence[str | None], forms: Sequence[str]) -> np.ndarray:
    """The times by the form that most cells fit.

    Raises:
        DataError: two forms fit equally well and give different times.
    """
    sample = [text for text in texts if text is not None]
    fitting: list[tuple[int, str, np.ndarray]] = []
    for form in forms:
        if len(forms) > 1 and not any(seconds_of(text, form) is not None for text in sample[:50]):
            continue
        read = partial(seconds_of, form=form)
        times = np.array([_or_nan(read, text) for text in texts])
        count = int(np.isfinite(times).sum())
        if count:
            fitting.append((count, form, times))
    if not fitting:
        return np.full(len(texts), np.nan)
    best = max(count for count, _, _ in fitting)
    chosen = [(form, times) for count, form, times in fitting if count == best]
    form, times = chosen[0]
    for other, other_times in chosen[1:]:
        if not np.array_equal(times, other_times, equal_nan=True):
            raise unsure(sample[0], form, other)
    return times
