"""Item text from RecBole ``.item`` files, read without RecBole's vocabularies.

RecBole splits ``token_seq`` columns into ids and joins them into every batch. A generative method
needs the plain text once, by item, so it is read here. Bad bytes are replaced and counted,
malformed rows are tolerated and counted.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path

from recbole_genrec.data.atomic_files import AtomicFile, FileFormat
from recbole_genrec.data.cells import OPEN, TRAILING
from recbole_genrec.data.inter_files import RESERVED
from recbole_genrec.data.preparation.recipes import RECIPES
from recbole_genrec.errors import DataError

PLACEHOLDER = "item"
"""Text of an item that has none (STORE's rule)."""

_NO_TEXT_NEEDED = (
    "or choose what needs no item text (--tokenizer=cid; --tokenizer_input=cf for codes of vectors)"
)
MISSING = RESERVED - {"[PAD]"}
"""Cells that programs write where a value is missing; RecBole takes them for missing too."""
logger = getLogger(__name__)


@dataclass
class ItemTable:
    """An ``.item`` file.

    Args:
        kinds: RecBole's type of each column, by name.
        rows: one cell a column, by raw item id.
        duplicate_rows: further rows of an id.
        short_rows: rows with too few cells.
        long_rows: rows with too many.
        stray_quotes: rows with a quote that opens a cell and does not close it.
        replaced_characters: bytes that are not of the encoding.
        first_ids: the first ids of the file, for messages.
    """

    kinds: dict[str, str]
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    duplicate_rows: int = 0
    short_rows: int = 0
    long_rows: int = 0
    stray_quotes: int = 0
    replaced_characters: int = 0
    first_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ItemTexts:
    """Texts by RecBole item id (entry 0 is the padding item, ``""``) and what the file was like.

    ``titles``: the first field alone, the whole text where it is empty.
    ``missing_rows``: items without a row; ``empty_texts``: items without any text, those included
    (their text is ``item``); ``duplicate_texts``: items whose text an item with a lower id has too;
    the rest counts rows and characters of the file.
    """

    texts: list[str]
    titles: list[str]
    missing_rows: int
    empty_texts: int
    duplicate_texts: int
    duplicate_rows: int
    short_rows: int
    long_rows: int
    stray_quotes: int
    replaced_characters: int
    missing_values: int = 0
    encoding: str = "utf-8"


def read_item_table(
    path: str | Path,
    only: Collection[str] | None = None,
    item_field: str = "item_id",
    separator: str = "\t",
    encoding: str = "utf-8",
) -> ItemTable:
    """Read an atomic ``.item`` file, keeping the rows of the raw item ids ``only``.

    The first row of an id wins. NUL bytes, a byte order mark and carriage returns are removed;
    empty lines are skipped; missing cells are empty and surplus cells ignored.

    Args:
        path: the file.
        only: raw item ids whose rows are kept, None for all.
        item_field: name of the column of item ids.
        separator: what stands between columns.
        encoding: of the file.

    Raises:
        DataError: the file is missing, empty, has no item id column, or most rows are too long.
    """
    path = Path(path)
    if not path.is_file():
        make = ""
        if path.stem in RECIPES:
            make = f"make it with `recbole-genrec prepare {path.stem}`, "
        raise DataError(
            f"There is no item file {path}. Point --data_path at the folder that holds "
            f"{path.parent.name}/{path.name}, {make}{_NO_TEXT_NEEDED}."
        )
    file = AtomicFile(path, FileFormat(separator, encoding))
    table = ItemTable(_parse_header(file))
    columns = list(table.kinds)
    if item_field not in table.kinds:
        raise DataError(
            f"{path}: line {file.header_line} has no item id column `{item_field}:token`; its "
            f"columns are {', '.join(columns)}. Name yours with --ITEM_ID_FIELD, and what stands "
            "between the columns with --field_separator."
        )
    key = columns.index(item_field)
    count = 0
    for row in file.rows():
        cells = [cell.replace("\0", "") for cell in row.cells]
        if not any(cell.strip() for cell in cells):
            continue
        count += 1
        table.short_rows += len(cells) < len(columns)
        table.long_rows += len(cells) > len(columns)
        table.stray_quotes += row.problem in (OPEN, TRAILING)
        cells += [""] * (len(columns) - len(cells))
        item = file.id(cells[key])
        if len(table.first_ids) < 3:
            table.first_ids.append(item)
        if only is not None and item not in only:
            continue
        if item in table.rows:
            table.duplicate_rows += 1
            continue
        table.rows[item] = dict(zip(columns, map(file.text, cells), strict=False))
    if 2 * table.long_rows > count:
        raise DataError(
            f"{path}: {table.long_rows} of {count} rows have more cells than the {len(columns)} of "
            f"the header. Is {separator!r} what stands between the columns (--field_separator)? "
            "Cells that hold it need double quotes."
        )
    table.replaced_characters = file.replaced_characters
    return table


def item_file(config) -> Path:
    """The ``.item`` file of a run (RecBole's ``data_path`` ends in the dataset's folder)."""
    return Path(config.settings.data_path) / f"{config.settings.dataset}.item"


def item_file_ids(config) -> list[str]:
    """Raw ids of all rows of the ``.item`` file.

    Raises:
        DataError: see :func:`read_item_table`.
    """
    file_format = FileFormat.of(config)
    table = read_item_table(
        item_file(config),
        None,
        config.settings.ITEM_ID_FIELD,
        file_format.separator,
        file_format.encoding,
    )
    return [item for item in table.rows if item]


def _parse_header(file: AtomicFile) -> dict[str, str]:
    """``name:type`` cells to ``{name: type}``; a cell without a type is a token."""
    kinds: dict[str, str] = {}
    for cell in file.columns:
        name, _, kind = cell.strip().partition(":")
        if name in kinds:
            raise DataError(
                f"{file.path}, line {file.header_line}: there are several columns {name!r}. Rename "
                "one."
            )
        kinds[name] = kind or "token"
    return kinds


def read_item_texts(
    path: str | Path,
    fields: Sequence[str] | str | None,
    tokens: Sequence[str],
    item_field: str = "item_id",
    separator: str = "\t",
    encoding: str = "utf-8",
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
        separator: what stands between columns (``field_separator``).
        encoding: of the file (``encoding``).
        required: whether one item at least must have text.

    Raises:
        DataError: no file, no fields, an unknown field, no id column, or not one item has text.
    """
    fields = [fields] if isinstance(fields, str) else list(fields or ())
    if not fields:
        missing = "" if Path(path).is_file() else ", a file that does not exist"
        raise DataError(
            f"`item_text_fields` is not set, so no item text can be made from {path}{missing}. "
            f"Name its columns, e.g. `item_text_fields: [title, categories]`, {_NO_TEXT_NEEDED}."
        )
    items = list(tokens[1:])
    table = read_item_table(path, set(items), item_field, separator, encoding)
    for name in fields:
        if name not in table.kinds:
            near = difflib.get_close_matches(name, table.kinds, n=1, cutoff=0.0)[0]
            raise DataError(
                f"`item_text_fields` names `{name}`, which is no column of {path}. Its columns are "
                f"{', '.join(table.kinds)}; did you mean `{near}`?"
            )
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
        missing_rows=len(items) - len(table.rows),
        empty_texts=len(items) - len(filled),
        duplicate_texts=len(filled) - len(set(filled)),
        duplicate_rows=table.duplicate_rows,
        short_rows=table.short_rows,
        long_rows=table.long_rows,
        stray_quotes=table.stray_quotes,
        replaced_characters=table.replaced_characters,
        missing_values=_missing_values(table, fields),
        encoding=encoding,
    )
    _log(path, result)
    return result


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


def _missing_values(table: ItemTable, fields: list[str]) -> int:
    """Number of cells of these columns that hold the name of a missing value."""
    rows = table.rows.values()
    return sum(row[name].strip() in MISSING for row in rows for name in fields)


def render_item_text(cells: dict[str, str], fields: list[str]) -> str:
    """The text of one item outside the ``.item`` file, as :func:`read_item_texts` makes it.

    Args:
        cells: plain text by column; a missing column is empty.
        fields: columns of the text, in order.
    """
    return _render(cells, fields, dict.fromkeys(fields, "token_seq"))


def _shown(encoding: str) -> str:
    return "UTF-8" if encoding.lower() in ("utf-8", "utf8") else encoding


def _log(path: str | Path, result: ItemTexts) -> None:
    """Warn where something is wrong with the file; tell where texts are merely equal."""
    wrong = {
        f"items without text (they become `{PLACEHOLDER}`)": result.empty_texts,
        "items without a row": result.missing_rows,
        "repeated rows (the first wins)": result.duplicate_rows,
        "short rows": result.short_rows,
        "long rows": result.long_rows,
        "quotes that open a cell and do not close it": result.stray_quotes,
        f"characters that are not {_shown(result.encoding)} (--encoding names the encoding)": (
            result.replaced_characters
        ),
        "cells such as nan or NULL, which count as empty": result.missing_values,
    }
    met = [f"{count} {what}" for what, count in wrong.items() if count]
    if met:
        logger.warning("%s: %s", path, "; ".join(met))
    if result.duplicate_texts:
        logger.info("%s: %d items share their text with another item", path, result.duplicate_texts)
