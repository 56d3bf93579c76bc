"""Forms of dates as for Python's ``strptime``, and the one that a column of digits is in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from itertools import chain

from recbole_genrec.data.preparation.own.zones import has_zone_name
from recbole_genrec.errors import DataError

DIGIT_CLOCKS = {8: "", 12: "%H%M", 14: "%H%M%S"}
"""The clock behind a date that is written as digits alone, by the length of both."""

YEARS = (1900, 2200)
"""The first and the last year of a date."""


def seconds_of(text: str, form: str) -> float | None:
    """A text of one form in seconds; ``None`` where the form does not fit, or no such day.

    A form of digits alone needs all of them: ``strptime`` would take ``1022024`` for the 10th of
    February.
    """
    width = width_of(form)
    if width is not None and len(text) != width:
        return None
    if "%Z" in form and has_zone_name(text):
        return None  # Python would drop the zone
    try:
        day = datetime.strptime(text, form)
    except ValueError:
        return None
    if not YEARS[0] <= day.year <= YEARS[1]:
        return None
    if day.tzinfo is None:
        day = day.replace(tzinfo=timezone.utc)
    return day.timestamp()


@cache
def width_of(form: str) -> int | None:
    """How many digits a form of digits alone has; ``None`` for another form."""
    if not re.fullmatch(r"(?:%[dmYyHIMS])+", form):
        return None
    return len(form) + 2 * form.count("%Y")


def form_of_digits(texts: Sequence[str]) -> str | None:
    """The form of dates that are written as digits alone.

    Args:
        texts: the numbers of a column, at least one.

    Returns:
        The form that fits all of them; ``None`` where they are other numbers.

    Raises:
        DataError: most of them are dates, but their order is unsure.
    """
    widths = {len(text) for text in texts}
    if widths.isdisjoint(DIGIT_CLOCKS) and widths.isdisjoint(width - 1 for width in DIGIT_CLOCKS):
        return None
    readings = [_forms_of(text) for text in texts]
    shortened = [text for text in texts if _lost_a_zero(text)]
    dates = sum(map(bool, readings)) + len(shortened)
    if 2 * dates <= len(texts):
        return None
    if shortened:
        raise _lost_zero(shortened[0])

    counts = Counter(chain.from_iterable(readings))
    fitting = [form for form, count in counts.items() if count == len(texts)]
    if len(fitting) > 1:
        _check_equal(texts, fitting[0], fitting[1])
    if fitting:
        return fitting[0]
    year_first = all(form.startswith("%Y") for form in counts)
    if year_first and len(widths) == 1:
        return None  # the numbers stand in the order of the days, whatever the others are
    listed = ", ".join(f"{count:,} as {form}" for form, count in counts.items())
    raise DataError(
        f"The times are digits, like {texts[0]!r}, but no form of dates fits all {len(texts):,} of "
        f"them ({listed}), so their order is unsure. Write them in one form, or say which counts: "
        f"--time_format={counts.most_common(1)[0][0]!r} drops the rows that it does not fit."
    )


def check_zeros(texts: Sequence[str | None], form: str) -> None:
    """Refuse dates that have lost the zero in front, where a form of digits alone is named.

    Args:
        texts: cells of a column.
        form: as the user gave it.

    Raises:
        DataError: names the first one.
    """
    width = width_of(form)
    if width is None:
        return
    for text in texts:
        short = text is not None and text.isdecimal() and len(text) == width - 1
        if short and seconds_of(f"0{text}", form) is not None:
            raise _lost_zero(str(text))


def unsure(text: str, form: str, other: str) -> DataError:
    """The error about times that two forms fit.

    Args:
        text: one of the times.
        form: one reading.
        other: the other one.
    """
    return DataError(
        f"The times, like {text!r}, can be read as {form} and as {other}. Say which: "
        f"--time_format={form!r}."
    )


def _forms_of(text: str) -> tuple[str, ...]:
    """The forms of digits alone that fit a text."""
    clock = DIGIT_CLOCKS.get(len(text))
    if clock is None or not text.isdecimal():
        return ()
    forms: tuple[str, ...] = ()
    if _is_year(text[:4]):
        forms += (f"%Y%m%d{clock}",)
    if _is_year(text[4:8]):
        forms += (f"%d%m%Y{clock}", f"%m%d%Y{clock}")
    return tuple(form for form in forms if seconds_of(text, form) is not None)


def _is_year(digits: str) -> bool:
    return YEARS[0] <= int(digits) <= YEARS[1]


def _lost_a_zero(text: str) -> bool:
    """Whether a zero in front makes a text a date."""
    return len(text) + 1 in DIGIT_CLOCKS and bool(_forms_of(f"0{text}"))


def _lost_zero(text: str) -> DataError:
    return DataError(
        f"The time {text!r} has {len(text)} digits; with a zero in front it is a date. Columns of "
        f"numbers lose this zero. Write '0{text}', or all times as ISO dates such as 2024-05-31."
    )


def _check_equal(texts: Sequence[str], form: str, other: str) -> None:
    """Refuse two forms that give different times."""
    for text in texts:
        if seconds_of(text, form) != seconds_of(text, other):
            raise unsure(text, form, other)
