"""Refusal of fits that hardly tell items apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_genrec.errors import GenRecError
from recbole_genrec.tokenizer.collision import collision_stats

COLLAPSED = 0.9
"""Share of the items that may have one and the same tuple before the fit is refused."""
FEWEST_IDS = 0.05
"""Share of the possible ids that must be there, or the fit is refused."""
REMEDY = (
    "Check that the item texts differ and that text_encoder knows their language and reads them to "
    "the end (its warning stands above), keep standardize: True, train it longer or with another "
    "seed, or use tokenizer: rkmeans."
)


def refuse_collapse(rows: Tensor, what: str) -> None:
    """Refuse ``rows [n, ...]`` nearly all of which are equal."""
    if rows.dtype == torch.long:
        same = collision_stats(rows)["largest_group"]
    else:
        same = int((rows == rows[0]).all(1).sum())
    if len(rows) > 1 and same > COLLAPSED * len(rows):
        raise GenRecError(
            f"The tokenizer collapsed: {same} of {len(rows)} items have the same {what}. {REMEDY}"
        )


def possible_ids(sizes: Sequence[int], x: Tensor) -> int:
    """How many distinct ids the sizes allow for vectors ``[n, D]``."""
    return min(len(x.unique(dim=0)), math.prod(sizes))


def refuse_few_ids(codes: Tensor, possible: int, when: str = "") -> None:
    """Refuse codes with far fewer distinct ids than there could be.

    Args:
        codes: ``[n, L]``, before any repair.
        possible: see :func:`possible_ids`.
        when: for the message, when this was seen.

    Raises:
        GenRecError: fewer than 5 % of what there could be.
    """
    distinct = len(codes.unique(dim=0))
    if distinct < FEWEST_IDS * possible:
        raise GenRecError(
            f"The tokenizer collapsed{when}: {len(codes)} items have {distinct} distinct ids. "
            f"{REMEDY}"
        )


def refuse_single_codes(codes: Tensor, sizes: Sequence[int], x: Tensor) -> None:
    """Refuse a level with one code in use, unless the levels before it tell all items apart.

    Args:
        codes: ``[n, L]``.
        sizes: codes of each level.
        x: vectors ``[n, D]``; items with equal ones need not be told apart.
    """
    n_vectors = len(x.unique(dim=0))
    for level, size in enumerate(sizes):
        told_apart = len(codes[:, :level].unique(dim=0)) if level else 1
        single = size > 1 and len(codes[:, level].unique()) == 1
        if single and told_apart < n_vectors:
            raise GenRecError(
                f"The tokenizer collapsed: all items have the same code at level {level}. {REMEDY}"
            )
