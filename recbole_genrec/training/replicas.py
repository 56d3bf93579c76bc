"""The copies of a model, one a process, that train as one.

Whole copies whose gradients are averaged (DDP), a share of every weight in each process (FSDP), or
whole copies that train apart and are averaged now and then (local SGD).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recbole_genrec.runtime.processes import apart, exchanged, size
from recbole_genrec.training.local_steps import LocalSteps, own_batches
from recbole_genrec.training.row_adam import coalesced

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class Replicas:
    """Gives the copies of a model the mean of their gradients, or of their weights.

    With ``fsdp`` (PyTorch's ``fully_shard``) a process keeps ``1 / size()`` of the weights, their
    gradients and the optimiser's state. For a batch the weights are gathered, and where the
    backbone lists its ``layers_called_whole``, layer by layer. An evaluation, whose number of steps
    differs between processes, gathers the whole model.

    With ``local_steps`` each process takes whole batches of its own, and nothing travels until the
    weights are averaged (:mod:`recbole_genrec.training.local_steps`).

    Args:
        model: with equal weights in all processes. FSDP changes its parameters, so the optimiser
            must be built afterwards.
        fsdp: share the weights instead of copying them.
        local_steps: steps of each process between two averages; 0 = gradients are averaged.
    """

    def __init__(self, model: nn.Module, fsdp: bool = False, local_steps: int = 0) -> None:
        self.model = model
        self._local: LocalSteps | None = None
        self._copies: DistributedDataParallel | None = None
        self._root: Any = None  # a _Root that is an FSDPModule too
        self._layers: list[FSDPModule] = []
        self._tables: list[nn.Parameter] = []
        if size() == 1:
            return
        if local_steps:
            self._local = LocalSteps(model, local_steps)
            return
        if fsdp:
            self._shard()
            return
        # A parameter that no part of the batch uses keeps grad = None, as in one process.
        self._tables = list(getattr(model, "sparse_parameters", ()))
        self._copies = DistributedDataParallel(
            _Identity(model, self._tables),
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )

    def _shard(self) -> None:
        from torch.distributed.fsdp import fully_shard

        layers: list[nn.Module] = []
        for module in self.model.modules():
            layers.extend(getattr(module, "layers_called_whole", ()))
        self._layers = [fully_shard(layer) for layer in layers]
        self._root = fully_shard(_Root(self.model))

        # FSDP must see its root first, and an evaluation may come before the first batch.
        self._root(lambda: None)
        self._root.reshard()

    def __call__(self, compute: Callable[[], Any]) -> Any:
        """Compute losses; backward leaves the mean gradient over the processes that share a batch.

        Args:
            compute: gives the losses of this process, or ``None`` where there are none.

        Returns:
            What ``compute()`` returns.
        """
        if self._root is not None:
            return self._root(compute)
        losses = compute()
        if self._copies is None or losses is None:
            return losses
        return self._copies(losses)

    # --- whose batches ----------------------------------------------------------------------------

    @property
    def batches_at_once(self) -> int:
        """How many batches the processes work on at a time."""
        return 1 if self._local is None else size()

    def own_batches(self, batches: Iterable[Any]) -> Iterable[Any]:
        """The batches that this process works on, alone or with the others."""
        return batches if self._local is None else own_batches(batches)

    def own_work(self) -> AbstractContextManager[None]:
        """Around the work on a batch; one of this process's own is computed apart."""
        return contextlib.nullcontext() if self._local is None else apart()

    # --- around a step ----------------------------------------------------------------------------

    def before_step(self) -> None:
        """Prepare the gradients for a step.

        Those of tables, which are sparse, get their mean over the processes here. The rows of all
        tables travel together, because each exchange makes the processes wait. With ``local_steps``
        nothing travels, and the rows that the step will change are noted.
        """
        if self._local is not None:
            self._local.note_rows()
        if not self._tables:
            return
        gradients = [_gradient_by_rows(table) for table in self._tables]
        widths = torch.tensor([table[0].numel() for table in self._tables])
        counts = torch.tensor([gradient._nnz() for gradient in gradients])
        n_rows = torch.stack(exchanged(counts))  # [P, tables]
        n_values = n_rows * widths
        rows = _in_one_block([gradient.indices()[0] for gradient in gradients], n_rows)
        values = _in_one_block([gradient.values().flatten() for gradient in gradients], n_values)
        values.div_(size())
        all_rows = _by_table(exchanged(rows), n_rows)
        all_values = _by_table(exchanged(values), n_values)
        for table, of_table, shared in zip(self._tables, all_rows, all_values, strict=True):
            shared = shared.view(-1, *table.shape[1:])
            mean = torch.sparse_coo_tensor(of_table.unsqueeze(0), shared, table.shape)
            table.grad = mean.to(table.device).coalesce()

    def after_step(
        self, optimiser: torch.optim.Optimizer, last: bool, averages: Iterable[Tensor] = ()
    ) -> bool:
        """Average the weights where it is time to.

        Args:
            optimiser: of the model.
            last: whether it was the last step of an epoch.
            averages: of the weights, kept by this process.

        Returns:
            Whether all processes are here with equal weights.
        """
        if self._local is None:
            return True
        is_due = self._local.is_due(last)
        if is_due:
            self._local.average(optimiser, averages)
        return is_due

    @contextlib.contextmanager
    def accumulating(self, accumulate: bool) -> Iterator[None]:
        """Around :meth:`__call__` and backward of a batch.

        Args:
            accumulate: whether further batches come before the step; gradients then stay in their
                process.
        """
        if self._root is not None:
            self._root.set_requires_gradient_sync(not accumulate)
        gradients: AbstractContextManager[Any] = contextlib.nullcontext()
        if self._copies is not None and accumulate:
            gradients = self._copies.no_sync()
        with gradients:
            yield

    @contextlib.contextmanager
    def gathered_weights(self) -> Iterator[None]:
        """All weights in every process, for work that differs between them."""
        units: list[FSDPModule] = []
        if self._root is not None:
            units = [*self._layers, self._root]
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in units:
                unit.set_reshard_after_forward(unit is not self._root, recurse=False)
                unit.reshard()

    # --- checkpoints: the same files as those of one process --------------------------------------

    def gathered(self, state: Any) -> Any:
        """``state`` with whole tensors; all processes must call it.

        Args:
            state: nested dictionaries and lists of tensors and plain values.
        """
        if isinstance(state, dict):
            return {key: self.gathered(value) for key, value in state.items()}
        if isinstance(state, list):
            return [self.gathered(value) for value in state]
        if _is_shared(state):
            return state.full_tensor().cpu()
        return state

    def weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Undo :meth:`gathered` for the weights of the model."""
        shares = self.model.state_dict()
        return {name: _share_like(tensor, shares.get(name)) for name, tensor in state.items()}

    def optimiser_state(
        self, optimiser: torch.optim.Optimizer, state: dict[str, Any]
    ) -> dict[str, Any]:
        """Undo :meth:`gathered` for the state of an optimiser.

        Args:
            optimiser: whose state it becomes.
            state: a ``state_dict()`` with whole tensors.
        """
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        moments = {}
        for number, values in state["state"].items():
            parameter = parameters[number]
            moments[number] = {key: _share_like(value, parameter) for key, value in values.items()}
        return {**state, "state": moments}


def _gradient_by_rows(table: nn.Parameter) -> Tensor:
    """The sparse gradient of a table, coalesced; one without rows where there is none."""
    if table.grad is not None:
        return coalesced(table.grad)
    rows = torch.zeros(1, 0, dtype=torch.long, device=table.device)
    return torch.sparse_coo_tensor(rows, table[:0].detach(), table.shape, is_coalesced=True)


def _in_one_block(parts: list[Tensor], counts: Tensor) -> Tensor:
    """Flat tensors one after another, in a block that is as long in every process.

    Args:
        parts: of this process, one for each table.
        counts: numbers of each table in each process, ``[P, tables]``.

    Returns:
        The block, on the CPU; what lies behind the parts is left as it is.
    """
    length = sum(len(part) for part in parts)
    block = torch.empty(int(counts.sum(1).max()), dtype=parts[0].dtype)
    torch.cat([part.cpu() for part in parts], out=block[:length])
    return block


def _by_table(blocks: list[Tensor], counts: Tensor) -> list[Tensor]:
    """What all processes have of each table, one after another.

    Args:
        blocks: of all processes, see :func:`_in_one_block`.
        counts: as there.
    """
    of_processes = [
        block[: sum(numbers)].split(numbers)
        for block, numbers in zip(blocks, counts.tolist(), strict=True)
    ]
    return [torch.cat(parts) for parts in zip(*of_processes, strict=True)]


def _is_shared(value: object) -> bool:
    """Whether this process holds a share of a tensor: a ``DTensor``."""
    return hasattr(value, "full_tensor")


def _share_like(tensor: Tensor, share: Any) -> Tensor:
    """This process's share of a whole tensor, where ``share`` is one of a tensor of its shape."""
    if not _is_shared(share) or tensor.shape != share.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(share.device), share.device_mesh, share.placements)


class _Identity(nn.Module):
    """What DistributedDataParallel wraps.

    It needs only the parameters, and to see what backward starts from. Our losses are no
    ``forward``, and buffers, which it would send around before every batch, are equal everywhere.
    Tables with sparse gradients are left to :meth:`Replicas.before_step`.
    """

    def __init__(self, model: nn.Module, tables: list[nn.Parameter]) -> None:
        super().__init__()
        left_out = {id(table) for table in tables}
        shared = [p for p in model.parameters() if id(p) not in left_out]
        self.parameters_of_model = nn.ParameterList(shared)

    def forward(self, losses: Any) -> Any:
        """The losses, unchanged."""
        return losses


class _Root(nn.Module):
    """What FSDP wraps: the weights are there while ``compute`` runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Any]) -> Any:
        """What ``compute()`` returns."""
        return compute()
