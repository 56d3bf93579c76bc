"""Where published code words of items stand: an index file, and the raw ids of its numbers."""

from __future__ import annotations

from pathlib import Path

INDEX_ENDING = ".json"
NUMBERS_ENDING = ".item2id"


def files_of_index(file: Path) -> list[Path]:
    """The index file and, where there is one, the file of the raw ids of its numbers."""
    numbers = numbers_file(file)
    return [file, numbers] if numbers.is_file() else [file]


def numbers_file(file: Path) -> Path:
    """``Games.item2id`` beside ``Games.index.json``."""
    stem = file.name.removesuffix(INDEX_ENDING).removesuffix(".index")
    return file.with_name(stem + NUMBERS_ENDING)
