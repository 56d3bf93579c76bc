"""The files that an import writes: ``.inter``, ``.item`` and the settings of the dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import yaml

from recbole_genrec.data.preparation.recipes import RECIPES
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.parsing import parse_value
from recbole_genrec.storage.atomic import atomic_write, write_text

NAME = re.compile(r"(?!\.)[\w.-]+")
TAKEN = ("item_id", "user_id", "timestamp")
"""Columns that an import writes itself."""

WITHOUT_TEXT = {
    "TIGER": {"tokenizer": "cid"},
    "TimelineRec": {"tokenizer": "cid", "item_parts": ["id"]},
}
"""Settings of a dataset whose items have no text: codes that need none."""

MARK = "# Written by recbole-genrec import"


def check_target(name: str, data_path: str | Path) -> Path:
    """The folder of a dataset that may be written.

    Raises:
        ConfigError: the name cannot be that of a folder or of ``--dataset``, or belongs to a known
            dataset.
        DataError: the folder holds files that no import wrote.
    """
    if not NAME.fullmatch(name):
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
    settings = folder / f"{name}.yaml"
    imported = settings.is_file() and settings.read_text(encoding="utf-8").startswith(MARK)
    if (folder / f"{name}.inter").is_file() and not imported:
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
) -> None:
    """Write the files of a dataset, each atomically, the settings last.

    Args:
        folder: of the dataset.
        name: of the dataset.
        frame: columns ``user_id``, ``item_id`` and ``timestamp`` (seconds), by user and time.
        texts: text columns by item id.
        fields: the text columns.
    """
    _write_lines(folder / f"{name}.inter", _interaction_lines(frame))
    kinds = {field: _kind(field, texts) for field in fields}
    columns = _column_names(fields)
    items = folder / f"{name}.item"
    if fields:
        _write_lines(items, _item_lines(texts, kinds, columns))
    else:
        items.unlink(missing_ok=True)
    values: dict[str, object] = dict(WITHOUT_TEXT)
    if fields:
        values = {"item_text_fields": [columns[field] for field in fields]}
    text = f"{MARK}; keys of run may be added.\n{yaml.safe_dump(values, allow_unicode=True)}"
    write_text(folder / f"{name}.yaml", text)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as stream,
    ):
        for line in lines:
            stream.write(f"{line}\n")


def _interaction_lines(frame: pd.DataFrame) -> Iterable[str]:
    yield "user_id:token\titem_id:token\ttimestamp:float"
    rows = zip(frame["user_id"], frame["item_id"], frame["timestamp"].tolist(), strict=True)
    for user, item, time in rows:
        written = str(int(time)) if time.is_integer() else repr(time)
        yield f"{_cell(user)}\t{_cell(item)}\t{written}"


def _item_lines(
    texts: dict[str, dict[str, str]], kinds: dict[str, str], columns: dict[str, str]
) -> Iterable[str]:
    header = [f"{columns[field]}:{kind}" for field, kind in kinds.items()]
    yield "\t".join(["item_id:token", *header])
    for item, row in texts.items():
        yield "\t".join([_cell(item), *(_cell(row.get(field, "")) for field in kinds)])


def _cell(text: str) -> str:
    """A cell between tabs, which the reader gives back as it is: no quote opens it by chance."""
    if not text.startswith('"'):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


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
