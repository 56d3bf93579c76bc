"""Rows that stand in two of the files that come split: a test asks for what was learned."""

from __future__ import annotations

from logging import getLogger

import numpy as np
import pandas as pd

from recbole_genrec.data.histories.history_digests import digests
from recbole_genrec.data.splits.split_rows import SplitRows
from recbole_genrec.errors import DataError

logger = getLogger(__name__)

FEWEST = 5
"""Repeated rows that may be chance (our choice)."""

LEAKED = 0.05
"""Share of the rows of a file from which repeated ones are a leak (our choice)."""

TIMES_CHANCE = 3
"""How many times as often as within the training file rows are repeated then (our choice)."""

NEARLY_ALL = 0.99
"""Share of the rows of a file from which repeated ones are a leak, where nothing else tells them
from real ones (our choice)."""

DAY = 86_400
"""Seconds. A day of milliseconds or nanoseconds is a multiple of it."""

SAME_PAIRS = 0.5
"""Share of pairs of user and item, without times, from which the log says so (our choice)."""


def check_repeated_rows(rows: SplitRows) -> None:
    """Refuse files that share rows: the same user, item, time and history.

    Rows of one time may be real repetitions, which are then as frequent within the training file.
    Without times and histories nothing tells the purchases of a user apart; a large share of common
    pairs is a warning, and nearly all of them are a leak. So are days alone as times, where any
    repeated row is a warning: a training file without duplicates does not show how many are real.

    Args:
        rows: the rows of all files.

    Raises:
        DataError: names one such row, and how many there are.
    """
    keys = {"user": rows.users.codes, "item": rows.targets.codes}
    if rows.times is not None:
        keys["time"] = rows.times
    if rows.has_histories:
        keys["history"] = digests(rows.words.codes, rows.lengths, rows.words.names)
    numbers = pd.DataFrame(keys).groupby(list(keys), sort=False).ngroup().to_numpy()
    by_part = [np.flatnonzero(rows.part == part) for part in range(len(rows.tables))]
    chance = pd.Series(numbers[by_part[0]]).duplicated(keep=False).mean()
    limit = max(LEAKED, TIMES_CHANCE * chance)
    if rows.times is not None and not rows.has_histories and _are_days(rows.times):
        limit = NEARLY_ALL
    for later in range(1, len(by_part)):
        for earlier in range(later):
            _check_pair(rows, numbers, by_part[earlier], by_part[later], list(keys), limit)


def _are_days(times: np.ndarray) -> bool:
    """Whether times lie whole days apart.

    Args:
        times: of events ``[n]``, in seconds or a smaller unit.
    """
    return bool(((times - times.min()) % DAY == 0).all())


def _check_pair(
    rows: SplitRows,
    numbers: np.ndarray,
    earlier: np.ndarray,
    later: np.ndarray,
    keys: list[str],
    limit: float,
) -> None:
    """One file and a later one.

    Args:
        rows: the rows of all files.
        numbers: equal for equal rows, int64 ``[n]``.
        earlier: rows of the one file.
        later: rows of the other.
        keys: what is equal.
        limit: share of the later file's rows from which repeated ones are a leak.
    """
    repeated = later[np.isin(numbers[later], numbers[earlier])]
    if not len(repeated):
        return
    share = len(repeated) / len(later)
    first = repeated[0]
    before = earlier[numbers[earlier] == numbers[first]][0]
    message = (
        f"{rows.where(first)}: the row stands in {rows.where(before)}, too, with the same "
        f"{', '.join(keys[:-1])} and {keys[-1]}, as {len(repeated)} of {len(later)} rows of the "
        "file. Leave each row in one file; else a model is tested on what it has seen."
    )
    has_pairs_alone = len(keys) == 2  # without times and histories
    if has_pairs_alone:
        limit = NEARLY_ALL
    if len(repeated) >= FEWEST and share >= limit:
        raise DataError(message)
    if share >= SAME_PAIRS or not has_pairs_alone:
        logger.warning(message)
