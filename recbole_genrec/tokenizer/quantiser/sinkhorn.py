"""Sinkhorn's algorithm: assignments that use all codes alike."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError, DataError


def sinkhorn(distances: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Balanced soft assignment Q, times B (LC-Rec, uniform semantic mapping).

    Distances are centred to [-1, 1] over each matrix, ``Q = exp(-d / epsilon)``; each iteration
    scales the rows (items) to sum 1/B, then the columns (codes) to sum 1/K, as the released
    implementation does.

    Args:
        distances: squared, of B items to K codes, ``[..., B, K]``.
        epsilon: regularisation; the smaller, the harder the assignment.
        iterations: of row and column scaling.

    Returns:
        float64 ``[..., B, K]``.

    Raises:
        DataError: a distance is no finite number.
        ConfigError: ``epsilon`` is too small for float64.
    """
    distances = distances.double()
    low, high = distances.amin((-2, -1), keepdim=True), distances.amax((-2, -1), keepdim=True)
    if not torch.isfinite(high - low).all():
        raise DataError(
            "Sinkhorn: a distance is no finite number. Check the vectors and the codes."
        )
    middle = (high + low) / 2
    logits = (middle - distances).div_(high - middle + 1e-5).div_(epsilon)
    # a factor per row, which the first row scaling removes
    kernel = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    plan = _scaled(kernel, iterations)
    if not torch.isfinite(plan.sum()):
        # factors may leave the range of numbers where the plan itself does not
        plan = _scaled_in_place(kernel, iterations)
    if not torch.isfinite(plan.sum()):
        raise ConfigError(
            f"Sinkhorn: epsilon {epsilon} is too small for float64; use 0.003 or more."
        )
    return plan.mul_(distances.shape[-2])


def _scaled(kernel: Tensor, iterations: int) -> Tensor:
    """The plan as ``diag(rows) kernel diag(columns)``: an iteration reads the kernel twice.

    Args:
        kernel: ``[..., B, K]``.
        iterations: of row and column scaling.
    """
    n_items, n_codes = kernel.shape[-2:]
    rows = kernel.new_ones(*kernel.shape[:-1], 1)  # [..., B, 1]
    columns = kernel.new_ones(*kernel.shape[:-2], 1, n_codes)  # [..., 1, K]
    for _ in range(iterations):
        rows = (kernel @ columns.transpose(-1, -2)).mul_(n_items).reciprocal_()
        columns = (rows.transpose(-1, -2) @ kernel).mul_(n_codes).reciprocal_()
    return (rows * kernel).mul_(columns)


def _scaled_in_place(plan: Tensor, iterations: int) -> Tensor:
    """The same with the plan itself scaled in each iteration."""
    n_items, n_codes = plan.shape[-2:]
    for _ in range(iterations):
        plan = plan / plan.sum(-1, keepdim=True) / n_items
        plan = plan / plan.sum(-2, keepdim=True) / n_codes
    return plan


def sinkhorn_codes(distances: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The code of each item: the largest entry of its row of :func:`sinkhorn`.

    Args:
        distances: as of :func:`sinkhorn`.
        epsilon: as of :func:`sinkhorn`.
        iterations: as of :func:`sinkhorn`.

    Returns:
        int64 ``[..., B]``; of equal entries the first.

    Raises:
        DataError: as of :func:`sinkhorn`.
        ConfigError: as of :func:`sinkhorn`.
    """
    return sinkhorn(distances, epsilon, iterations).argmax(-1)
