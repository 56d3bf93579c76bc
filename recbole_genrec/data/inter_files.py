"""RecBole's ``.inter`` files: every row as it is written, or a refusal that names file and line."""

from __future__ import annotations

import string
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_genrec.data.files.atomic_files import AtomicFile, FileFormat, Row
from recbole_genrec.data.files.cell_values import RESERVED, cell_value, value_series
from recbole_genrec.data.files.cells import OPEN
from recbole_genrec.data.files.headers import loaded_columns, read_header
from recbole_genrec.data.files.id_forms import check_spaces
from recbole_genrec.data.files.plain_tables import PlainTable, read_plain
from recbole_genrec.data.files.times import (
    LARGE,
    is_date,
    read_time,
    rounded_alike,
    whole_times,
)
from recbole_genrec.errors import ConfigError, DataError

PARTS = ("train", "valid", "test")


@dataclass
class InteractionTable:
    """A file of interactions.

    Args:
        path: the file.
        frame: its loaded columns; ids are text, times and other numbers float64, large whole
            times int64, sequences arrays.
        kinds: RecBole's type of each of these columns.
        header: RecBole's type of each column of the file, those too that are not loaded.
        lines: line of the file of each row, int64 ``[n]``.
    """

    path: Path
    frame: pd.DataFrame
    kinds: dict[str, str]
    header: dict[str, str]
    lines: np.ndarray

    def where(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.path}, line {self.lines[row]}"


def interaction_files(config) -> list[Path]:
    """The ``.inter`` files of RecBole's ``config``: one, or those of ``benchmark_filename``.

    Raises:
        ConfigError: ``benchmark_filename`` does not name three files.
    """
    folder, name = Path(config.settings.data_path), config.settings.dataset
    endings = config.settings.benchmark_filename
    if endings is None:
        return [folder / f"{name}.inter"]
    is_list = isinstance(endings, (list, tuple))
    listed = is_list and all(isinstance(ending, str) for ending in endings)
    if not listed or len(endings) != len(PARTS):
        raise ConfigError(
            f"benchmark_filename is {endings!r}; it must list three endings, those of the "
            "training, the validation and the test file: "
            f"--benchmark_filename=[train,valid,test] reads {name}.train.inter, "
            f"{name}.valid.inter and {name}.test.inter."
        )
    if set(endings) == set(PARTS) and tuple(endings) != PARTS:
        raise ConfigError(
            f"benchmark_filename is [{', '.join(endings)}]; the order of the files is training, "
            "validation, test: --benchmark_filename=[train,valid,test]."
        )
    return [folder / f"{name}.{ending}.inter" for ending in endings]


def read_interactions(
    path: Path,
    file_format: FileFormat,
    roles: dict[str, str],
    load: Collection[str] | None = None,
    optional: Collection[str] = (),
) -> InteractionTable:
    """Read a file of interactions.

    Args:
        path: the file.
        file_format: how it is written.
        roles: types of the columns of ids (``token``), times (``float``) and histories
            (``token_seq``), by name.
        load: the columns to load, None for all.
        optional: columns of ``roles`` and ``load`` that the file need not have.

    Raises:
        DataError: names the first bad line and what is wrong with it.
    """
    file = AtomicFile(path, file_format)
    kinds = read_header(file, roles)
    for name in roles:
        if name not in kinds and name not in optional:
            raise DataError(
                f"{path}, line {file.header_line}: there is no column {name!r}; the columns are "
                f"{', '.join(map(ascii, kinds))}. Name yours with --USER_ID_FIELD, --ITEM_ID_FIELD "
                "and --TIME_FIELD (and --load_col); without times, add positions 1, 2, 3, ... a "
                "user."
            )
    names = loaded_columns(path, kinds, load, optional)
    kinds_of_names = {name: kinds[name] for name in names}
    plain = read_plain(file, kinds, names, roles)
    if plain is not None:
        frame = plain.frame(names)
        first = file.header_line + 1
        lines = np.arange(first, first + len(frame))
    else:
        frame, lines = _read_lines(file, kinds, names, roles, file_format.sequence_separator)
    return InteractionTable(path, frame, kinds_of_names, kinds, lines)


def read_coded_interactions(
    path: Path, file_format: FileFormat, roles: dict[str, str]
) -> PlainTable | None:
    """Ids and times of a file without an object for each row.

    Args:
        path: the file.
        file_format: how it is written.
        roles: types of the columns, by name.

    Returns:
        The columns; ``None`` where a column is missing, rows carry lists, or the file has
        something unusual.

    Raises:
        DataError: see :func:`read_interactions`.
    """
    file = AtomicFile(path, file_format)
    kinds = read_header(file, roles)
    has_lists = any(kind.endswith("_seq") for kind in kinds.values())
    if has_lists or any(name not in kinds for name in roles):
        return None
    return read_plain(file, kinds, list(roles), roles)


def _read_lines(
    file: AtomicFile,
    kinds: dict[str, str],
    names: list[str],
    roles: dict[str, str],
    between: str,
) -> tuple[pd.DataFrame, np.ndarray]:
    """The columns ``names`` of a file, line by line, and the line of each row.

    Args:
        file: the file.
        kinds: RecBole's type of each column of the file.
        names: columns to load.
        roles: types of the columns of ids, times and histories by name.
        between: what stands between the words of a sequence.

    Raises:
        DataError: names the first bad line and what is wrong with it.
    """
    path = file.path
    places = [list(kinds).index(name) for name in names]
    columns = [_Column(name, kinds[name], name in roles, between) for name in names]
    lines = []
    for row in file.rows():
        cells = [file.id(cell) for cell in row.cells]
        problem = _problem(row, file, len(kinds))
        if problem is None:
            for place, column in zip(places, columns, strict=True):
                problem = problem or column.add(cells[place])
        if problem:
            shown = file.separator.join(row.cells)[:80]
            raise DataError(
                f"{path}, line {row.line}: {problem} Correct or remove the line: {shown!r}"
            )
        lines.append(row.line)
    if not lines:
        raise DataError(f"{path}, line {file.header_line}: no row follows the header.")
    for column in columns:
        if column.kind == "token" and column.name in roles:
            _check_spaces(path, column, lines)
        if column.kind == "float" and column.name in roles:
            _check_told_apart(path, column, lines)
    frame = pd.DataFrame({column.name: column.series() for column in columns})
    return frame, np.array(lines)


def _check_spaces(path: Path, column: _Column, lines: list[int]) -> None:
    """See :func:`~.id_forms.check_spaces`."""

    def where(name: str) -> str:
        return f"{path}, line {lines[column.values.index(name)]}"

    check_spaces(column.values, column.name, where)


def _check_told_apart(path: Path, column: _Column, lines: list[int]) -> None:
    """Refuse different times that are one number here, which would lose their order.

    Raises:
        DataError: names the first two lines.
    """
    if column.series().dtype == np.int64:
        return
    alike = rounded_alike(column.texts, column.values)
    if alike is None:
        return
    first, second = alike
    raise DataError(
        f"{path}, lines {lines[first]} and {lines[second]}: the times {column.texts[first]!r} and "
        f"{column.texts[second]!r} have more digits than a number of 64 bits, which makes them "
        "equal and loses their order. Write times as whole numbers, such as nanoseconds since "
        "1970, or as dates down to microseconds."
    )


def _problem(row: Row, file: AtomicFile, width: int) -> str | None:
    """What is wrong with a row, whatever its columns mean."""
    if row.problem:
        return row.problem
    if len(row.cells) != width:
        return f"it has {len(row.cells)} cells, the header has {width}."
    for cell in row.cells:
        if "\0" in cell or "\r" in cell:
            return "it holds a NUL or a carriage return."
        if file.is_open(cell):
            return OPEN
    return None


class _Column:
    """Values of one column, checked one by one."""

    def __init__(self, name: str, kind: str, has_role: bool, sequence_separator: str):
        self.name = name
        self.kind = kind
        self._between = sequence_separator
        self.values: list = []
        self.texts: list[str] = []  # of times, as they are written
        self._dates: bool | None = None
        readers: dict[str, Callable[[str], str | None]] = {"token": self._id, "float": self._time}
        self.add = readers.get(kind, self._plain) if has_role else self._plain

    def series(self) -> pd.Series:
        """The values that were added; times float64, or where they are large int64."""
        is_large = bool(self.texts) and max(map(abs, self.values)) >= LARGE
        whole = whole_times(self.texts) if is_large else None
        if whole is not None:
            return pd.Series(whole)
        return value_series(self.values, self.kind)

    def _id(self, cell: str) -> str | None:
        if not cell.strip(string.whitespace) or cell in RESERVED:
            return (
                f"{cell!r} as an id in {self.name!r} means a missing value to pandas, or padding "
                "to RecBole; rename it."
            )
        if "\n" in cell:
            return f"the id {cell!r} in {self.name!r} holds a line end."
        self.values.append(cell)
        return None

    def _time(self, cell: str) -> str | None:
        time = read_time(cell)
        if time is None:
            return f"its time {cell!r} is not a number and no date such as 2024-05-31T12:00:00."
        dates = is_date(cell)
        if self._dates is None:
            self._dates = dates
        if dates != self._dates:
            return f"its time {cell!r} is a date and others are numbers, or the other way round."
        self.values.append(time)
        self.texts.append(cell)
        return None

    def _plain(self, cell: str) -> str | None:
        try:
            value = cell_value(cell, self.kind, self._between)
        except ValueError:
            what = "a number" if self.kind == "float" else "a sequence of numbers"
            return f"{cell!r} in {self.name!r} is not {what}."
        self.values.append(value)
        return None
