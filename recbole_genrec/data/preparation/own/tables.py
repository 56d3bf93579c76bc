"""Tables of users: CSV, TSV and other separated texts, Parquet, JSON lines."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_genrec.data.files.atomic_files import TYPES, AtomicFile, FileFormat
from recbole_genrec.data.files.cells import split_quoted
from recbole_genrec.data.vectors.vector_tables import PARQUET
from recbole_genrec.errors import DataError

SEPARATORS = ("\t", ",", ";", "|")
JSON_LINES = (".jsonl", ".ndjson", ".json")
NO_IDS = (
    ((list, tuple, set, np.ndarray), "Write one {role} a row; explode the list first."),
    ((dict,), "Write the id of the {role} into a column of its own."),
    ((bytes,), "Write the ids as texts."),
    ((bool, np.bool_), "Name the column of ids with --{role}."),
)
"""Cells that are no ids, and what to do."""

NO_OBJECT = "malformed row (no JSON object)"
PACKED = (".xlsx", ".xls", ".ods", ".gz", ".zip", ".bz2", ".xz", ".zst")


@dataclass(eq=False)
class Table:
    """A file of the user's.

    Attributes:
        path: the file.
        frame: its columns as objects; missing cells are ``None``.
        lines: the line of each row in the file, or its number, from 1.
        dropped: rows that could not be read, by reason.
        examples: the first such line of each reason.
    """

    path: Path
    frame: pd.DataFrame
    lines: np.ndarray
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


def read_table(path: Path, encoding: str = "utf-8", separator: str | None = None) -> Table:
    """Read a file by its ending; anything but Parquet and JSON lines is separated text.

    Args:
        path: the file.
        encoding: of a text file.
        separator: what stands between columns; default as the first line shows.

    Raises:
        DataError: the file is missing or empty, is not what its ending says, or more than half of
            its rows cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    ending = path.suffix.lower()
    if ending in PACKED:
        raise DataError(
            f"{path} is a packed file or a workbook. Unpack it, or save the sheet as CSV."
        )
    if ending in PARQUET:
        return _read_parquet(path)
    if ending in JSON_LINES:
        table = _read_json_lines(path, encoding)
    else:
        table = _read_text(path, encoding, separator)
    _refuse_mostly_malformed(table)
    return table


def _refuse_mostly_malformed(table: Table) -> None:
    """Check that at least half of the rows of a file can be read.

    Raises:
        DataError: names the most frequent fault.
    """
    dropped = table.dropped.total()
    if dropped > len(table.frame):
        reason = table.dropped.most_common(1)[0][0]
        raise DataError(
            f"{dropped:,} of {dropped + len(table.frame):,} rows of {table.path} cannot be read: "
            f"{reason}. The first: {table.examples[reason]}"
        )


def _read_text(path: Path, encoding: str, separator: str | None) -> Table:
    file = AtomicFile(path, FileFormat(separator or _separator_of(path, encoding), encoding))
    names = [_without_type(name) for name in file.columns]
    _refuse_repeated(names, f"{path}, line {file.header_line}")
    rows: list[list[str | None]] = []
    lines = []
    table = Table(path, pd.DataFrame(), np.zeros(0))
    for row in file.rows():
        problem = row.problem
        if problem is None and len(row.cells) != len(names):
            problem = f"it has {len(row.cells)} cells, the header has {len(names)}"
        if problem is not None:
            reason = f"malformed row ({problem.rstrip('.')})"
            table.dropped[reason] += 1
            shown = file.separator.join(row.cells)[:80]
            table.examples.setdefault(reason, f"{path.name}, line {row.line}: {shown}")
            continue
        rows.append([file.text(cell).replace("\0", "") or None for cell in row.cells])
        lines.append(row.line)
    table.frame = pd.DataFrame(rows, columns=names, dtype=object)
    table.lines = np.array(lines, dtype=np.int64)
    return table


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    """Check that no two columns have one name.

    Raises:
        DataError: two have.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{where}: there are several columns {repeated[0]}. Rename one.")


def _separator_of(path: Path, encoding: str) -> str:
    """The separator that cuts the first line into most cells."""
    try:
        with open(path, encoding=encoding, errors="replace") as stream:
            first = next((line.rstrip("\r\n") for line in stream if line.strip()), "")
    except LookupError as error:
        raise DataError(f"There is no encoding {encoding!r}; give --encoding=latin-1.") from error
    counts = {sign: len(split_quoted(first, sign)[0]) for sign in SEPARATORS}
    return max(SEPARATORS, key=lambda sign: counts[sign])


def _without_type(cell: str) -> str:
    """The name of a column, also of RecBole's form ``name:type``."""
    name, colon, kind = cell.rpartition(":")
    if colon and kind.strip() in TYPES:
        return name.strip()
    return cell.strip()


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        _refuse_repeated(pq.read_schema(path).names, str(path))
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is no Parquet file ({error}).") from error
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_timestamp(column.type):
            columns[name] = _times_of(column)
        else:
            columns[name] = column.to_pylist()
    frame = pd.DataFrame(
        {name: pd.Series(values, dtype=object) for name, values in columns.items()}
    )
    return Table(path, frame, np.arange(1, len(frame) + 1))


def _times_of(column: Any) -> list[datetime | None]:
    """Times of Arrow as Python's, whose finest unit is a microsecond."""
    import pyarrow as pa

    unit = "us" if column.type.unit == "ns" else column.type.unit
    return column.cast(pa.timestamp(unit, column.type.tz), safe=False).to_pylist()


def _read_json_lines(path: Path, encoding: str) -> Table:
    records = []
    lines = []
    table = Table(path, pd.DataFrame(), np.zeros(0))
    for number, record in _records(path, encoding):
        if not isinstance(record, dict):
            table.dropped[NO_OBJECT] += 1
            table.examples.setdefault(NO_OBJECT, f"{path.name}, line {number}: {record[:80]}")
            continue
        records.append(record)
        lines.append(number)
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {}
    for name in names:
        columns[name] = pd.Series([record.get(name) for record in records], dtype=object)
    table.frame = pd.DataFrame(columns)
    table.lines = np.array(lines, dtype=np.int64)
    return table


def _records(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line numbers and objects of JSON lines, or of one JSON list; a text is no object."""
    text = _decoded(path, encoding)
    entries = _list_of(text)
    if entries is not None:
        yield from _entries(path, entries)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        yield number, record if isinstance(record, dict) else line


def _list_of(text: str) -> list[Any] | None:
    """The JSON list that a text is; ``None`` where it is none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _entries(path: Path, entries: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and objects of one JSON list.

    Raises:
        DataError: an entry is no object.
    """
    for number, record in enumerate(entries, start=1):
        if not isinstance(record, dict):
            raise DataError(f"{path}: entry {number} of the list must be a JSON object.")
        yield number, record


def _decoded(path: Path, encoding: str) -> str:
    """The text of a file, without a byte order mark."""
    try:
        return path.read_bytes().decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise DataError(f"There is no encoding {encoding!r}; give --encoding=latin-1.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not written in {encoding}: byte {error.start} does not fit. Give the "
            "encoding, for example --encoding=latin-1."
        ) from error


def ids_of(table: Table, column: str, role: str) -> list[str | None]:
    """The ids of a column, each a text or a number; ``None`` where a cell is missing or empty.

    Args:
        table: of interactions or of items.
        column: one of its columns.
        role: ``user`` or ``item``.

    Raises:
        DataError: a cell holds a list, an object, bytes or a truth value.
    """
    cells = table.frame[column].tolist()
    for line, cell in zip(table.lines, cells, strict=True):
        for types, remedy in NO_IDS:
            if isinstance(cell, types):
                raise DataError(
                    f"{table.path}, line {line}: {column} holds {str(cell)[:60]}, a "
                    f"{type(cell).__name__}, which is no id. {remedy.format(role=role)}"
                )
    return [text_of(cell) for cell in cells]


def text_of(value: object) -> str | None:
    """A cell as one line of text; ``None`` where it is missing or empty.

    Whole numbers that a table keeps as floats, because a cell is missing, lose their ``.0``.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NaT:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (list, tuple, set, np.ndarray)):
        words = [text_of(part) for part in value]
        value = ", ".join(word for word in words if word)
    return " ".join(str(value).split()) or None
