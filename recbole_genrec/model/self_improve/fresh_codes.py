"""Rows of codes that no item has start anew after a refresh: ``si_reinit_unused``.

SIIT (arXiv 2412.17171) does not say what becomes of them; the rule is our choice. A code that its
items left would otherwise keep their meaning until other items take it. The moments of the
optimiser stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from recbole_genrec.model.self_improve.host import SelfImproving


@torch.no_grad()
def start_unused_codes_anew(model: SelfImproving, generator: torch.Generator) -> int:
    """Draw the rows of codes that no item has, near the rows of the codes of their level in use.

    Each number comes from a normal distribution with the mean and the standard deviation of its
    column over the rows in use; beside a single one the deviation is that of the whole level.
    Reserved codes are in use.

    Args:
        model: with the codes of the refresh.
        generator: draws the numbers, on the CPU, so that all processes draw the same.

    Returns:
        Number of codes, over all levels.
    """
    codes = torch.cat([model.codes[1:], model.reserved_codes()]).cpu()  # [N + R, L]
    count = 0
    for level, size in enumerate(model.level_sizes):
        is_used = torch.bincount(codes[:, level], minlength=size) > 0
        unused = (~is_used).nonzero().squeeze(1)
        if not len(unused):
            continue
        used = is_used.nonzero().squeeze(1)
        for rows in model.code_rows(level):
            rows[unused.to(rows.device)] = _drawn_like(rows, used, len(unused), generator)
        count += len(unused)
    return count


def _drawn_like(rows: Tensor, used: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """New rows ``[count, d]`` that are distributed as some rows of a table.

    Args:
        rows: of the codes of a level, ``[V, d]``.
        used: numbers of the rows that they resemble.
        count: how many.
        generator: on the CPU.
    """
    examples = rows[used.to(rows.device)].float()  # [n, d]
    noise = torch.randn(count, rows.shape[1], generator=generator).to(rows.device)
    spread = examples.std(0, correction=0)
    if len(used) == 1:
        spread = rows.float().std(0, correction=0)  # a single row has no spread
    return (examples.mean(0) + spread * noise).to(rows.dtype)
