"""The files that an import writes: ``.inter``, ``.item`` and the settings of the dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from recbole_genrec.data.known_datasets import FOLDER_NAME, RECIPES
from recbole_genrec.data.preparation.own.settings import is_imported, settings_of_import
from recbole_genrec.data.preparation.writing import INTERACTIONS, write_table
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.parsing import parse_value
from recbole_genrec.storage.atomic import write_text

TAKEN = ("item_id", "user_id", "timestamp")
"""Columns that an import writes itself."""


def check_target(name: str, data_path: str | Path) -> Path:
    """The folder of a dataset that may be written.

    Raises:
        ConfigError: the name cannot be that of a folder or of ``--dataset``, or belongs to a known
            dataset.
        DataError: the folder holds files that no import wrote.
    """
    if not FOLDER_NAME.fullmatch(name):
        raise ConfigError(
            f"--name={name} must be the name of one folder (letters, digits, '-', '_', '.')."
        )
    if parse_value(name) != name:
        raise ConfigError(
            f"--name={name} reads as {parse_value(name)!r}, not as a word, so that "
            f"run --dataset={name} could not name it. Put a word in front, as in shop-{name}."
        )
    if name in RECIPES:
        raise ConfigError(f"--name={name} is a dataset that prepare makes. Choose another name.")
    folder = Path(data_path).expanduser() / name
    if (folder / f"{name}.inter").is_file() and not is_imported(folder / f"{name}.yaml"):
        raise DataError(
            f"{folder} holds files that no import wrote. Choose another --name, or move them."
        )
    return folder


def write_dataset(
    folder: Path,
    name: str,
    frame: pd.DataFrame,
    texts: dict[str, dict[str, str]],
    fields: Sequence[str],
) -> list[str]:
    """Write the files of a dataset, each atomically, the settings last.

    Args:
        folder: of the dataset.
        name: of the dataset.
        frame: columns ``user_id``, ``item_id`` and ``timestamp`` (seconds), by user and time.
        texts: text columns by item id.
        fields: the text columns.

    Returns:
        The user's keys that stay in the settings.

    Raises:
        ConfigError: the settings of an earlier import cannot be read; nothing is written.
    """
    columns = _column_names(fields)
    settings = folder / f"{name}.yaml"
    text, kept = settings_of_import(settings, [columns[field] for field in fields])
    times = map(_written_time, frame["timestamp"].tolist())
    events = zip(frame["user_id"], frame["item_id"], times, strict=True)
    write_table(folder / f"{name}.inter", INTERACTIONS, events)
    items = folder / f"{name}.item"
    if fields:
        kinds = {columns[field]: _kind(field, texts) for field in fields}
        cells = ([item, *(row.get(field, "") for field in fields)] for item, row in texts.items())
        write_table(items, {"item_id": "token", **kinds}, cells)
    else:
        items.unlink(missing_ok=True)
    write_text(settings, text)
    return kept


def _written_time(seconds: float) -> str:
    """A time as a cell: without a fraction where it has none."""
    return str(int(seconds)) if seconds.is_integer() else repr(seconds)


def _kind(field: str, texts: dict[str, dict[str, str]]) -> str:
    """RecBole's type of a text column: several words or one."""
    if any(" " in row.get(field, "") for row in texts.values()):
        return "token_seq"
    return "token"


def stored_name(field: str) -> str:
    """The name of a text column in the ``.item`` file, ``Product Name`` as ``Product_Name``."""
    name = re.sub(r"[\s:]+", "_", field.strip()) or "text"
    return f"{name}_text" if name in TAKEN else name


def _column_names(fields: Sequence[str]) -> dict[str, str]:
    """The stored names of text columns, each only once."""
    names: dict[str, str] = {}
    for field in fields:
        name = stored_name(field)
        while name in names.values():
            name = f"{name}_text"
        names[field] = name
    return names
