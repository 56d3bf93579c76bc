"""How ids that fill up histories are told from items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from recbole_genrec.data.splits.split_rows import SplitRows

FILLERS = frozenset({"0", "-1", "pad", "<pad>", "padding", "[pad]", "none", "null", "nan", "na"})
"""What people write, in lower case, where a history is shorter than others."""

MANY = 0.1
"""Share of the histories whose end an item fills up where it is padding (our choice)."""

SEVERAL = 0.01
"""Share of the histories whose end an id fills up that is never a target (our choice)."""

OTHER_END = 0.25
"""Most histories with the item at their other end, as a share of those (our choice)."""


def filling_stranger(rows: SplitRows) -> tuple[int, str] | None:
    """Row and id of padding that is no target and fills an end of histories.

    A single one is padding where it has a name that padding has, and where it ends a history or all
    histories have the same length. Any other id is where it stands twice at the same end of several
    histories, and nowhere else; an item that people choose twice stands elsewhere, too.

    Args:
        rows: the rows of all files.
    """
    items, names = rows.words.codes, rows.words.names
    is_stranger = ~rows.is_target
    is_named = is_stranger & np.array([name.lower() in FILLERS for name in names], dtype=bool)
    is_change = (rows.words.rows[1:] == rows.words.rows[:-1]) & (items[1:] != items[:-1])
    filled = np.flatnonzero(rows.lengths > 1)
    start, end = rows.starts[filled], rows.starts[filled + 1]
    one_length = len(rows.lengths) > 1 and np.ptp(rows.lengths) == 0

    found: list[tuple[int, str]] = []
    for outer, inner, elsewhere, may_be_single in (
        (items[end - 1], items[end - 2], items[:-1][is_change], True),
        (items[start], items[start + 1], items[1:][is_change], one_length),
    ):
        is_twice = outer == inner
        count = np.bincount(outer[is_twice], minlength=len(names))
        is_filler = is_stranger & (count >= max(2, SEVERAL * len(filled)))
        is_filler[elsewhere] = False
        at_end = is_twice & (is_filler | is_named)[outer]
        if may_be_single:
            at_end |= is_named[outer]
        places = np.flatnonzero(at_end)[:1]
        found += [(int(filled[place]), names[outer[place]]) for place in places]
    return min(found, default=None)


def filling_item(histories: Sequence[np.ndarray]) -> tuple[int, str] | None:
    """Row and id of padding whose id is that of an item, too.

    Histories that are filled up have one length, and one id stands twice at the same end of many.
    Items that people choose again stand twice at either end.

    Args:
        histories: ids of each row.
    """
    lengths = {len(history) for history in histories}
    if len(lengths) != 1 or min(lengths) < 3:
        return None
    at_end = Counter(history[-1] for history in histories if history[-1] == history[-2])
    at_start = Counter(history[0] for history in histories if history[0] == history[1])
    for here, there in ((at_end, at_start), (at_start, at_end)):
        for item, count in here.most_common(1):
            if count >= max(2, MANY * len(histories)) and there[item] <= OTHER_END * count:
                return _first_filled(histories, item), item
    return None


def _first_filled(histories: Sequence[np.ndarray], item: str) -> int:
    for row, history in enumerate(histories):
        if item == history[0] == history[1] or item == history[-1] == history[-2]:
            return row
    raise AssertionError(item)
