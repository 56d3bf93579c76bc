"""A batch that several processes share: all of its rows, and what of a draw one process takes.

All processes make the same draws for the whole batch and take theirs, so together they compute
what one process would.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.model.lcrec.cases import AnyCase, TargetsCase
from recbole_genrec.runtime import processes


def own_rows(count: int) -> Tensor:
    """Numbers of the rows of this process among ``count`` rows of all, as ``own_part`` takes them.

    Unlike there, a process has none where there are too few.
    """
    return torch.arange(processes.rank(), count, processes.size())


def own_samples(case: AnyCase) -> AnyCase:
    """The samples of this process among those of all."""
    if processes.size() == 1:
        return case
    return case.pick(own_rows(len(case.item)), case.item.device)


def whole_batch(batch: TargetsCase) -> TargetsCase:
    """The rows of all processes in the order of the batch that they share.

    Args:
        batch: the rows of this process.
    """
    if processes.size() == 1:
        return batch
    (longest,) = processes.largest([batch.history.shape[1]])
    padding = (0, int(longest) - batch.history.shape[1])
    values = {name: value for name, value in vars(batch).items() if value is not None}
    for name, value in values.items():
        if value.dim() == 2:
            value = pad(value, padding)
        rows = processes.gathered(value.cpu().long())
        values[name] = _in_turn(rows).to(value)
    return replace(batch, **values)


def _in_turn(rows: Tensor) -> Tensor:
    """Rows ``[N, ...]`` that stand process by process, in the order in which these took them."""
    n_processes = processes.size()
    order = [torch.arange(first, len(rows), n_processes) for first in range(n_processes)]
    ordered = torch.empty_like(rows)
    ordered[torch.cat(order)] = rows
    return ordered
