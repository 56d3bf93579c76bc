"""The one reader of RecBole's atomic files: separator, quotes, encoding, byte order mark, header.

RecBole hands these files to pandas, which takes an id such as ``NA`` for a missing value and drops
the row, lets a stray quote swallow the lines up to the next one, and shifts the columns of a file
whose rows have one cell more than its header. ``.inter`` and ``.item`` are read here instead, so
that ids and texts follow the same rules.

Quotes: between tabs they are ordinary characters, unless the header itself is quoted or a row is
too short because a quoted cell goes on in the next lines; with any other separator the cells follow
the rules of CSV files. Empty cells beyond the header, which some programs write, are left out.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from recbole_genrec.data.files.cells import (
    OPEN,
    is_escaped,
    is_quoted,
    split_quoted,
    unquoted,
)
from recbole_genrec.errors import ConfigError, DataError

TYPES = ("token", "token_seq", "float", "float_seq")
"""The types of columns that RecBole knows."""

MOST_LINES = 1000
"""A quoted cell may go on over this many lines."""

_UNDECODABLE = re.compile("[\udc80-\udcff]")
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF8 = ("utf-8", "utf-8-sig")


@dataclass(frozen=True)
class FileFormat:
    """How the files of a dataset are written.

    Args:
        separator: what stands between columns (``field_separator``), any text.
        encoding: name of the encoding (``encoding``).
        sequence_separator: what stands between the words of a sequence (``seq_separator``).
    """

    separator: str = "\t"
    encoding: str = "utf-8"
    sequence_separator: str = " "

    @classmethod
    def of(cls, config) -> FileFormat:
        """The format that the keys of ``config`` describe."""
        return cls(
            _separator("field_separator", config.settings.field_separator, "\t"),
            config.settings.encoding or "utf-8",
            _separator("seq_separator", config["seq_separator"], " "),
        )


PLAIN = FileFormat()
"""Tabs between columns, UTF-8, spaces between words."""


class Row(NamedTuple):
    """One row of a table.

    Args:
        line: number of its first line in the file, from 1.
        cells: one text a column.
        problem: what is wrong with it, or None.
    """

    line: int
    cells: list[str]
    problem: str | None


class AtomicFile:
    """A table with a header line.

    Args:
        path: the file.
        file_format: how it is written.

    Attributes:
        columns: text of the header's cells (``name:type``).
        header_line: number of the header's line.
        replaced_characters: bytes met so far that are not of the encoding.

    Raises:
        ConfigError: there is no such encoding.
        DataError: the file is empty, or not of the encoding that its byte order mark names.
    """

    def __init__(self, path: str | Path, file_format: FileFormat):
        self.path = Path(path)
        self.separator = file_format.separator
        self.encoding, self._mark = _encoding(self.path, file_format.encoding)
        self.replaced_characters = 0
        self.header_line, header = self._header()
        if "\r" in header:
            raise DataError(
                f"{self.path}, line {self.header_line}: lines end with carriage returns. Write the "
                "file with line feeds."
            )
        self._quoted = self.separator != "\t" or is_quoted(header.split(self.separator)[0])
        self.columns: list[str] = []
        columns = [cell.strip() for cell in self._cells(header)[0]]
        self.columns = _without_surplus(columns, 1)

    def text(self, cell: str) -> str:
        """The text of a cell: between tabs quotes stay, except those that a CSV writer added."""
        return unquoted(cell) if not self._quoted and is_escaped(cell) else cell

    def id(self, cell: str) -> str:
        """The id in a cell, without quotes around it."""
        return unquoted(cell) if not self._quoted and is_quoted(cell) else cell

    def is_open(self, cell: str) -> bool:
        """Whether a quote begins a cell between tabs and none ends it."""
        return not self._quoted and cell.startswith('"') and not is_quoted(cell)

    def rows(self) -> Iterator[Row]:
        """The rows after the header; empty lines are left out."""
        with self._open() as stream:
            lines = _Lines(stream, self.path, self.header_line)
            for number, line in lines:
                if not line:
                    continue
                line, damaged = self._repaired(line)
                cells, problem = self._cells(line)
                if problem == OPEN or any(map(self.is_open, cells)):
                    joined = self._continued(line, lines)
                    if joined is not None:
                        cells, problem = joined, None
                if damaged:
                    problem = f"it is not {self.encoding}; --encoding names that of the file."
                yield Row(number, _without_surplus(cells, len(self.columns)), problem)

    def _header(self) -> tuple[int, str]:
        """Number and text of the first line that is not empty."""
        with self._open() as stream:
            for number, line in _Lines(stream, self.path):
                if number == 1:
                    line = line.removeprefix("\ufeff")
                line = line.replace("\0", "").rstrip("\r")
                if line.strip():
                    return number, self._repaired(line)[0]
        raise DataError(
            f"{self.path} is empty: a header line such as `user_id:token<tab>item_id:token` or "
            "`item_id:token<tab>title:token_seq` is needed."
        )

    def _open(self) -> TextIO:
        """The text after the byte order mark; bytes that are not of the encoding are kept."""
        try:
            stream = open(self.path, "rb")  # noqa: SIM115 (the wrapper closes it)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        stream.seek(self._mark)
        return TextIOWrapper(stream, encoding=self.encoding, errors="surrogateescape", newline="\n")

    def _cells(self, line: str) -> tuple[list[str], str | None]:
        if self._quoted:
            return split_quoted(line, self.separator)
        cells = line.split(self.separator)
        if len(cells) > len(self.columns) > 0 and '"' in line:
            # tabs inside quotes, by a CSV writer that quotes where it must
            by_quotes, problem = split_quoted(line, self.separator)
            if problem is None and len(by_quotes) == len(self.columns):
                return by_quotes, None
        return cells, None

    def _continued(self, first: str, lines: _Lines) -> list[str] | None:
        """The cells of a row whose quoted cell goes on in the next lines.

        ``None`` for a stray quote: no line closes it or, between tabs, the next lines are no
        shorter than rows are. Then the row is the first line alone.
        """
        text = first
        taken = []
        for number, line in islice(lines, MOST_LINES):
            taken.append((number, line))
            text = f"{text}\n{self._repaired(line)[0]}"
            if not self._quoted and line.count(self.separator) + 1 >= len(self.columns):
                break
            if self._quoted and '"' not in line:
                continue  # which closes nothing
            cells, problem = split_quoted(text, self.separator)
            if problem is None and (self._quoted or len(cells) == len(self.columns)):
                return cells
            if problem not in (None, OPEN):
                break
        lines.give_back(taken)
        return None

    def _repaired(self, line: str) -> tuple[str, bool]:
        """The line with U+FFFD for bytes that are not of the encoding, and whether it has some."""
        if line.isascii() or not _UNDECODABLE.search(line):
            return line, False
        raw = line.encode(self.encoding, "surrogateescape")
        repaired = raw.decode(self.encoding, "replace")
        self.replaced_characters += repaired.count("\ufffd") - line.count("\ufffd")
        return repaired, True


class _Lines:
    """Numbered lines of a file without their line feeds, after the first ``skipped``."""

    def __init__(self, stream: TextIO, path: Path, skipped: int = 0):
        self._stream = stream
        self._path = path
        self._skipped = skipped
        self._number = 0
        self._waiting: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        if self._waiting:
            return self._waiting.popleft()
        while True:
            try:
                line = next(self._stream)
            except UnicodeError as error:
                raise DataError(
                    f"{self._path}, line {self._number + 1}: it is not {self._stream.encoding}. "
                    "Name the file's encoding with --encoding."
                ) from error
            self._number += 1
            if self._number > self._skipped:
                return self._number, line.removesuffix("\n").removesuffix("\r")

    def give_back(self, lines: list[tuple[int, str]]) -> None:
        """Lines that come again, in this order."""
        self._waiting.extendleft(reversed(lines))


def _without_surplus(cells: list[str], width: int) -> list[str]:
    """The cells without empty ones at the end, of which at least ``width`` stay."""
    count = len(cells)
    while count > width and not cells[count - 1].strip():
        count -= 1
    return cells[:count]


def _separator(key: str, value: object, default: str) -> str:
    if value is None:
        return default
    if not isinstance(value, str) or not value or "\n" in value or '"' in value:
        raise ConfigError(f"{key} is {value!r}; it must be the text between two columns or words.")
    return value.replace("\\t", "\t")


def _encoding(path: Path, name: str) -> tuple[str, int]:
    """The encoding of the file, and the length of its UTF-8 byte order mark in bytes."""
    try:
        known = codecs.lookup(name).name
        b"".decode(name)
    except (LookupError, TypeError) as error:
        raise ConfigError(
            f"encoding is {name!r}, which is unknown. Use utf-8, latin-1, cp1252, gbk, shift_jis "
            "or another name of Python's codecs."
        ) from error
    with open(path, "rb") as stream:
        start = stream.read(4)
        if start.startswith(_WIDE_MARKS) and not known.startswith(("utf-16", "utf-32")):
            raise DataError(
                f"{path}, line 1: its byte order mark says UTF-16, the key encoding says {name}. "
                "Write the file as UTF-8, or give --encoding=utf-16."
            )
        if not start.startswith(codecs.BOM_UTF8):
            return name, 0
        if known not in _UTF8 and _is_utf8(start + stream.read()):
            name = "utf-8"
    return name, len(codecs.BOM_UTF8)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
