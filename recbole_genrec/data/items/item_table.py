"""RecBole ``.item`` files, read without RecBole's vocabularies.

RecBole splits ``token_seq`` columns into ids and joins them into every batch. Here the cells stay
as they are. Bad bytes are replaced and counted, malformed rows are tolerated and counted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from recbole_genrec.data.files.atomic_files import PLAIN, AtomicFile, FileFormat
from recbole_genrec.data.files.cells import OPEN, TRAILING
from recbole_genrec.data.files.headers import header_kinds
from recbole_genrec.data.known_datasets import RECIPES
from recbole_genrec.errors import DataError

NO_TEXT_NEEDED = (
    "or choose what needs no item text: with --item_text_fields=~ the models TokenRec and MetaID, "
    "or TIGER, LCRec and TimelineRec with --tokenizer=cid"
)


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


def read_item_table(
    path: str | Path,
    only: Collection[str] | None = None,
    item_field: str = "item_id",
    file_format: FileFormat = PLAIN,
) -> ItemTable:
    """Read an atomic ``.item`` file, keeping the rows of the raw item ids ``only``.

    The first row of an id wins. NUL bytes, a byte order mark and carriage returns are removed;
    empty lines are skipped; missing cells are empty and surplus cells ignored.

    Args:
        path: the file.
        only: raw item ids whose rows are kept, None for all.
        item_field: name of the column of item ids.
        file_format: how the file is written.

    Raises:
        DataError: the file is missing, empty, has no item id column, or most rows are too long.
    """
    path = Path(path)
    _check_there(path)
    file = AtomicFile(path, file_format)
    table = ItemTable(header_kinds(file))
    if item_field not in table.kinds:
        raise DataError(
            f"{path}: line {file.header_line} has no item id column `{item_field}:token`; its "
            f"columns are {', '.join(table.kinds)}. Name yours with --ITEM_ID_FIELD, and what "
            "stands between the columns with --field_separator."
        )
    count = _read_rows(file, table, item_field, only)
    if 2 * table.long_rows > count:
        raise DataError(
            f"{path}: {table.long_rows} of {count} rows have more cells than the "
            f"{len(table.kinds)} of the header. Is {file.separator!r} what stands between the "
            "columns (--field_separator)? Cells that hold it need double quotes."
        )
    table.replaced_characters = file.replaced_characters
    return table


def _check_there(path: Path) -> None:
    """:class:`DataError` where there is no file ``path``."""
    if path.is_file():
        return
    make = ""
    if path.stem in RECIPES:
        make = f"make it with `recbole-genrec prepare {path.stem}`, "
    raise DataError(
        f"There is no item file {path}. Point --data_path at the folder that holds "
        f"{path.parent.name}/{path.name}, {make}{NO_TEXT_NEEDED}."
    )


def _read_rows(
    file: AtomicFile, table: ItemTable, item_field: str, only: Collection[str] | None
) -> int:
    """Put the rows of the file into the table, and count what is odd.

    Args:
        file: the file, behind its header.
        table: with its columns.
        item_field: name of the column of item ids.
        only: raw item ids whose rows are kept, None for all.

    Returns:
        Number of rows that are not empty.
    """
    columns = list(table.kinds)
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
    return count


def item_file(config) -> Path:
    """The ``.item`` file of a run (RecBole's ``data_path`` ends in the dataset's folder)."""
    return Path(config.settings.data_path) / f"{config.settings.dataset}.item"


def item_columns(path: str | Path, file_format: FileFormat = PLAIN) -> dict[str, str]:
    """RecBole's type of each column of an ``.item`` file, by name; its rows are not read.

    Args:
        path: the file.
        file_format: how the file is written.

    Raises:
        DataError: the file is missing, or its header cannot be read.
    """
    path = Path(path)
    _check_there(path)
    return header_kinds(AtomicFile(path, file_format))


def item_file_ids(config) -> list[str]:
    """Raw ids of all rows of the ``.item`` file.

    Raises:
        DataError: see :func:`read_item_table`.
    """
    item_field = config.settings.ITEM_ID_FIELD
    table = read_item_table(item_file(config), None, item_field, FileFormat.of(config))
    return [item for item in table.rows if item]
