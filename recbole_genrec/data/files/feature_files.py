"""Files of features (``.item``, ``.user`` and further ones) as RecBole's own models use them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from recbole_genrec.data.files.atomic_files import AtomicFile, FileFormat
from recbole_genrec.data.files.cell_values import cell_value, value_series
from recbole_genrec.data.files.headers import header_kinds, loaded_columns
from recbole_genrec.errors import DataError


def read_features(
    path: Path,
    file_format: FileFormat,
    load: Collection[str] | None,
    ids: Collection[str] = (),
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The loaded columns of a file, and RecBole's type of each.

    Missing cells are empty, surplus cells and bad bytes are tolerated, as in item texts.

    Args:
        path: the file.
        file_format: how it is written.
        load: the columns to load, None for all.
        ids: columns of ids of users and items, which are read as those of interactions.

    Raises:
        DataError: the header has another separator, a column twice or a type that RecBole does not
            know, or a number cannot be read.
    """
    file = AtomicFile(path, file_format)
    kinds = header_kinds(file)
    names = loaded_columns(path, kinds, load, ())
    places = {name: list(kinds).index(name) for name in names}
    values: dict[str, list] = {name: [] for name in names}
    for row in file.rows():
        cells = [cell.replace("\0", "") for cell in row.cells]
        if not any(cell.strip() for cell in cells):
            continue
        cells += [""] * (len(kinds) - len(cells))
        for name, place in places.items():
            text = file.id if name in ids else file.text
            try:
                value = cell_value(text(cells[place]), kinds[name], file_format.sequence_separator)
            except ValueError as error:
                raise DataError(
                    f"{path}, line {row.line}: {cells[place]!r} in {name!r} is not a number. "
                    "Correct it, or leave the cell empty."
                ) from error
            values[name].append(value)
    frame = pd.DataFrame({name: value_series(values[name], kinds[name]) for name in names})
    return frame, {name: kinds[name] for name in names}
