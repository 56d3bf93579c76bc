"""Files of features (``.item``, ``.user`` and further ones) as RecBole's own models use them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_genrec.data.atomic_files import TYPES, AtomicFile, FileFormat
from recbole_genrec.data.headers import loaded_columns
from recbole_genrec.data.inter_files import RESERVED
from recbole_genrec.errors import DataError


def read_features(
    path: Path, file_format: FileFormat, load: Collection[str] | None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The loaded columns of a file, and RecBole's type of each.

    Missing cells are empty, surplus cells and bad bytes are tolerated, as in item texts.

    Args:
        path: the file.
        file_format: how it is written.
        load: the columns to load, None for all.

    Raises:
        DataError: a column has a type that RecBole does not know, or a number cannot be read.
    """
    file = AtomicFile(path, file_format)
    kinds = {}
    for cell in file.columns:
        name, _, kind = cell.partition(":")
        kinds[name] = kind or "token"
        if kinds[name] not in TYPES:
            raise DataError(
                f"{path}, line {file.header_line}: column {name!r} has the type {kind!r}; the "
                f"types are {', '.join(TYPES)}. Correct the header."
            )
    names = loaded_columns(path, kinds, load, ())
    places = {name: list(kinds).index(name) for name in names}
    values: dict[str, list] = {name: [] for name in names}
    for row in file.rows():
        cells = [file.text(cell).replace("\0", "") for cell in row.cells]
        if not any(cell.strip() for cell in cells):
            continue
        cells += [""] * (len(kinds) - len(cells))
        for name, place in places.items():
            try:
                value = _value(cells[place], kinds[name], file_format.sequence_separator)
            except ValueError as error:
                raise DataError(
                    f"{path}, line {row.line}: {cells[place]!r} in {name!r} is not a number. "
                    "Correct it, or leave the cell empty."
                ) from error
            values[name].append(value)
    frame = pd.DataFrame({name: _series(values[name], kinds[name]) for name in names})
    return frame, {name: kinds[name] for name in names}


def _value(cell: str, kind: str, between: str) -> object:
    if kind == "token":
        return None if not cell or cell in RESERVED else cell
    if kind == "float":
        return float(cell) if cell.strip() and cell not in RESERVED else np.nan
    words = [word for word in cell.split(between) if word]
    if kind == "token_seq":
        return np.array(words, dtype=object)
    return np.array([float(word) for word in words], dtype=np.float64)


def _series(values: list, kind: str) -> pd.Series:
    dtype = "object"
    if kind == "float":
        dtype = "float64"
    return pd.Series(values, dtype=dtype)
