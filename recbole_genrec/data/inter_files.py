"""RecBole's ``.inter`` files, looked through before RecBole reads them.

RecBole hands them to pandas, which takes an id such as ``NA`` for a missing value and then drops the row, lets a stray quote swallow the
lines up to the next one, and shifts the columns of a file whose rows have one cell more than its header.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from recbole_genrec.errors import DataError

RESERVED = frozenset(
    b"#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null,[PAD]".split(
        b","
    )
)
"""What ``pandas.read_csv`` takes for a missing value, besides the empty cell, and RecBole's name of the padding."""


def interaction_files(config) -> list[Path]:
    """The ``.inter`` files of RecBole's ``config``: one, or those of ``benchmark_filename``."""
    parts = [f".{part}" for part in config["benchmark_filename"] or ()] or [""]
    return [Path(config["data_path"]) / f"{config['dataset']}{part}.inter" for part in parts]


def check_interactions(
    path: Path, ids: Sequence[str], time: str | None, separator: str = "\t", encoding: str = "utf-8"
) -> None:
    """Refuse a file that RecBole would misread.

    Args:
        ids: names of the columns that hold user and item ids. time: name of the column of times, if the file must have one.

    Raises:
        DataError: names the first bad line and what is wrong with it.
    """
    between = separator.encode()
    with open(path, "rb") as stream:
        header = stream.readline().removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in header:
            raise DataError(
                f"{path}, line 1: lines end with carriage returns. Write the file with line feeds."
            )
        names = [
            cell.partition(b":")[0].decode(encoding, "replace") for cell in header.split(between)
        ]
        for wanted in [*ids, *([time] if time else [])]:
            if wanted not in names:
                raise DataError(
                    f"{path}, line 1: there is no column {wanted!r}; the columns are {', '.join(map(ascii, names))}. Name yours with "
                    "--USER_ID_FIELD, --ITEM_ID_FIELD and --TIME_FIELD (and --load_col); without times, add positions 1, 2, 3, ... a user."
                )
        keys, number_at = [names.index(name) for name in ids], names.index(time) if time else None
        for number, line in enumerate(stream, start=2):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if not line:
                continue
            wrong = _wrong_with(line, line.split(between), len(names), keys, number_at, encoding)
            if wrong:
                raise DataError(
                    f"{path}, line {number}: {wrong} Correct or remove the line: {line[:80]!r}"
                )


def _wrong_with(
    line: bytes,
    cells: list[bytes],
    width: int,
    keys: list[int],
    number_at: int | None,
    encoding: str,
) -> str | None:
    if len(cells) != width:
        return f"it has {len(cells)} cells, the header has {width}."
    if b"\0" in line or b"\r" in line:
        return "it holds a NUL or a carriage return."
    if b'"' in line and any(
        cell[:1] == b'"' and (len(cell) < 2 or cell[-1:] != b'"') for cell in cells
    ):
        return "a quote opens a cell and does not close it."
    if not line.isascii():
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            return f"it is not {encoding}."
    for key in keys:
        if not cells[key].strip() or cells[key] in RESERVED:
            return f"{cells[key].decode(encoding)!r} as an id means a missing value to pandas, or padding to RecBole; rename it."
    if number_at is not None:
        try:
            finite = math.isfinite(float(cells[number_at])) and b"_" not in cells[number_at]
        except ValueError:
            finite = False
        if not finite:
            return "its time is not a number."
    return None
