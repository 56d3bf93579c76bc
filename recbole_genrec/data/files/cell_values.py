"""The values of cells of RecBole's files: what counts as missing, numbers, words of sequences."""

from __future__ import annotations

import numpy as np
import pandas as pd

RESERVED = frozenset(
    [
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
        "[PAD]",
    ]
)
"""What pandas takes for a missing value, and RecBole's name of the padding."""


def cell_value(cell: str, kind: str, between: str) -> object:
    """The value of a cell that is neither an id nor a time.

    Args:
        cell: its text.
        kind: RecBole's type of the column.
        between: what stands between the words of a sequence.

    Returns:
        A text, ``None`` where it is missing; a number, NaN where it is missing; or an array of
        words or of float64.

    Raises:
        ValueError: a number cannot be read.
    """
    if kind == "token":
        return None if not cell or cell in RESERVED else cell
    if kind == "float":
        return float(cell) if cell.strip() and cell not in RESERVED else np.nan
    words = [word for word in cell.split(between) if word]
    if kind == "token_seq":
        return np.array(words, dtype=object)
    return np.array([float(word) for word in words], dtype=np.float64)


def value_series(values: list, kind: str) -> pd.Series:
    """Values of a column of RecBole's type ``kind``: float64 for ``float``, objects for others."""
    return pd.Series(values, dtype="float64" if kind == "float" else "object")
