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
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.training.row_adam import ROW_STEPS

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of the state of Adam and AdamW: one tensor of the shape of each weight."""

MANY = 0.5
"""Share of the rows of a table from which all of them travel (our choice)."""


def check_local_steps(settings: SharedSettings) -> None:
    """Refuse settings whose state cannot be averaged.

    Args:
        settings: of a run of several processes.

    Raises:
        ConfigError: ``local_steps`` with another ``learner`` than adam and adamw, with ``fsdp``,
            ``precision: fp16`` or ``self_improve``.
    """
    if not settings.local_steps:
        return
    if settings.learner not in ROW_STEPS:
        raise ConfigError(
            f"local_steps averages the state of adam and adamw, and learner is "
            f"{settings.learner!r}. Choose one of them, or leave local_steps at 0."
        )
    if settings.fsdp:
        raise ConfigError(
            "local_steps needs the whole model in every process, and fsdp shares its weights. "
            "Leave one of them out."
        )
    if settings.precision == "fp16":
        raise ConfigError(
            "local_steps: under fp16 each process would skip steps of its own. Use precision: bf16."
        )
    if settings.self_improve:
        raise ConfigError(
            "local_steps: every process would align the same items (self_improve). Leave one of "
            "them out."
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
        for weight in model.parameters():
            dist.broadcast(weight.data, 0)

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
        weights = list(_weights(optimiser))
        for weight, group in weights:
            _begin_state(weight, optimiser, group)
        _share_step_numbers([optimiser.state[weight]["step"] for weight, _ in weights])
        for weight, _ in weights:
            if weight not in self._changed:
                _average_whole(_with_moments(weight, optimiser))
        _average_whole(more)
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
    get the same batch share its rows. A batch of fewer rows goes whole to each of them.

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
    number = rank() % len(together)
    place = rank() // len(together)
    batch = together[number]
    sharers = len(range(number, size(), len(together)))
    yield batch if len(batch) < sharers else batch[torch.arange(place, len(batch), sharers)]


def _weights(optimiser: Optimizer) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
    """The trained weights, in the same order in all processes, each with its group."""
    for group in optimiser.param_groups:
        for weight in group["params"]:
            yield weight, group


def _begin_state(weight: nn.Parameter, optimiser: Optimizer, group: dict[str, Any]) -> None:
    """Give a weight that this process has not changed yet the state that others may have."""
    if weight in optimiser.state:
        return
    device = weight.device if group.get("fused") else torch.device("cpu")
    moments = {name: torch.zeros_like(weight) for name in MOMENTS}
    optimiser.state[weight] = {"step": torch.zeros((), device=device), **moments}


def _with_moments(weight: nn.Parameter, optimiser: Optimizer) -> list[Tensor]:
    """A weight and its moments."""
    return [weight.data, *(optimiser.state[weight][name] for name in MOMENTS)]


def _share_step_numbers(counters: list[Tensor]) -> None:
    """Let each weight count as many steps as in the process that has changed it most often."""
    steps = torch.tensor([float(counter) for counter in counters])
    dist.all_reduce(steps, dist.ReduceOp.MAX)
    for counter, step in zip(counters, steps, strict=True):
        counter.fill_(step)


def _average_whole(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their means over the processes."""
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= size()


def _average_rows(tensor: Tensor, rows: Tensor, shares: Tensor) -> None:
    """Replace rows by the sum over the processes of ``shares`` of them.

    Args:
        tensor: ``[N, ...]``.
        rows: numbers of the rows, the same in all processes ``[R]``.
        shares: of this process ``[R]``.
    """
    column = [-1, *[1] * (tensor.dim() - 1)]
    if len(rows) >= MANY * len(tensor):
        # In place: the other rows are equal in all processes, and process 0 gives them.
        of_all = shares.new_full((len(tensor),), float(rank() == 0)).index_copy_(0, rows, shares)
        dist.all_reduce(tensor.mul_(of_all.view(column)))
        return
    mean = tensor.index_select(0, rows).mul_(shares.view(column))
    dist.all_reduce(mean)
    tensor.index_copy_(0, rows, mean)
