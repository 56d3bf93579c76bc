"""One vector an item: of its whole text, or the mean of one for each field of the text.

LC-Rec (arXiv 2311.09049) and LETTER (arXiv 2405.07314) encode title and description apart and take
the mean of the two vectors; of an item with one of them they take that one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np


def pooled_fields(pooling: str | None, fields: Sequence[str] | None) -> tuple[str, ...]:
    """The fields whose vectors are averaged; none where the whole text has one vector.

    Args:
        pooling: value of the key ``text_pooling``.
        fields: value of the key ``item_text_fields``.
    """
    if pooling != "fields" or fields is None or len(fields) < 2:
        return ()
    return tuple(fields)


def field_values(text: str, fields: Sequence[str]) -> list[str]:
    """The values in an item text, which reads ``field: value, field: value``.

    A text that was not made of fields is one value.

    Args:
        text: of an item, as :func:`~recbole_genrec.data.items.item_text.read_item_texts` renders
            it.
        fields: names in their order in the text; those without a value are not there.
    """
    starts: list[tuple[int, int]] = []
    place = 0
    for name in fields:
        before = ", " if starts else ""
        match = re.compile(re.escape(f"{before}{name}: ")).search(text, place)
        if match is not None and (starts or match.start() == 0):
            starts.append(match.span())
            place = match.end()
    if not starts:
        return [text]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    return [text[start:end] for (_, start), end in zip(starts, ends, strict=True)]


def encode_items(
    texts: Sequence[str], fields: Sequence[str], encode: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """Vectors of items, float32 ``[n, D]``.

    Args:
        texts: one an item; an empty one has the zero vector.
        fields: see :func:`pooled_fields`.
        encode: vectors ``[m, D]`` of m texts.
    """
    if not fields:
        return encode(list(texts))
    values = [field_values(text, fields) for text in texts]
    vectors = encode([value for item in values for value in item])
    counts = np.array([len(item) for item in values], dtype=np.int64)
    starts = counts.cumsum() - counts
    sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
    return (sums / counts[:, None]).astype(np.float32)
