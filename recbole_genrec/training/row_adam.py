"""Adam that changes the rows of a table alone to which a step has gradients.

With a sparse gradient torch's Adam and AdamW stop with an error, and its SparseAdam knows no weight
decay and no dense parameters. Here a row keeps its moments until the next step that touches it; the
correction of the bias counts the steps that change rows of the table. Where every
row has a gradient at each step the result is that of Adam and AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn.functional import pad
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adam import adam

from recbole_genrec.errors import ConfigError

LONG = 48
"""Rows of a block on average from which blocks are changed where they lie (measured)."""

VECTOR = 16
"""Rows of a multiple of so many numbers take torch's fused kernel, which rounds numbers that fill
no vector in another way: equal rows with equal gradients would not stay equal."""


def coalesced(gradient: Tensor) -> Tensor:
    """A sparse gradient with each row once, in rising order.

    Args:
        gradient: of a table, sparse ``[n_rows, ...]``, whose values are ``[R, ...]``. Autograd
            loses the mark of one whose rows are rising already, and torch would sort them again.

    Returns:
        Sparse ``[n_rows, ...]``.
    """
    rows = gradient._indices()[0]
    if gradient.is_coalesced() or not bool((rows.diff() > 0).all()):
        return gradient.coalesce()
    return torch.sparse_coo_tensor(
        gradient._indices(),
        gradient._values(),
        gradient.shape,
        check_invariants=False,
        is_coalesced=True,
    )


class _Blocks:
    """Rows of a table as blocks that lie side by side.

    Args:
        rows: their numbers, rising and each once, int64 ``[R]``.
        n_rows: of the table.

    Attributes:
        are_long: whether changing the blocks where they lie is faster than taking copies.
    """

    def __init__(self, rows: Tensor, n_rows: int) -> None:
        ends = (rows.diff() != 1).nonzero().squeeze(1) + 1
        self.are_long = rows.device.type == "cpu" and len(rows) >= LONG * (len(ends) + 1)
        if not self.are_long:
            return
        firsts = pad(ends, (1, 0))
        lengths = torch.diff(firsts, append=ends.new_tensor([len(rows)]))
        starts = rows[firsts]
        gaps = starts - pad((starts + lengths)[:-1], (1, 0))
        self._lengths = lengths.tolist()
        # What lies between the blocks, and the blocks, in turns.
        self._sizes = torch.stack([gaps, lengths], 1).flatten().tolist()
        self._sizes.append(n_rows - sum(self._sizes))

    def of(self, table: Tensor) -> list[Tensor]:
        """The blocks of a table."""
        return list(table.split(self._sizes)[1::2])

    def of_rows(self, values: Tensor) -> list[Tensor]:
        """Values of the rows ``[R, ...]`` block by block."""
        return list(values.split(self._lengths))


class RowSteps(Optimizer):
    """What stands before Adam or AdamW so that tables with sparse gradients are changed by rows.

    Attributes:
        decouples_decay: whether weight decay shrinks the weights, or is added to the gradient.
    """

    decouples_decay: bool

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """As torch's."""
        gradients = []
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._step_rows(table, group)
                    gradients.append((table, table.grad))
                    table.grad = None
        result = super().step(closure)
        for table, gradient in gradients:
            table.grad = gradient
        return result

    def _step_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        """Change the rows of ``table`` that have a gradient."""
        state = self.state[table]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table)
        gradient = coalesced(table.grad)  # type: ignore[arg-type]
        rows = gradient.indices()[0]  # [R]
        values = gradient.values()  # [R, ...]
        if not len(rows):
            return
        state["step"] += 1
        blocks = _Blocks(rows, len(table))
        tables = [table, state["exp_avg"], state["exp_avg_sq"]]
        is_fused = table.device.type == "cpu" and table[0].numel() % VECTOR == 0
        if blocks.are_long and is_fused:
            in_place = [blocks.of(tensor) for tensor in tables]
            self._adam(in_place, blocks.of_rows(values), state, group, is_fused)
            increment_version(table)  # the blocks do not tell the table
            return
        copies = [tensor.index_select(0, rows) for tensor in tables]
        self._adam([[copy] for copy in copies], [values], state, group, is_fused)
        for tensor, copy in zip(tables, copies, strict=True):
            tensor.index_copy_(0, rows, copy)

    def _adam(
        self,
        tensors: list[list[Tensor]],
        gradients: list[Tensor],
        state: dict[str, Any],
        group: dict[str, Any],
        is_fused: bool,
    ) -> None:
        """Change weights and moments in place.

        Args:
            tensors: weights, means and means of squares, each in the same blocks of rows.
            gradients: of the blocks.
            state: of the table.
            group: of the optimiser.
            is_fused: whether one pass over the memory does it.
        """
        weights, means, squares = tensors
        first_rate, second_rate = group["betas"]
        # The function counts the step in a tensor for each of the weights.
        steps = (state["step"] - 1).expand(len(weights)).clone().unbind()
        adam(
            weights,
            gradients,
            means,
            squares,
            [],
            list(steps),
            fused=is_fused,
            amsgrad=False,
            beta1=first_rate,
            beta2=second_rate,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            decoupled_weight_decay=self.decouples_decay,
        )


class RowAdam(RowSteps, Adam):
    """Adam with tables whose gradients are sparse."""

    decouples_decay = False


class RowAdamW(RowSteps, AdamW):
    """AdamW with tables whose gradients are sparse; rows without gradient do not decay."""

    decouples_decay = True


ROW_STEPS: dict[str, type[RowAdam] | type[RowAdamW]] = {"adam": RowAdam, "adamw": RowAdamW}


def check_row_learner(name: str) -> None:
    """Refuse an optimiser that cannot change single rows of tables.

    Args:
        name: value of ``learner``.

    Raises:
        ConfigError: another ``learner`` than adam and adamw.
    """
    if name not in ROW_STEPS:
        raise ConfigError(
            f"sparse_tables: True needs learner adam or adamw, and learner is {name!r}."
        )


def row_optimiser(
    name: str, parameters: Any, learning_rate: float, weight_decay: float
) -> Optimizer:
    """The optimiser of a model whose tables have sparse gradients.

    Args:
        name: value of ``learner``.
        parameters: parameters or groups of them.
        learning_rate: of groups without their own.
        weight_decay: likewise.

    Raises:
        ConfigError: see :func:`check_row_learner`.
    """
    check_row_learner(name)
    return ROW_STEPS[name](parameters, lr=learning_rate, weight_decay=weight_decay)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float, **options: Any) -> None:
    """``torch.nn.utils.clip_grad_norm_``, also where some gradients are sparse.

    Args:
        parameters: of the model.
        max_norm: largest norm of all gradients together.
        **options: others of torch's function.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not any(gradient.is_sparse for gradient in gradients):
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, **options)
        return
    values = []
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            # The values of a coalesced gradient have the norm of the gradient.
            gradient = coalesced(gradient)
            parameter.grad = gradient
            gradient = gradient.values()
        values.append(gradient)
    total = torch.nn.utils.get_total_norm(values, **options)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
