"""The one writer of RecBole's atomic files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from recbole_genrec.storage.atomic import atomic_write

INTERACTIONS = {"user_id": "token", "item_id": "token", "timestamp": "float"}
"""The columns of ``.inter`` files, and their types."""


def write_table(path: Path, kinds: Mapping[str, str], rows: Iterable[Iterable[str]]) -> None:
    """Write a file atomically, as UTF-8, with tabs between the cells.

    Args:
        path: the file.
        kinds: RecBole's type of each column, by name.
        rows: the cells of each row, without tabs and line ends.

    Raises:
        ArtefactError: the file cannot be written.
    """
    header = [f"{name}:{kind}" for name, kind in kinds.items()]
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as stream,
    ):
        for cells in chain([header], rows):
            stream.write("\t".join(map(_cell, cells)) + "\n")


def _cell(text: str) -> str:
    """A cell between tabs, which the reader gives back as it is: no quote opens it by chance."""
    if not text.startswith('"'):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
