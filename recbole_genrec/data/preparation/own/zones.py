"""Names of time zones, which do not say for sure how far from UTC they are."""

from __future__ import annotations

import re
from calendar import day_abbr, day_name, month_abbr, month_name
from collections.abc import Sequence

from recbole_genrec.errors import DataError

WORDS = {"t", "z", "utc", "gmt", "am", "pm", "a.m.", "p.m."}
WORDS |= {word.lower() for words in (day_abbr, day_name, month_abbr, month_name) for word in words}
"""Words of a date that mean the same everywhere."""

_WORD = re.compile(r"[A-Za-z][A-Za-z./_]*")
_UTC = re.compile(r"\s*(?:UTC|GMT)(?=[+-]\d|$)")
_OFFSET_AND_NAME = re.compile(r"(:\d\d[.\d]*\s*[+-]\d\d:?\d\d)\s*(?:\(.*\)|\[.*\]|[A-Z]{2,5})$")
_CLOCK = re.compile(r"\d:\d\d|T\d\d")


def has_zone_name(text: str) -> bool:
    """Whether a date holds a word that is neither part of a date nor UTC."""
    return any(word.lower() not in WORDS for word in _WORD.findall(text))


def plain_offset(text: str) -> str:
    """A date with its distance from UTC alone: ``+0200 (CEST)`` as ``+0200``, ``UTC+2`` as ``+2``.

    A date that ends with ``UTC`` or ``GMT`` loses it; without a distance it is UTC.
    """
    return _UTC.sub("", _OFFSET_AND_NAME.sub(r"\1", text))


def check_zones(texts: Sequence[str]) -> None:
    """Refuse times with the name of a zone.

    Args:
        texts: times that cannot be read.

    Raises:
        DataError: names the first one.
    """
    for text in texts:
        clock = _CLOCK.search(text)
        words = _WORD.findall(text[clock.start() :]) if clock else []
        unknown = [word for word in words if word.lower() not in WORDS]
        if unknown:
            raise DataError(
                f"The times, like {text!r}, cannot be read: {unknown[0]!r} does not say for sure "
                "how far from UTC it is. Write the distance, as in '2024-05-31 01:00-05:00', or "
                "write all times in UTC."
            )
