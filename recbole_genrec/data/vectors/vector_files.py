"""Files of vectors that were made elsewhere: numpy with a list of ids, Parquet, CSV, or lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_genrec.data.files.atomic_files import PLAIN, TYPES, AtomicFile
from recbole_genrec.data.vectors.vector_tables import (
    TABLES,
    column_of_ids,
    has_other_numbers,
    read_vector_table,
    say_left_out,
)
from recbole_genrec.errors import DataError, explained
from recbole_genrec.storage.digests import check_readable, read_bytes

ID_ENDINGS = (".ids.txt", ".ids", ".txt", ".json")
"""What the file of the ids of ``emb.npy`` is called: ``emb`` and one of these."""
FORMS = "numpy (.npy with a file of ids), Parquet, CSV, or lines of id, tab, numbers"


def files_of_vectors(file: Path) -> list[Path]:
    """The files that :func:`read_vectors` reads: ``file``, and that of the ids of a ``.npy``."""
    if file.suffix != ".npy":
        return [file]
    there = [ids for ids in _id_files(file) if ids.is_file()]
    return [file, *there[:1]]


def has_other_columns(file: Path) -> bool:
    """Whether columns that are no part of the vectors may stand in a file.

    Earlier versions took all of them for numbers of the vectors, so what they made of such a file
    is no longer its content.
    """
    if file.suffix == ".npy" or not file.is_file():
        return False
    if file.suffix in TABLES:
        return has_other_numbers(file)
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        header = next((line for line in stream if line.strip()), "").rstrip("\r\n")
    return _is_header(header) and header.count("\t") > 1


def read_vectors(file: Path, id_column: str | None = None) -> tuple[list[str], np.ndarray]:
    """Raw ids and their vectors.

    Args:
        file: ``.npy`` with the ids in ``<name>.ids.txt`` (one a line), ``.ids``, ``.txt`` or
            ``.json`` (a list) beside it; ``.parquet`` or ``.csv`` with a column of ids and either
            one column of lists or columns of numbers, called ``v0``, ``v1``, ... or the like where
            there are others; any other name: lines
            ``id<TAB>v1 v2 ... vd``. Under a header of RecBole's, as ``.item`` files have, the
            vectors are the only ``float_seq`` column, or the ``float`` columns.
        id_column: name of the column of ids; default: a usual name, or the first column that is
            not numbered.

    Returns:
        Ids, and float32 ``[n, d]``.

    Raises:
        DataError: the file cannot be read, names an id twice, or holds values that are no finite
            numbers. The message names the line, the id or the column.
    """
    if file.suffix in (".npz", ".pkl", ".pickle", ".pt", ".pth", ".bin"):
        raise DataError(
            f"{file}: vectors are not read from {file.suffix} files, some of which run code when "
            f"they are opened. Write them as {FORMS}."
        )
    if file.suffix == ".npy":
        return _checked(file, _ids_of(file), _numpy(file))
    if file.suffix in TABLES:
        return _checked(file, *read_vector_table(file, id_column))
    return _from_lines(file, id_column)


# --- numpy ----------------------------------------------------------------------------------------


def _numpy(file: Path) -> np.ndarray:
    check_readable(file)
    with explained(str(file), "Expected an array of numbers that numpy.save wrote.", DataError):
        return np.load(file, allow_pickle=False)


def _id_files(file: Path) -> list[Path]:
    return [file.with_name(file.stem + ending) for ending in ID_ENDINGS]


def _ids_of(file: Path) -> list[str]:
    """The ids of the rows of a ``.npy`` file.

    Raises:
        DataError: no file has them.
    """
    files = files_of_vectors(file)
    if len(files) == 1:
        names = ", ".join(ids.name for ids in _id_files(file))
        raise DataError(
            f"{file} holds vectors without the ids that they belong to. Put a file with one id a "
            f"line for each row beside it, under one of the names {names}."
        )
    text = read_bytes(files[1]).decode("utf-8-sig", "replace")
    if files[1].suffix != ".json":
        return text.splitlines()
    with explained(str(files[1]), "Expected a list of ids.", DataError):
        content = json.loads(text)
    if not isinstance(content, list):
        raise DataError(f"{files[1]} holds no list. Expected a list of ids in the order of rows.")
    return [str(token) for token in content]


def _checked(file: Path, ids: list[str], vectors: Any) -> tuple[list[str], np.ndarray]:
    """Ids and vectors that fit each other.

    Raises:
        DataError: they do not, or a value is no finite number.
    """
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or not vectors.size:
        raise DataError(
            f"{file} holds an array of shape {list(vectors.shape)} and type {vectors.dtype}. "
            "Expected numbers of shape [items, dimensions]."
        )
    if len(ids) != len(vectors):
        raise DataError(
            f"{file} has {len(vectors)} vectors, but there are {len(ids)} ids for them. Every row "
            "needs one id, and a row for padding has to go."
        )
    if len(set(ids)) < len(ids):
        twin = pd.Series(ids).duplicated().to_numpy().argmax()
        raise DataError(f"{file} has two vectors for {ids[twin]!r}. Keep one of them.")
    vectors = np.asarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise DataError(
            f"{file}: the vector of {ids[bad[0]]!r} holds values that are no finite numbers, as do "
            f"{len(bad) - 1} others. Make them again, or leave these rows out."
        )
    return ids, vectors


# --- lines ----------------------------------------------------------------------------------------


def _from_lines(file: Path, id_column: str | None) -> tuple[list[str], np.ndarray]:
    """Ids and vectors from lines, with or without RecBole's header.

    Raises:
        DataError: names the first bad line.
    """
    text = read_bytes(file).decode("utf-8-sig", "replace")
    rows = _plain_rows(text)
    if _is_header(text.lstrip("\r\n").split("\n", 1)[0]):
        rows = _rows_below_header(file, id_column)

    vectors: dict[str, np.ndarray] = {}
    size = 0
    for number, token, values in rows:
        try:
            vector = np.array(values.split(), dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        size = size or len(vector)
        fits = len(vector) == size > 0 and np.isfinite(vector).all()
        if not token or token in vectors or not fits:
            raise DataError(
                f"{file}, line {number}, id {token!r}: expected a new id, a tab and "
                f"{size or 'some'} finite numbers, separated by spaces."
            )
        vectors[token] = vector
    if not vectors:
        raise DataError(f"{file} holds no vectors; expected lines of id, tab, numbers.")
    return list(vectors), np.stack(list(vectors.values()))


def _is_header(line: str) -> bool:
    """Whether a line is a header in RecBole's form, ``item_id:token<TAB>vector:float_seq``."""
    cells = [cell.strip().strip('"') for cell in line.split("\t")]
    return all(cell.rpartition(":")[2] in TYPES and ":" in cell for cell in cells)


def _plain_rows(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, id and numbers of lines ``id<TAB>v1 v2``; tabs may stand between numbers too."""
    for number, line in enumerate(text.splitlines(), start=1):
        token, _, values = line.partition("\t")
        yield number, token, values


def _rows_below_header(file: Path, id_column: str | None) -> Iterator[tuple[int, str, str]]:
    """Line number, id and numbers of the rows of a file in RecBole's form.

    Raises:
        DataError: it is unsure which columns make the vectors, or a row has other columns.
    """
    table = AtomicFile(file, PLAIN)
    names = [column.rpartition(":")[0] for column in table.columns]
    place = names.index(column_of_ids(names, id_column))
    chosen = _columns_of_vectors(file, table.columns, place)
    last = len(names) - 1
    for number, cells, problem in table.rows():
        if problem is None and chosen[-1] < last and len(cells) > len(names):
            problem = f"it has {len(cells)} cells, the header {len(names)}."
        if problem is None and len(cells) <= max(place, *chosen):
            problem = f"it has {len(cells)} cells, the header {len(names)}."
        if problem is not None:
            raise DataError(f"{file}, line {number}: {problem}")
        # tabs may stand between the numbers of the last column
        surplus = cells[len(names) :]
        values = [cells[column] for column in chosen]
        yield number, table.id(cells[place]), " ".join(values + surplus)


def _columns_of_vectors(file: Path, columns: list[str], place: int) -> list[int]:
    """Numbers of the columns that make the vectors: the only ``float_seq``, or every ``float``.

    Args:
        file: for the messages.
        columns: header cells, ``name:type``.
        place: number of the column of ids.

    Raises:
        DataError: there are several ``float_seq`` columns, or no column of numbers.
    """
    others = [number for number in range(len(columns)) if number != place]
    names_of = {number: columns[number].rpartition(":")[0] for number in others}
    of_type = {
        kind: [number for number in others if columns[number].endswith(f":{kind}")]
        for kind in ("float_seq", "float")
    }
    lists = of_type["float_seq"]
    if len(lists) > 1:
        names = ", ".join(names_of[number] for number in lists)
        raise DataError(
            f"{file} has several columns of type float_seq ({names}), and each may be the vectors. "
            "Name a file that has one of them."
        )
    chosen = lists or of_type["float"] or others[: len(others) == 1]
    if not chosen:
        raise DataError(
            f"{file} has no column of type float_seq among {', '.join(columns)}. The vectors need "
            "one, such as `vector:float_seq`."
        )
    used = [names_of[number] for number in chosen]
    say_left_out(file, used, [names_of[number] for number in others if number not in chosen])
    return chosen
