"""Keys as text for people: what ``recbole-genrec keys`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from recbole_genrec.settings.declaration import DECLARED, GIVEN, REQUIRED, Key

WIDEST = 28
"""Columns are at most this wide; a longer value moves the rest of its line."""
INDENT = "    "


def listed(
    title: str, keys: Iterable[Key], values: Mapping[str, object], places: Mapping[str, str]
) -> str:
    """A heading and two lines a key: name, value, what it affects, place; then help and range.

    Args:
        title: the heading.
        keys: the declarations, in order.
        values: by name; a key without one is not set.
        places: where the value stands, by name; without an entry, the declaration has the default.
    """
    rows = [_row(declared, values, places) for declared in keys]
    columns = list(zip(*rows, strict=True))
    widths = [_width(column) for column in columns[:3]]
    lines = [title, ""]
    for declared, row in zip(keys, rows, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]))
        lines.append(f"{INDENT}{_explained(declared)}")
    return "\n".join(lines)


def _row(
    declared: Key, values: Mapping[str, object], places: Mapping[str, str]
) -> tuple[str, str, str, str]:
    name = declared.name
    default = None
    place = "not set"
    if declared.default is not REQUIRED:
        default = declared.default
        place = declared.place

    place = places.get(name, place)
    if place == DECLARED:
        place = declared.place
    if place.endswith(".yaml") or ".yaml, " in place:
        place = f"properties/{place}"
    return name, _shown(values.get(name, default)), ", ".join(declared.affects), place


def _shown(value: object) -> str:
    return "~" if value is None else str(value)


def _width(cells: Sequence[str]) -> int:
    return min(WIDEST, max(map(len, cells)))


def _explained(declared: Key) -> str:
    text = f"{declared.help} [{declared.range_text}]"
    if declared.only_if is not None:
        switch, setting = declared.only_if
        text += f"; only with {switch}"
        if setting is not GIVEN:
            text += f": {setting}"
    return text
