"""Vectors in tables, CSV or Parquet: which column holds the ids, and which make the vectors."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from recbole_genrec.errors import DataError, explained
from recbole_genrec.storage.digests import check_readable

ID_COLUMNS = ("item_id", "item", "id", "user_id", "user")
PARQUET = (".parquet", ".pq")
TABLES = (".csv", *PARQUET)

_NUMBERED = re.compile(r"(.*?)\d+")
_NAMELESS = re.compile(r"(Unnamed: \d+)?")
"""A column without a name, as pandas writes its row numbers and reads them again."""
_ROW_NUMBERS = "__index_level_"
"""Start of the name of a column of Parquet files where pandas keeps row numbers."""


def read_vector_table(file: Path, id_column: str | None) -> tuple[list[str], np.ndarray]:
    """Raw ids and vectors ``[n, d]`` of a table.

    Args:
        file: see :data:`TABLES`.
        id_column: see :func:`column_of_ids`.

    Raises:
        DataError: the file cannot be read, or it is unsure what its columns are.
    """
    frame = _csv(file, id_column) if file.suffix == ".csv" else _parquet(file, id_column)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    if len(frame.columns) < 2 or frame.empty:
        raise DataError(
            f"{file} has {len(frame)} rows and the columns {', '.join(frame.columns)}. Expected a "
            "column of ids, and one column of lists or several of numbers."
        )
    lists = [name for name in frame.columns if _holds_lists(frame[name])]
    names = [name for name in frame.columns if name not in lists]
    if not names:
        raise DataError(
            f"{file} has columns of lists alone ({', '.join(lists)}), and no column of ids."
        )
    chosen = column_of_ids(names, id_column)
    is_usual = chosen in (id_column, *ID_COLUMNS)
    if _NAMELESS.fullmatch(names[0]) and chosen != names[0] and not is_usual:
        raise DataError(
            f"{file}: the ids may be in column {chosen} or in the first one, which has no name. "
            f"Call the column of the ids {id_column or ID_COLUMNS[0]}."
        )
    ids = frame[chosen]
    if not _may_be_ids(ids):
        raise DataError(
            f"{file}: column {chosen} is taken for the ids, but holds values that are neither text "
            f"nor whole numbers. Call the column of the ids {id_column or ID_COLUMNS[0]}."
        )
    others = frame.drop(columns=[chosen])
    vectors = _of_lists(file, others, lists) if lists else _of_numbers(file, others)
    return ids.astype(str).tolist(), vectors


def column_of_ids(names: Sequence[str], id_column: str | None) -> str:
    """The column of the ids: one with a usual name, or the first that is no part of vectors.

    Args:
        names: columns.
        id_column: name that comes before the usual ones.
    """
    for name in (id_column, *ID_COLUMNS):
        if name in names:
            return str(name)
    numbers = {name for group in _groups(names) for name in group}
    others = [name for name in names if name not in numbers and not _NAMELESS.fullmatch(name)]
    return others[0] if others else names[0]


def has_other_numbers(file: Path) -> bool:
    """Whether a table has columns that are no part of its vectors, and were before."""
    with explained(str(file), "Expected a table with a header.", DataError):
        if file.suffix == ".csv":
            names = [str(name) for name in pd.read_csv(file, nrows=0).columns]
        else:
            schema = parquet.read_schema(file)
            if any(map(_is_list, schema.types)):
                return False
            names = [name for name in schema.names if not name.startswith(_ROW_NUMBERS)]
    if not names:
        return False
    chosen = column_of_ids(names, None)
    others = [name for name in names if name != chosen]
    groups = _groups(others)
    return len(groups) > 1 or set(_of_vectors(others)) != set(others)


def say_left_out(file: Path, chosen: Sequence[str], others: Iterable[str]) -> None:
    """Log which columns make the vectors, where a file has others.

    Args:
        file: the file.
        chosen: columns of the vectors.
        others: columns that are neither ids nor vectors.
    """
    left_out = [name or "a column without a name" for name in others]
    if left_out:
        logging.getLogger().info(
            f"{file}: the vectors are {_listed(chosen)}; left out: {_listed(left_out)}."
        )


# --- files ----------------------------------------------------------------------------------------


def _csv(file: Path, id_column: str | None) -> pd.DataFrame:
    """A CSV file, its ids as they are written: ``007`` stays ``007``.

    Raises:
        DataError: it has no header, or one that is shorter than the rows.
    """
    check_readable(file)
    with explained(str(file), "Expected a CSV file with a header.", DataError):
        header = pd.read_csv(file, nrows=0)
        chosen = column_of_ids([str(name) for name in header.columns], id_column)
        frame = pd.read_csv(file, dtype={chosen: str}, keep_default_na=False)
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(
            f"{file} has rows with more cells than its header. Give every column a name, that of "
            "the ids too."
        )
    return frame


def _parquet(file: Path, id_column: str | None) -> pd.DataFrame:
    """A Parquet file; its index is a column where it holds the ids."""
    check_readable(file)
    with explained(str(file), "Expected a Parquet file.", DataError):
        frame = pd.read_parquet(file)
    if _ids_are_index(file, frame, id_column):
        return frame.reset_index()
    return frame


def _ids_are_index(file: Path, frame: pd.DataFrame, id_column: str | None) -> bool:
    """Whether the index holds the ids: texts, or numbers that have a name.

    Raises:
        DataError: a column may hold them as well.
    """
    index = frame.index
    usual = [name for name in (id_column, *ID_COLUMNS) if name]
    if any(name in frame.columns for name in usual):
        return False
    if index.name in usual or _are_texts(index):
        return True
    if index.name is None:
        return False
    others = _beside_vectors(frame)
    if not others:
        return True
    if np.array_equal(index, np.arange(len(index))):  # row numbers
        return False
    raise DataError(
        f"{file}: the ids may be in the index, {index.name}, or in column {others[0]}. Call the "
        f"one with the ids {usual[0]}."
    )


def _beside_vectors(frame: pd.DataFrame) -> list[str]:
    """Columns that may hold ids and are no part of vectors; none where all columns are alike."""
    numbered = {name for group in _groups(list(map(str, frame.columns))) for name in group}
    others = [
        str(name)
        for name, column in frame.items()
        if str(name) not in numbered and _may_be_ids(column)
    ]
    return others if len(others) < len(frame.columns) else []


# --- columns --------------------------------------------------------------------------------------


def _of_lists(file: Path, frame: pd.DataFrame, lists: list[str]) -> np.ndarray:
    """The only column of lists, ``[n, d]``."""
    if len(lists) > 1:
        raise DataError(
            f"{file} has several columns of lists ({', '.join(lists)}). Keep one of them."
        )
    say_left_out(file, lists, frame.columns.drop(lists))
    rows = frame[lists[0]].tolist()
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        raise DataError(
            f"{file}: the lists of column {lists[0]} have between {widths[0]} and "
            f"{widths[-1]} numbers. Every vector needs equally many."
        )
    with explained(f"{file}, column {lists[0]}", "Expected lists of numbers.", DataError):
        return np.array([np.asarray(row, dtype=np.float32) for row in rows])


def _of_numbers(file: Path, frame: pd.DataFrame) -> np.ndarray:
    """The columns of numbers that make the vectors, ``[n, d]``."""
    names = list(frame.columns)
    groups = _groups(names)
    if len(groups) > 1:
        raise DataError(
            f"{file} has several groups of numbered columns "
            f"({'; '.join(map(_listed, groups))}), and each may be the vectors. Keep one of them."
        )
    chosen = _of_vectors(names)
    if not chosen:
        raise DataError(
            f"{file} has no columns with names beside the ids. Call those of the vectors v0, v1, "
            "v2, ..."
        )
    words = [name for name in chosen if not pd.api.types.is_numeric_dtype(frame[name])]
    if words:
        raise DataError(
            f"{file}: the columns {', '.join(words[:5])} hold no numbers. Leave out what is no "
            "part of the vectors."
        )
    say_left_out(file, chosen, frame.columns.drop(chosen))
    if not groups:
        logging.getLogger().warning(
            f"{file}: the vectors are all columns of numbers, {_listed(chosen)}. With names such "
            "as v0, v1, v2, ... those of the vectors are sure."
        )
    return frame[chosen].to_numpy(dtype=np.float32)


def _of_vectors(names: Sequence[str]) -> list[str]:
    """The numbered ones of several columns; where none are, all that have a name."""
    groups = _groups(names)
    return groups[0] if groups else [name for name in names if not _NAMELESS.fullmatch(name)]


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Columns that differ in a number at the end: ``v0``, ``v1``; ``0``, ``1``; at least two.

    One of them may lack the number: pandas reads the header ``v,v,v`` as ``v``, ``v.1``, ``v.2``.
    """
    named = [name for name in names if not _NAMELESS.fullmatch(name)]
    matches = {name: _NUMBERED.fullmatch(name) for name in named}
    stems = {match.group(1) for match in matches.values() if match}
    groups: dict[str, list[str]] = {}
    for name, match in matches.items():
        own = [match.group(1)] if match else []
        stem = next((stem for stem in (name, f"{name}.", *own) if stem in stems), None)
        if stem is not None:
            groups.setdefault(stem, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _may_be_ids(column: pd.Series) -> bool:
    return pd.api.types.is_integer_dtype(column) or _are_texts(column)


def _are_texts(values: Iterable[object]) -> bool:
    return all(type(value) is str for value in values)


def _holds_lists(column: pd.Series) -> bool:
    return isinstance(column.iloc[0], (list, tuple, np.ndarray))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _listed(names: Sequence[str]) -> str:
    """Names with commas between; of many, the first and the last."""
    if len(names) > 5:
        return f"{names[0]} ... {names[-1]}"
    return ", ".join(names)
