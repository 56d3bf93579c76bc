"""A folder in the place of a language model's own, when a checkpoint holds all its weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recbole_genrec.errors import ArtefactError

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
MARKER = "weights_are_in_the_checkpoint"


def small_files(backbone: str) -> dict[str, str]:
    """Settings and text tokenizer of a folder, by file name; none of a hub id."""
    folder = Path(backbone).expanduser()
    files = {}
    for name in FILES:
        if (folder / name).is_file():
            files[name] = (folder / name).read_text(encoding="utf-8")
    return files


@contextlib.contextmanager
def stand_in(files: dict[str, str]) -> Iterator[str]:
    """A folder with these files, whose language model starts with random weights.

    Args:
        files: what :func:`small_files` gave.

    Raises:
        ArtefactError: a name is not one of :data:`FILES`.
    """
    with tempfile.TemporaryDirectory(prefix="recbole-genrec-") as folder:
        for name, content in files.items():
            if name not in FILES:
                raise ArtefactError(f"The checkpoint holds the file {name!r} of no language model.")
            (Path(folder) / name).write_text(content, encoding="utf-8")
        (Path(folder) / MARKER).touch()
        yield folder


def has_no_weights(folder: str) -> bool:
    """Whether a folder is one of :func:`stand_in`."""
    return (Path(folder) / MARKER).is_file()
