"""Which columns of a user's tables make the item text: as named, or those that hold words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from recbole_genrec.data.preparation.own.columns import (
    ITEMS,
    TEXTS,
    USERS,
    Columns,
    check_named,
    plain_name,
)
from recbole_genrec.data.preparation.own.tables import Table, ids_of, text_of

ID_WORDS = (
    *("id", "ids", "sku", "skus", "code", "codes", "barcode", "asin", "asins", "ean", "gtin"),
    *("upc", "isbn", "mpn", "uuid", "guid", "hash", "url", "urls", "uri", "href"),
)
"""Last words of the names of columns that hold ids or addresses."""

ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//|www\.|.+\.(?:jpe?g|png|gif|webp|svg)$", re.I)
"""A word that is an address, or the name of a picture."""

SAMPLE = 100
"""Cells of a table that show what a column holds."""

NEARLY_ALL = 0.9


def text_columns(
    tables: Sequence[Table], columns: Columns, taken: set[str], event_item: str | None = None
) -> list[str]:
    """The columns that make the item text; the others are named among the guesses.

    Args:
        tables: those that describe items.
        columns: what was named.
        taken: columns that mean something else.
        event_item: the column of items where the tables hold interactions; then a column describes
            items only if it has one value an item.

    Raises:
        DataError: a named column is in none of the tables.
    """
    if columns.texts is not None:
        _check_texts(tables, columns, columns.texts, event_item)
        return columns.texts
    names = _names(tables)
    free = [name for name in names if name not in taken]
    reasons: dict[str, str | None] = {}
    plain = {plain_name(name): name for name in reversed(free)}
    common = [plain[name] for name in TEXTS if name in plain]
    for name in common:
        reasons[name] = _addresses(tables, name) or _of_single_events(tables, name, event_item)
    texts = [name for name in common if reasons[name] is None]
    if not texts:
        for name in free:
            reasons[name] = reasons.get(name) or _why_no_text(tables, name, event_item)
        texts = [name for name in free if reasons[name] is None]
    if texts:
        listed = ",".join(texts)
        columns.guesses.append(f"text: {listed} (guessed; --text names others)")
    _say_left_out({name: reasons.get(name) for name in free if name not in texts}, columns)
    return texts


def _names(tables: Sequence[Table]) -> list[str]:
    """The columns of all tables, each once."""
    return list(dict.fromkeys(name for table in tables for name in table.frame.columns))


def _check_texts(
    tables: Sequence[Table], columns: Columns, texts: Sequence[str], event_item: str | None
) -> None:
    """Refuse named columns that are in no table; say which have several values an item."""
    for name in texts:
        if name not in _names(tables):
            check_named(tables[0], name, "text")
        if event_item is None:
            continue
        several = _several_values(_values_by_item(tables, name, event_item))
        if several is not None:
            columns.guesses.append(f"text: {name} has {several}; the first of them counts")


def _say_left_out(reasons: dict[str, str | None], columns: Columns) -> None:
    """Name the columns that were not taken, so that people can take them."""
    if not reasons:
        return
    listed = ", ".join(f"{name} ({why})" if why else name for name, why in reasons.items())
    columns.guesses.append(f"not in the item text: {listed}; --text=COLUMN,... takes columns in")


def _why_no_text(tables: Sequence[Table], name: str, event_item: str | None) -> str | None:
    """Why a column whose name says nothing is no item text; ``None`` where it may be one."""
    cells = _sample(tables, name)
    if not any(re.search(r"[^\W\d_]{2}", cell) for cell in cells):
        return "no words"
    why = _addresses(tables, name)
    if why is not None:
        return why
    if _named_as_id(name) or _nearly_all(bool(re.fullmatch(r"\S*\d\S*", cell)) for cell in cells):
        return "ids"
    return _of_single_events(tables, name, event_item)


def _addresses(tables: Sequence[Table], name: str) -> str | None:
    cells = _sample(tables, name)
    found = _nearly_all(all(ADDRESS.match(word) for word in cell.split()) for cell in cells)
    return "addresses" if found else None


def _named_as_id(name: str) -> bool:
    """Whether a column is called as ids are; ``product`` alone may well be a name."""
    words = plain_name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).split("_")
    plain = plain_name(name)
    return words[-1] in ID_WORDS or (plain in (*ITEMS, *USERS) and plain.endswith("id"))


def _of_single_events(tables: Sequence[Table], name: str, event_item: str | None) -> str | None:
    """Why a column of interactions does not describe their items; ``None`` where it may do so."""
    if event_item is None:
        return None
    values = _values_by_item(tables, name, event_item)
    if len(values) > 1 and len(set.union(*values.values())) == 1:
        return "the same for all items"
    return _several_values(values)


def _several_values(values: dict[str, set[str]]) -> str | None:
    """How many items have several values in a column; ``None`` where none has."""
    several = sum(len(found) > 1 for found in values.values())
    return f"several values in {several:,} of {len(values):,} items" if several else None


def _values_by_item(tables: Sequence[Table], name: str, item: str) -> dict[str, set[str]]:
    """The different cells of a column by item id; empty ones do not count."""
    values: dict[str, set[str]] = {}
    for table in tables:
        if name not in table.frame:
            continue
        ids = ids_of(table, item, "item")
        for key, cell in zip(ids, table.frame[name].tolist(), strict=True):
            value = text_of(cell)
            if key is not None and value is not None:
                values.setdefault(key, set()).add(value)
    return values


def _sample(tables: Sequence[Table], name: str) -> list[str]:
    """The first cells of a column that are not empty."""
    cells: list[str] = []
    for table in tables:
        if name in table.frame:
            texts = (text_of(cell) for cell in table.frame[name].dropna()[:SAMPLE])
            cells += [text for text in texts if text is not None]
    return cells


def _nearly_all(fits: Iterable[bool]) -> bool:
    """Whether nearly all of some cells are of a form."""
    found = list(fits)
    return bool(found) and sum(found) >= NEARLY_ALL * len(found)
