"""The number format of scores and losses."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or as they are if they are more precise."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
