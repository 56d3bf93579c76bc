"""Ids of files that come split: written alike in all files, and known to the training file."""

from __future__ import annotations

from logging import getLogger

import numpy as np

from recbole_genrec.data.files.id_forms import check_spaces, plain_number
from recbole_genrec.data.splits.split_rows import Cells, SplitRows
from recbole_genrec.errors import DataError

logger = getLogger(__name__)

REWRITTEN = 0.1
"""Share of the ids of a file that are another file's with other zeros, from which they are refused.

Ids are texts, and a few such ids may mean other things (our choice).
"""

COLD = 0.25
"""Share of test rows whose item is in no training row, from which the log says so (our choice)."""


def check_split_ids(rows: SplitRows) -> None:
    """Refuse ids that the files write in different ways, and report test items that are unknown.

    Args:
        rows: the rows of all files.

    Raises:
        DataError: ids differ in spaces, zeros or ``.0`` alone.
    """
    _check_spaces(rows, rows.users)
    _check_spaces(rows, rows.targets, rows.words)
    known_items = rows.named(rows.targets, 0)
    _check_numbers(rows, rows.users, rows.named(rows.users, 0))
    _check_numbers(rows, rows.targets, known_items)
    _check_numbers(rows, rows.words, known_items)
    _report_cold(rows, known_items | rows.named(rows.words, 0))


def _check_spaces(rows: SplitRows, *columns: Cells) -> None:
    """See :func:`~.id_forms.check_spaces`; the columns have the same names."""
    names = columns[0].names

    def where(name: str) -> str:
        code = np.flatnonzero(names == name)[0]
        return rows.where_named(code, *columns)

    check_spaces(names, columns[0].column, where)


def _check_numbers(rows: SplitRows, cells: Cells, known: np.ndarray) -> None:
    """Refuse files whose ids are those of training as numbers and not as texts.

    Args:
        rows: the rows of all files.
        cells: ids of users, targets or histories.
        known: which of the names the training file has, bool ``[n_names]``.
    """
    written = {plain_number(name): name for name in cells.names[known]}
    is_number = [plain_number(name) in written for name in cells.names]
    is_rewritten = np.array(is_number, dtype=bool) & ~known
    if not is_rewritten.any():
        return
    for part in range(len(rows.tables)):
        here = np.flatnonzero(rows.part[cells.rows] == part)
        found = here[is_rewritten[cells.codes[here]]]
        if not len(found):
            continue
        name = cells.names[cells.codes[found[0]]]
        message = (
            f"{rows.where(cells.rows[found[0]])}: {name!r} in {cells.column!r} and "
            f"{written[plain_number(name)]!r} in the training file are one number and two ids, as "
            f"{len(found)} of {len(here)} ids of this column. Write ids alike in all files."
        )
        if len(found) >= REWRITTEN * len(here):
            raise DataError(message)
        logger.warning(message)


def _report_cold(rows: SplitRows, known: np.ndarray) -> None:
    """Warn where a large share of the test's items can be learned from no row.

    Args:
        rows: the rows of all files.
        known: which items the training file has, bool ``[n_names]``.
    """
    last = len(rows.tables) - 1
    here = np.flatnonzero(rows.part == last)
    cold = here[~known[rows.targets.codes[here]]]
    if len(cold) < COLD * len(here):
        return
    logger.warning(
        "%s: item %r is in no row of the training file; so are the items of %d of %d rows of this "
        "file, and few models recommend such items. Check that ids are written alike in all files.",
        rows.where(cold[0]),
        rows.targets.names[rows.targets.codes[cold[0]]],
        len(cold),
        len(here),
    )
