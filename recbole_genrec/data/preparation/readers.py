"""Raw interactions and item metadata.

RecBole's atomic files and Amazon's review and metadata files.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.parsers import TextFileReader
from tqdm.auto import tqdm

from recbole_genrec.data.files.cells import is_quoted, unquoted
from recbole_genrec.data.items.item_table import read_item_table
from recbole_genrec.errors import DataError

COLUMNS = ["user_id", "item_id", "timestamp"]
_REVIEW_KEYS = ("reviewerID", "asin", "unixReviewTime")


def read_raw_interactions(path: Path) -> pd.DataFrame:
    """Columns ``user_id``, ``item_id`` (text) and ``timestamp`` (float64) in file order.

    Raises:
        DataError: a column is missing, a line is malformed, or a value is unusable; with the line
            number.
    """
    frame = _read_atomic(path) if path.suffix == ".inter" else _read_reviews(path)
    times = pd.to_numeric(frame["timestamp"], errors="coerce").astype("float64")
    bad = times.isna()
    for column in COLUMNS[:2]:
        bad |= ~frame[column].str.fullmatch(r'[^"\t\r\n]+', na=False)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise DataError(
            f"{path}: interaction {row + 1} ({frame.iloc[row].to_dict()}) needs a user id and an "
            f"item id without quotes or tabs and a number as its time ({int(bad.sum())} such "
            "rows). Correct or remove them."
        )
    return frame.assign(timestamp=times)


def _read_atomic(path: Path) -> pd.DataFrame:
    try:
        with _open_atomic(path) as table:
            header = table.read(0)
        names = {str(cell).partition(":")[0]: cell for cell in header.columns}
        missing = [column for column in COLUMNS if column not in names]
        if missing:
            raise DataError(
                f"{path}: line 1 has no column {', '.join(missing)}; its columns are "
                f"{', '.join(names)}."
            )
        chunks = _open_atomic(path, [names[column] for column in COLUMNS])
        frame = pd.concat(
            tqdm(chunks, desc=f"Reading {path.name}", unit=" x 200k rows"), ignore_index=True
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(
            f"{path} is no tab separated file of interactions ({error}). Download it again."
        ) from error
    return frame.rename(columns={cell: name for name, cell in names.items()})[COLUMNS]


def _open_atomic(path: Path, columns: list[str] | None = None) -> TextFileReader:
    """Chunks of an atomic file, every cell a text; default all columns."""
    return pd.read_csv(
        path,
        sep="\t",
        usecols=columns,
        index_col=False,  # else pandas takes the first column for labels where a cell is too many
        dtype=str,
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
        encoding="utf-8-sig",
        encoding_errors="replace",
        chunksize=200_000,
    )


def _read_reviews(path: Path) -> pd.DataFrame:
    records = []
    for record in _json_lines(path):
        records.append([record.get(key) for key in _REVIEW_KEYS])
    return pd.DataFrame(records, columns=COLUMNS)


def read_items(
    path: Path, ids: Collection[str], columns: dict[str, tuple[str, ...]]
) -> dict[str, dict[str, object]]:
    """Raw values of the items ``ids``: ``{item id: {field: value}}``.

    ``columns`` maps each field to the names it has in the sources, the first present one counts.
    Atomic files give strings, Amazon's metadata strings or lists. The first record of an item wins.
    """
    records: Iterable[tuple[Any, dict]]
    if path.suffix == ".item":
        records = read_item_table(path, ids).rows.items()
    else:
        records = ((record.get("asin"), record) for record in _json_lines(path))
    items: dict[str, dict[str, object]] = {}
    for item, record in records:
        if item not in ids or item in items:
            continue
        items[item] = {field: _first_value(record, names) for field, names in columns.items()}
    return items


def _first_value(record: dict, names: tuple[str, ...]) -> object:
    """What ``record`` holds under the first of ``names`` that is not empty; else an empty text."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and is_quoted(value):
            return unquoted(value)  # RecBole's copies keep the quotes of CSV files
        if value:
            return value
    return ""


def _json_lines(path: Path) -> Iterator[dict]:
    """Records of a JSON-lines file.

    Amazon's 2014 metadata prints Python dictionaries instead, which are read as literals.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(
                tqdm(stream, desc=f"Reading {path.name}", unit=" lines"), start=1
            ):
                if line.strip():
                    yield _parse_record(line, path, number)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Download it again.") from error


def _parse_record(line: str, path: Path, number: int) -> dict:
    try:
        try:
            record = json.loads(line)
        except ValueError:
            record = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise DataError(
            f"{path}: line {number} is neither JSON nor a Python dictionary ({error})."
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"{path}: line {number} is no record but {type(record).__name__}; one review or item "
            "per line is needed."
        )
    return record
