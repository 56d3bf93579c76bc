"""Histories that files carry: what they must be, oldest item first and the target not among them.

Whatever else they are runs without an error and gives wrong figures.
"""

from __future__ import annotations

import re
from logging import getLogger

import numpy as np

from recbole_genrec.data.files.cell_values import RESERVED
from recbole_genrec.data.splits.padding import filling_item, filling_stranger
from recbole_genrec.data.splits.split_rows import SplitRows
from recbole_genrec.errors import DataError

logger = getLogger(__name__)

ADVICE = (
    "Write histories without padding, oldest item first: each ends with the item before the target."
)

FEWEST = 10
"""Rows that must speak against a file before it is refused (our choice)."""

CHANGES = 0.1
"""Most targets that differ from the history's last item, as a share of those that would if targets
followed as the items of histories do (our choice)."""

NEARLY_ALL = 0.99
"""Share of targets that are the history's last item, from which a file is refused and not only
reported: who buys what they clicked last have fewer (our choice)."""

NEWEST_FIRST = 0.5
"""Share of a user's next histories that grow at the wrong end (our choice)."""

STRANGERS = 0.5
"""Share of the ids in histories that are no target, from which the log says so (our choice)."""


def check_histories(rows: SplitRows, histories: list[np.ndarray], order: np.ndarray) -> None:
    """Refuse padding, ids that are no items, the row's own target, and the newest item first.

    Args:
        rows: the rows of all files.
        histories: ids of each row.
        order: the rows by user and event, int64 ``[n]``.

    Raises:
        DataError: names the first such row.
    """
    _check_reserved(rows)
    _check_padding(rows, histories)
    _check_strangers(rows, histories)
    _check_own_targets(rows)
    _check_order(rows, order)


def _check_reserved(rows: SplitRows) -> None:
    for code, name in enumerate(rows.words.names):
        if name in RESERVED:
            where = rows.where_named(code, rows.words)
            raise DataError(f"{where}: the history holds {name!r}. {ADVICE}")


def _check_padding(rows: SplitRows, histories: list[np.ndarray]) -> None:
    filler = filling_stranger(rows)
    if filler is not None:
        row, item = filler
        raise DataError(
            f"{rows.where(row)}: item {item!r} fills up histories and is never a target. {ADVICE}"
        )
    of_training = histories[: len(rows.tables[0].frame)]
    filler = filling_item(of_training)
    if filler is not None:
        row, item = filler
        raise DataError(
            f"{rows.where(row)}: all histories of the file hold {len(histories[row])} items, "
            f"and many have item {item!r} twice at the same end. It fills them up, although "
            f"there is an item of this name. {ADVICE}"
        )


def _check_strangers(rows: SplitRows, histories: list[np.ndarray]) -> None:
    """Refuse histories whose ids are cut at the wrong places; report many that are no targets."""
    words, is_target = rows.words, rows.is_target
    found = np.flatnonzero(~is_target[words.codes])
    if len(found) == len(words.codes):
        raise DataError(
            f"{rows.where(0)}: not one id of the histories in {words.column!r} is a target "
            f"in {rows.targets.column!r}; the first history is {list(histories[0])[:3]}. Check the "
            "ids, and --seq_separator, which stands between them."
        )
    targets = set(words.names[is_target])
    letters = set("".join(targets))
    for code in np.flatnonzero(~is_target).tolist():
        name = words.names[code]
        items = _between_marks(name, letters)
        if items and targets.issuperset(items):
            raise DataError(
                f"{rows.where_named(code, words)}: the history holds the id {name!r}, which is "
                f"never a target, and the parts of it are: {', '.join(map(repr, items[:3]))}. "
                "--seq_separator must be what stands between the ids of a history; nothing else "
                "may stand around them."
            )
    if len(found) >= STRANGERS * len(words.codes):
        logger.warning(
            "%s: %r and %d more of the %d ids in histories are never a target. Check the ids, and "
            "--seq_separator, which stands between them.",
            rows.where(words.rows[found[0]]),
            words.names[words.codes[found[0]]],
            len(found) - 1,
            len(words.codes),
        )


def _between_marks(name: str, letters: set[str]) -> list[str]:
    """What stands between the marks of an id that no target holds; empty without such marks."""
    marks = "".join({mark for mark in name if not mark.isalnum()} - letters)
    if not marks:
        return []
    return [item for item in re.split(f"[{re.escape(marks)}]", name) if item]


def _check_own_targets(rows: SplitRows) -> None:
    """Refuse files whose histories end with the row's own target; report those where most do.

    Items that are chosen again and again follow each other within histories, too, so that fewer
    targets are expected to differ from the item before them.

    Where histories are clicks and targets purchases, most people may buy what they clicked last.
    """
    words, targets = rows.words, rows.targets.codes
    follows = words.rows[1:] == words.rows[:-1]
    differs = words.codes[1:] != words.codes[:-1]
    rate = 1.0
    if follows.any():
        rate = float(differs[follows].mean())
    filled = np.flatnonzero(rows.lengths)
    is_own = words.codes[rows.starts[filled + 1] - 1] == targets[filled]
    for part in range(len(rows.tables)):
        here = rows.part[filled] == part
        own = filled[here & is_own]
        n_rows = int(here.sum())
        n_others = n_rows - len(own)
        if rate * n_rows >= FEWEST and n_others <= CHANGES * rate * n_rows:
            _refuse_or_report(rows, own, n_rows)
        if part == 0 and n_rows >= FEWEST:  # as in training, so in the later files
            rate = min(rate, n_others / n_rows)


def _refuse_or_report(rows: SplitRows, own: np.ndarray, n_rows: int) -> None:
    """A file of which most histories end with the row's own target.

    Args:
        rows: the rows of all files.
        own: those rows of the file.
        n_rows: all rows of the file that have a history.

    Raises:
        DataError: it is nearly all of them.
    """
    item = rows.targets.names[rows.targets.codes[own[0]]]
    message = (
        f"{rows.where(own[0])}: the history ends with {item!r}, the item of the row itself, as "
        f"{len(own)} of {n_rows} histories of the file do"
    )
    share = len(own) / n_rows
    if share >= NEARLY_ALL:
        raise DataError(f"{message}. {ADVICE}")
    logger.warning(
        f"{message} ({share:.1%}). This may be right where histories are clicks and targets "
        f"purchases. {ADVICE}"
    )


def _check_order(rows: SplitRows, order: np.ndarray) -> None:
    """Refuse histories that grow at their beginning from one row of a user to the next.

    Histories may be cut: then the next one is as long, and lacks the item at its other end.
    """
    earlier, later = order[:-1], order[1:]
    grown = rows.lengths[later] - rows.lengths[earlier]
    comparable = (rows.users.codes[later] == rows.users.codes[earlier]) & (rows.lengths[later] > 1)
    comparable &= (rows.lengths[earlier] > 0) & ((grown == 0) | (grown == 1))
    earlier, later, grown = earlier[comparable], later[comparable], grown[comparable]

    items, targets = rows.words.codes, rows.targets.codes
    start, end = rows.starts[earlier], rows.starts[earlier + 1]
    next_start, next_end = rows.starts[later], rows.starts[later + 1]
    new = items[next_start]
    at_start = (new == targets[earlier]) | (new == targets[later])
    at_start &= items[next_start + 1] == items[start]
    at_start &= items[next_end - 1] == items[end - 2 + grown]
    at_end = items[next_end - 2] == items[end - 1]
    at_end &= items[next_start] == items[start + 1 - grown]
    wrong = np.flatnonzero(at_start & ~at_end)
    if len(wrong) >= max(FEWEST, NEWEST_FIRST * len(later)):
        raise DataError(
            f"{rows.where(later[wrong[0]])}: the history is that of the user's row before, with an "
            f"item put in front, as {len(wrong)} of {len(later)} histories that follow one of the "
            f"same user. {ADVICE}"
        )
