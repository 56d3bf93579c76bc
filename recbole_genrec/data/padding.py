"""How ids that fill up histories are told from items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

FILLERS = frozenset({"0", "-1", "pad", "<pad>", "padding", "[pad]", "none", "null", "nan", "na"})
"""What people write, in lower case, where a history is shorter than others."""

MANY = 0.1
"""Share of the histories whose end an item fills up where it is padding (our choice)."""

OTHER_END = 0.25
"""Most histories with the item at their other end, as a share of those (our choice)."""


def filling_stranger(
    histories: Sequence[np.ndarray], strangers: set[str]
) -> tuple[int, str] | None:
    """Row and id of padding that is no target and fills an end of histories.

    Two in a row at an end are padding; a single one is where it has a name that padding has, and
    where it ends a history or all histories have the same length.

    Args:
        histories: ids of each row.
        strangers: ids that are never a target.
    """
    lengths = {len(history) for history in histories}
    for row, history in enumerate(histories):
        if len(history) < 2:
            continue
        first, second, before, last = history[0], history[1], history[-2], history[-1]
        for item, neighbour, may_be_single in (
            (last, before, True),
            (first, second, len(lengths) == 1 and len(histories) > 1),
        ):
            if item not in strangers:
                continue
            named = may_be_single and item.lower() in FILLERS
            if item == neighbour or named:
                return row, item
    return None


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
