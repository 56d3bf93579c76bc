"""The copies of a model, one a process, that train as one: whole copies (DDP), or each process keeps a share of every weight (FSDP)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recbole_genrec.runtime.processes import size


class Replicas:
    """Gives the copies of a model the mean of their gradients.

    With ``fsdp`` (PyTorch's ``fully_shard``) a process keeps ``1 / size()`` of the weights, their gradients and the optimiser's state.
    For a batch the weights are gathered, and where the backbone lists its ``layers``, layer by layer. An evaluation, whose number of
    steps differs between processes, gathers the whole model.

    Args:
        model: with equal weights in all processes. FSDP changes its parameters, so the optimiser must be built afterwards.
        fsdp: share the weights instead of copying them.
    """

    def __init__(self, model: nn.Module, fsdp: bool = False):
        self.model = model
        self._copies, self._root, self._layers = None, None, []
        if size() > 1 and fsdp:
            self._shard()
        elif (
            size() > 1
        ):  # a parameter that no part of the batch uses keeps grad = None, as in one process
            self._copies = DistributedDataParallel(
                _Identity(model), find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def _shard(self) -> None:
        from torch.distributed.fsdp import fully_shard

        self._root = _Root(self.model)
        self._layers = [
            layer
            for module in self.model.modules()
            for layer in getattr(module, "layers_called_whole", ())
        ]
        for unit in (*self._layers, self._root):
            fully_shard(unit)
        self._root(
            lambda: None
        )  # FSDP must see its root first, and an evaluation may come before the first batch
        self._root.reshard()

    def __call__(self, compute: Callable[[], object]):
        """The losses that ``compute()`` returns, or its ``None``; backward leaves the mean gradient over the processes."""
        if self._root is not None:
            return self._root(compute)
        losses = compute()
        return losses if self._copies is None or losses is None else self._copies(losses)

    @contextlib.contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """Around :meth:`__call__` and backward of a batch; with ``more`` batches to come before the step, gradients stay where they are."""
        if self._root is not None:
            self._root.set_requires_gradient_sync(not more)
        with (
            self._copies.no_sync()
            if self._copies is not None and more
            else contextlib.nullcontext()
        ):
            yield

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All weights in every process, for work that differs between them."""
        units = [] if self._root is None else [*self._layers, self._root]
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        yield
        for unit in units:
            unit.set_reshard_after_forward(unit is not self._root, recurse=False)
            unit.reshard()

    # --- checkpoints: the same files as those of one process --------------------------------------

    def gathered(self, state):
        """``state`` (nested dictionaries and lists) with whole tensors; all processes must call it."""
        if isinstance(state, dict):
            return {key: self.gathered(value) for key, value in state.items()}
        if isinstance(state, list):
            return [self.gathered(value) for value in state]
        return state.full_tensor().cpu() if _is_shared(state) else state

    def weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Undo :meth:`gathered` for the weights of the model."""
        own = self.model.state_dict()
        return {name: _like(tensor, own.get(name)) for name, tensor in state.items()}

    def optimiser_state(self, optimiser: torch.optim.Optimizer, state: dict) -> dict:
        """Undo :meth:`gathered` for the state of an optimiser."""
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        moments = {
            number: {key: _like(value, parameters[number]) for key, value in own.items()}
            for number, own in state["state"].items()
        }
        return {**state, "state": moments}


def _is_shared(value: object) -> bool:
    return hasattr(value, "full_tensor")  # a DTensor


def _like(whole: Tensor, own: Tensor | None) -> Tensor:
    """This process's share of a tensor, if ``own`` is the share of one of that shape."""
    if not _is_shared(own) or whole.shape != own.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements)


class _Identity(nn.Module):
    """What DistributedDataParallel wraps: it needs only the parameters, and to see what backward starts from.

    Our losses are no ``forward``, and buffers, which it would send around before every batch, are the same everywhere.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.parameters_of_model = nn.ParameterList(model.parameters())

    def forward(self, losses):
        return losses


class _Root(nn.Module):
    """What FSDP wraps: the weights are there while ``compute`` runs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, compute: Callable):
        return compute()
