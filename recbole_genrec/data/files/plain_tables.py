"""Files of interactions without quotes and oddities, read at once: no Python object for a row.

Ids become one text for each different id, times become numbers. Whatever is unusual about a file is
left to the reader of single lines, which says what is wrong and where.
"""

from __future__ import annotations

import codecs
import mmap
import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from recbole_genrec.data.files.atomic_files import AtomicFile
from recbole_genrec.data.files.cell_values import RESERVED
from recbole_genrec.data.files.times import LARGE

ODDITIES = (b'"', b"\r", b"\0", b"\n\n")
"""Bytes that only the reader of single lines understands: quotes, other line ends, empty lines."""

TEXT = pa.dictionary(pa.int32(), pa.string())


class Coded(NamedTuple):
    """A column of ids.

    Attributes:
        texts: the different ids, object ``[n_texts]``.
        codes: the text of each row, int32 ``[n]``.
    """

    texts: np.ndarray
    codes: np.ndarray

    def rows(self) -> np.ndarray:
        """The id of each row, object ``[n]``."""
        return self.texts[self.codes]


class PlainTable(NamedTuple):
    """The columns of a file by name.

    Attributes:
        ids: columns of ids.
        times: columns of numbers ``[n]``, float64 or where they are large int64.
    """

    ids: dict[str, Coded]
    times: dict[str, np.ndarray]

    def frame(self, names: Sequence[str]) -> pd.DataFrame:
        """The columns ``names`` with one text for each row."""
        columns = {}
        for name in names:
            columns[name] = self.ids[name].rows() if name in self.ids else self.times[name]
        return pd.DataFrame(columns)


def read_plain(
    file: AtomicFile,
    kinds: Mapping[str, str],
    names: Sequence[str],
    roles: Mapping[str, str],
) -> PlainTable | None:
    """The columns of a file of ids and times, as the reader of single lines gives them.

    Args:
        file: the file.
        kinds: RecBole's type of each column of the file.
        names: columns to load.
        roles: types of the columns of ids and times by name.

    Returns:
        The columns; ``None`` where the file has something unusual.
    """
    if not _is_plain(file, kinds, names, roles):
        return None
    try:
        return _columns(file, kinds, names)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError):
        return None


def _columns(file: AtomicFile, kinds: Mapping[str, str], names: Sequence[str]) -> PlainTable | None:
    types = {name: TEXT if kinds[name] == "token" else pa.float64() for name in names}
    table = _table(file, kinds, types)
    if not len(table):
        return None
    plain = PlainTable({}, {})
    for name in names:
        column = table.column(name)
        if kinds[name] == "token":
            ids = _ids(column)
            if ids is None:
                return None
            plain.ids[name] = ids
        else:
            times = _times(file, kinds, name, column.to_numpy())
            if times is None:
                return None
            plain.times[name] = times
    return plain


def _is_plain(
    file: AtomicFile,
    kinds: Mapping[str, str],
    names: Sequence[str],
    roles: Mapping[str, str],
) -> bool:
    if file.separator != "\t" or file.header_line != 1 or len(file.columns) != len(kinds):
        return False
    if codecs.lookup(file.encoding).name != "utf-8":
        return False
    if any(name not in roles or roles[name] not in ("token", "float") for name in names):
        return False
    with open(file.path, "rb") as stream:
        header = stream.readline()
        stream.seek(0)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            odd = any(content.find(oddity) >= 0 for oddity in ODDITIES)
    has_mark = header.startswith(codecs.BOM_UTF8)
    return not odd and not has_mark and header.count(b"\t") + 1 == len(kinds)


def _table(
    file: AtomicFile, kinds: Mapping[str, str], types: Mapping[str, pa.DataType]
) -> pa.Table:
    """The columns of a file that ``types`` names."""
    return csv.read_csv(
        file.path,
        csv.ReadOptions(column_names=list(kinds), skip_rows=1, block_size=2**24),
        csv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False),
        csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[], check_utf8=True
        ),
    )


def _ids(column: pa.ChunkedArray) -> Coded | None:
    """One Python text for each different id; ``None`` where one of them is unusual."""
    encoded = column.unify_dictionaries().combine_chunks()
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    texts = np.array(chunks[0].dictionary.to_pylist(), dtype=object)
    known = set(texts)
    for text in texts:
        bare = text.strip()
        if text in RESERVED or not text.strip(string.whitespace):
            return None
        if bare != text and bare in known:
            return None
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    return Coded(texts, np.concatenate(codes))


def _times(
    file: AtomicFile, kinds: Mapping[str, str], name: str, numbers: np.ndarray
) -> np.ndarray | None:
    """Numbers ``[n]`` that keep the order of the file's; ``None`` where they may not.

    Args:
        file: the file.
        kinds: RecBole's type of each column of the file.
        name: of the column.
        numbers: what float64 makes of the column ``[n]``.
    """
    if not np.isfinite(numbers).all():
        return None
    if np.abs(numbers).max() >= LARGE:
        return _table(file, kinds, {name: pa.int64()}).column(name).to_numpy()
    if (numbers % 1).any():
        texts = _table(file, kinds, {name: TEXT}).column(name).unify_dictionaries()
        if len(texts.chunk(0).dictionary) != len(np.unique(numbers)):
            return None
    return numbers
