"""Item text from the columns of RecBole ``.item`` files.

A generative method needs the plain text once, by item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_genrec.data.files.atomic_files import PLAIN, FileFormat
from recbole_genrec.data.files.cell_values import RESERVED
from recbole_genrec.data.items.item_table import (
    ItemTable,
    item_columns,
    item_file,
    read_item_table,
)
from recbole_genrec.data.items.text_advice import advice_without_fields
from recbole_genrec.errors import DataError
from recbole_genrec.settings.rules import nearest

PLACEHOLDER = "item"
"""Text of an item that has none (STORE's rule)."""

MISSING = RESERVED - {"[PAD]"}
"""Cells that programs write where a value is missing; RecBole takes them for missing too."""
logger = getLogger(__name__)


@dataclass(frozen=True)
class ItemTexts:
    """Texts by RecBole item id, and the file they come from.

    Args:
        texts: of the items; entry 0 is the padding item, ``""``.
        titles: the first field alone, the whole text where it is empty.
        kinds: RecBole's types of the columns that made the texts, by name.
        missing_rows: items without a row.
        empty_texts: items without any text, those included; their text is ``item``.
        duplicate_texts: items whose text an item with a lower id has too.
        table: the file, which counts its odd rows.
    """

    texts: list[str]
    titles: list[str]
    kinds: dict[str, str]
    missing_rows: int
    empty_texts: int
    duplicate_texts: int
    table: ItemTable


def read_item_texts(
    path: str | Path,
    fields: Sequence[str] | str | None,
    tokens: Sequence[str],
    item_field: str = "item_id",
    file_format: FileFormat = PLAIN,
    required: bool = True,
) -> ItemTexts:
    """The text of every item, made of the columns ``fields`` in that order.

    One field gives its value; several give ``field: value, field: value`` without the empty ones
    (STORE's rendering). Words are separated by single spaces; in ``token_seq`` columns ``_`` is a
    space as well (``Hair_Care``). An item without text gets ``item``.

    Args:
        path: the ``.item`` file.
        fields: column names (``item_text_fields``); a single name may be given as a string.
        tokens: raw item ids by RecBole item id; entry 0 is the padding item.
        item_field: name of the item id column.
        file_format: how the file is written.
        required: whether one item at least must have text.

    Raises:
        DataError: no file, no fields, an unknown field, no id column, or not one item has text.
    """
    fields = [fields] if isinstance(fields, str) else list(fields or ())
    _check_named(path, fields, item_field, file_format)
    items = list(tokens[1:])
    table = read_item_table(path, set(items), item_field, file_format)
    _check_columns(path, fields, table, item_field)
    texts = [_render(table.rows.get(item, {}), fields, table.kinds) for item in items]
    filled = [text for text in texts if text]
    if required and not filled:
        raise DataError(
            f"{path}: not one of the {len(items)} items has text in {', '.join(fields)} "
            f"({len(table.rows)} of them have a row; the ids look like "
            f"{', '.join(map(repr, items[:3]))}, those of the file like "
            f"{', '.join(map(repr, table.first_ids))}). Check that .inter and .item use the same "
            "item ids and that the columns hold text."
        )
    titles = [_render(table.rows.get(item, {}), fields[:1], table.kinds) for item in items]
    result = ItemTexts(
        texts=["", *(text or PLACEHOLDER for text in texts)],
        titles=[
            "",
            *(title or text or PLACEHOLDER for title, text in zip(titles, texts, strict=True)),
        ],
        kinds={name: table.kinds[name] for name in fields},
        missing_rows=len(items) - len(table.rows),
        empty_texts=len(items) - len(filled),
        duplicate_texts=len(filled) - len(set(filled)),
        table=table,
    )
    _log(path, result, file_format.encoding)
    return result


def has_item_texts(config: Any) -> bool:
    """Whether the settings name columns of the ``.item`` file for texts, and the file is there."""
    return bool(config.settings.item_text_fields) and item_file(config).is_file()


def read_texts_of(config: Any, tokens: Sequence[str], required: bool = True) -> ItemTexts:
    """The texts of items from the ``.item`` file of a run, see :func:`read_item_texts`.

    Args:
        config: a ``GenRecConfig``.
        tokens: raw item ids; entry 0 is the padding item.
        required: whether one item at least must have text.
    """
    return read_item_texts(
        item_file(config),
        config.settings.item_text_fields,
        tokens,
        config.settings.ITEM_ID_FIELD,
        FileFormat.of(config),
        required,
    )


def texts_of(config: Any, items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts and titles of items from the ``.item`` file, empty where an item has none.

    Args:
        config: a ``GenRecConfig``.
        items: raw ids.
    """
    if not has_item_texts(config):
        return [""] * len(items), [""] * len(items)
    read = read_texts_of(config, ["", *items], required=False)
    texts = ["" if text == PLACEHOLDER else text for text in read.texts[1:]]
    return texts, read.titles[1:]


def check_texts_of(config: Any) -> None:
    """Check that the settings of a run name columns that the header of its ``.item`` file has.

    Args:
        config: a ``GenRecConfig``.

    Raises:
        DataError: no fields, no file, or an unknown field.
    """
    path, file_format = item_file(config), FileFormat.of(config)
    fields, item_field = config.settings.item_text_fields or [], config.settings.ITEM_ID_FIELD
    _check_named(path, fields, item_field, file_format)
    _check_columns(path, fields, ItemTable(item_columns(path, file_format)), item_field)


def _check_named(
    path: str | Path, fields: list[str], item_field: str, file_format: FileFormat
) -> None:
    """:class:`DataError` where no columns are named."""
    if not fields:
        advice = advice_without_fields(path, item_field, file_format)
        raise DataError(f"`item_text_fields` is not set, so items have no texts. {advice}")


def _check_columns(path: str | Path, fields: list[str], table: ItemTable, item_field: str) -> None:
    """:class:`DataError` where one of the fields is no column of the file."""
    for name in fields:
        if name not in table.kinds:
            near = nearest(name, [column for column in table.kinds if column != item_field])
            hint = f"; did you mean `{near[0]}`?" if near else "."
            raise DataError(
                f"`item_text_fields` names `{name}`, which is no column of {path}. Its columns are "
                f"{', '.join(table.kinds)}{hint}"
            )


def _render(row: dict[str, str], fields: list[str], kinds: dict[str, str]) -> str:
    values = {}
    for name in fields:
        value = row.get(name, "")
        if value.strip() in MISSING:
            value = ""
        if kinds[name] == "token_seq":
            value = value.replace("_", " ")
        values[name] = " ".join(value.split())
    if len(fields) == 1:
        return values[fields[0]]
    return ", ".join(f"{name}: {value}" for name, value in values.items() if value)


def _missing_values(result: ItemTexts) -> int:
    """Number of cells of the texts that hold the name of a missing value."""
    rows = result.table.rows.values()
    return sum(row[name].strip() in MISSING for row in rows for name in result.kinds)


def render_item_text(
    cells: dict[str, str], fields: list[str], kinds: dict[str, str] | None = None
) -> str:
    """The text of one item outside the ``.item`` file, as :func:`read_item_texts` makes it.

    Args:
        cells: plain text by column; a missing column is empty.
        fields: columns of the text, in order.
        kinds: RecBole's types of the columns; those that are not known count as ``token_seq``.
    """
    return _render(cells, fields, {**dict.fromkeys(fields, "token_seq"), **(kinds or {})})


def _shown(encoding: str) -> str:
    return "UTF-8" if encoding.lower() in ("utf-8", "utf8") else encoding


def _log(path: str | Path, result: ItemTexts, encoding: str) -> None:
    """Warn where something is wrong with the file; tell where texts are merely equal."""
    table = result.table
    wrong = {
        f"items without text (they become `{PLACEHOLDER}`)": result.empty_texts,
        "items without a row": result.missing_rows,
        "repeated rows (the first wins)": table.duplicate_rows,
        "short rows": table.short_rows,
        "long rows": table.long_rows,
        "quotes that open a cell and do not close it": table.stray_quotes,
        f"characters that are not {_shown(encoding)} (--encoding names the encoding)": (
            table.replaced_characters
        ),
        "cells such as nan or NULL, which count as empty": _missing_values(result),
    }
    met = [f"{count} {what}" for what, count in wrong.items() if count]
    if met:
        logger.warning("%s: %s", path, "; ".join(met))
    if result.duplicate_texts:
        logger.info("%s: %d items share their text with another item", path, result.duplicate_texts)
