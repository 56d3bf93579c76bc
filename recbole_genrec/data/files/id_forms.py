"""Ids that are one to people and two to programs, which take them as they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from recbole_genrec.errors import DataError

_WITH_POINT = re.compile(r"^(\d+)\.0+$")
_WHOLE_NUMBER = re.compile(r"0*(\d+?)(?:\.0+)?")


def check_spaces(names: Iterable[str], column: str, where: Callable[[str], str]) -> None:
    """Refuse ids that differ from others in spaces around them alone.

    Args:
        names: ids, in the order of the files.
        column: where they stand, for the message.
        where: gives file and line of the first place of an id.

    Raises:
        DataError: names the first such id.
    """
    ids = dict.fromkeys(names)
    spaced = [name for name in ids if name != name.strip() and name.strip() in ids]
    if not spaced:
        return
    name = spaced[0]
    raise DataError(
        f"{where(name)}: {name!r} and {name.strip()!r} in {column!r} differ in "
        f"spaces alone and would be two ids, as {len(spaced)} names of this column. Remove the "
        "spaces."
    )


def without_point(text: str) -> str:
    """``7`` for ``7.0``, as columns with missing cells write whole numbers; other text as it is."""
    return _WITH_POINT.sub(r"\1", text)


def plain_number(name: str) -> str:
    """A whole number without zeros before and behind it: ``15`` for ``0015`` and ``15.0``.

    Args:
        name: an id; what is no such number stays as it is.
    """
    number = _WHOLE_NUMBER.fullmatch(name)
    return number[1] if number else name
