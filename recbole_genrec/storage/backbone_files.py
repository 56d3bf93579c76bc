"""A folder in the place of a language model's own, when a checkpoint holds all its weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
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
    "vocab.txt",
)
TOKENIZER = "tokenizer.json"
MARKER = "weights_are_in_the_checkpoint"


def small_files(backbone: str) -> dict[str, str]:
    """Settings and text tokenizer of a folder, by file name; none of a hub id."""
    folder = Path(backbone).expanduser()
    files = _files_in(folder)
    if TOKENIZER not in files and any(folder.glob("*.model")):
        files |= _converted_tokenizer(str(folder))
    return files


def _files_in(folder: Path) -> dict[str, str]:
    """Those of :data:`FILES` that a folder holds."""
    files = {}
    for name in FILES:
        if (folder / name).is_file():
            files[name] = (folder / name).read_text(encoding="utf-8")
    return files


@cache
def _converted_tokenizer(folder: str) -> dict[str, str]:
    """The files of a tokenizer of SentencePiece in the text form that transformers loads too.

    None where transformers cannot read it; a model that trained on the folder has read no text
    then.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="recbole-genrec-") as converted:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            tokenizer.save_pretrained(converted)
        except Exception:  # a damaged file can raise errors of every kind
            return {}
        return _files_in(Path(converted))


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
