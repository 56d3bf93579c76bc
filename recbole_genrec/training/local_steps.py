"""Processes that train apart for some steps and then average what they have learned: local SGD.

Stich 2019, "Local SGD Converges Fast and Communicates Little" (arXiv 1805.09767). A row of a table
with sparse gradients is averaged over the processes that have changed it (our choice), so that
rare rows learn as fast as in one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from recbole_genrec.errors import ConfigError
from recbole_genrec.runtime.processes import rank, size

LEARNERS = ("adam", "adamw")
"""Optimisers whose state has a mean: one tensor of the shape of each weight."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of that state."""

MANY = 0.5
"""Share of the rows of a table from which all of them travel (our choice)."""


def check_local_steps(learner: str, fsdp: bool) -> None:
    """Refuse settings whose state cannot be averaged.

    Args:
        learner: value of ``learner``.
        fsdp: whether each process keeps a share of the weights.

    Raises:
        ConfigError: another ``learner`` than adam and adamw, or ``fsdp``.
    """
    if learner not in LEARNERS:
        raise ConfigError(
            f"local_steps averages the state of adam and adamw, and learner is {learner!r}. "
            "Choose one of them, or leave local_steps at 0."
        )
    if fsdp:
        raise ConfigError(
            "local_steps needs the whole model in every process, and fsdp shares its weights. "
            "Leave one of them out."
        )


class LocalSteps:
    """Steps that each process takes on batches of its own, up to the next average.

    Args:
        model: with equal weights in all processes.
        every: steps between two averages.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        self.every = every
        self._taken = 0
        tables = list(getattr(model, "sparse_parameters", ()))
        self._changed = {table: torch.zeros(len(table), dtype=torch.bool) for table in tables}

    def note_rows(self) -> None:
        """Remember which rows of tables the present gradients will change."""
        for table, changed in self._changed.items():
            if table.grad is not None:
                changed[table.grad._indices()[0].cpu()] = True

    def is_due(self, last: bool) -> bool:
        """Count a step.

        Args:
            last: whether it is the last one of an epoch.

        Returns:
            Whether the processes must average now.
        """
        self._taken += 1
        return last or self._taken == self.every

    @torch.no_grad()
    def average(self, optimiser: Optimizer, more: Iterable[Tensor] = ()) -> None:
        """Give all processes the mean of their weights and of the optimiser's moments.

        Args:
            optimiser: of the model.
            more: further tensors of this process to average.
        """
        self._taken = 0
        dense = []
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                _begin_state(parameter, optimiser, group)
                if parameter not in self._changed:
                    dense += _with_moments(parameter, optimiser)
        _share_step_numbers(optimiser)
        _average_whole([*dense, *more])
        for table, changed in self._changed.items():
            count = changed.to(torch.int32)
            dist.all_reduce(count)
            rows = count.nonzero().squeeze(1)  # [R]
            shares = changed[rows] / count[rows]  # [R]
            for tensor in _with_moments(table, optimiser):
                _average_rows(tensor, rows.to(tensor.device), shares.to(tensor))
            changed.fill_(False)


def own_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """Every ``size()``-th batch, beginning with that of this process.

    What is left at the end is divided, so that every process has as many batches: processes that
    get the same batch share its rows.

    Args:
        batches: of all processes, each a tensor or an ``Interaction`` with the rows first.
    """
    together: list[Any] = []
    for batch in batches:
        together.append(batch)
        if len(together) == size():
            yield together[rank()]
            together = []
    if not together:
        return
    number, place = rank() % len(together), rank() // len(together)
    batch = together[number]
    sharers = len(range(number, size(), len(together)))
    yield batch if len(batch) < sharers else batch[torch.arange(place, len(batch), sharers)]


def _begin_state(parameter: nn.Parameter, optimiser: Optimizer, group: dict[str, Any]) -> None:
    """Give a weight that this process has not changed yet the state that others may have."""
    if parameter in optimiser.state:
        return
    device = parameter.device if group.get("fused") else torch.device("cpu")
    moments = {name: torch.zeros_like(parameter) for name in MOMENTS}
    optimiser.state[parameter] = {"step": torch.zeros((), device=device), **moments}


def _with_moments(parameter: nn.Parameter, optimiser: Optimizer) -> list[Tensor]:
    """A weight and its moments."""
    return [parameter.data, *(optimiser.state[parameter][name] for name in MOMENTS)]


def _share_step_numbers(optimiser: Optimizer) -> None:
    """Let every weight count as many steps as in the process that has changed it most often."""
    counters = [state["step"] for state in optimiser.state.values()]
    steps = torch.tensor([float(counter) for counter in counters])
    dist.all_reduce(steps, dist.ReduceOp.MAX)
    for counter, step in zip(counters, steps, strict=True):
        counter.fill_(step)


def _average_whole(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over the processes, in one exchange."""
    block = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(block)
    block /= size()
    parts = block.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _average_rows(tensor: Tensor, rows: Tensor, shares: Tensor) -> None:
    """Replace rows by the sum over the processes of ``shares`` of them.

    Args:
        tensor: ``[N, ...]``.
        rows: numbers of the rows, the same in all processes ``[R]``.
        shares: of this process ``[R]``.
    """
    column = [-1, *[1] * (tensor.dim() - 1)]
    if len(rows) >= MANY * len(tensor):
        # In place: the other rows are equal in all processes.
        of_all = shares.new_full((len(tensor),), 1 / size()).index_copy_(0, rows, shares)
        dist.all_reduce(tensor.mul_(of_all.view(column)))
        return
    mean = tensor.index_select(0, rows).mul_(shares.view(column))
    dist.all_reduce(mean)
    tensor.index_copy_(0, rows, mean)
