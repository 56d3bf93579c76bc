"""Sinkhorn's algorithm: assignments that use all codes alike."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError, DataError


def sinkhorn(distances: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Balanced soft assignment Q of squared ``distances [..., B, K]`` in float64, times B.

    LC-Rec, uniform semantic mapping.

    Distances are centred to [-1, 1] over each matrix, ``Q = exp(-d / epsilon)``; each iteration
    scales the rows (items) to sum 1/B, then the columns (codes) to sum 1/K, as the released
    implementation does.
    """
    distances = distances.double()
    if not torch.isfinite(distances).all():
        raise DataError(
            "Sinkhorn: a distance is no finite number. Check the vectors and the codes."
        )
    n_items, n_codes = distances.shape[-2:]
    low, high = distances.amin((-2, -1), keepdim=True), distances.amax((-2, -1), keepdim=True)
    middle = (high + low) / 2
    logits = -(distances - middle) / (high - middle + 1e-5) / epsilon
    plan = torch.exp(
        logits - logits.amax(-1, keepdim=True)
    )  # a factor per row, which the first row scaling removes
    for _ in range(iterations):
        plan = plan / plan.sum(-1, keepdim=True) / n_items
        plan = plan / plan.sum(-2, keepdim=True) / n_codes
    if not torch.isfinite(plan).all():
        raise ConfigError(
            f"Sinkhorn: epsilon {epsilon} is too small for float64; use 0.003 or more."
        )
    return plan * n_items


def sinkhorn_codes(distances: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Code of each item ``[..., B]``.

    The largest entry of its row of :func:`sinkhorn`, the first of equal ones.
    """
    return sinkhorn(distances, epsilon, iterations).argmax(-1)
