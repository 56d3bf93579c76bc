"""Adam that changes the rows of a table alone to which a step has gradients.

With a sparse gradient torch's Adam and AdamW stop with an error, and its SparseAdam knows no weight
decay and no dense parameters. Here a row keeps its moments until the next step that touches it; the
correction of the bias counts the steps of the table, as in ``torch.optim.SparseAdam``. Where every
row has a gradient at each step the result is that of Adam and AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from recbole_genrec.errors import ConfigError


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
        state["step"] += 1
        step = float(state["step"])
        first_rate, second_rate = group["betas"]

        gradient = table.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()  # [R], [R, ...]
        weights = table[rows]
        decay = group["weight_decay"]
        if decay and self.decouples_decay:
            weights = weights * (1 - group["lr"] * decay)
        elif decay:
            values = values + decay * weights

        mean = state["exp_avg"][rows].lerp(values, 1 - first_rate)
        square = state["exp_avg_sq"][rows] * second_rate
        square = square.addcmul(values, values, value=1 - second_rate)
        state["exp_avg"][rows] = mean
        state["exp_avg_sq"][rows] = square
        scale = (square.sqrt() / (1 - second_rate**step) ** 0.5).add_(group["eps"])
        table[rows] = weights - group["lr"] / (1 - first_rate**step) * mean / scale


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
            gradient = gradient.coalesce()
            parameter.grad = gradient
            gradient = gradient.values()
        values.append(gradient)
    total = torch.nn.utils.get_total_norm(values, **options)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
