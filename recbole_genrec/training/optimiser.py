"""What the optimiser changes, and how its learning rate runs."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def trained_parameters(model: nn.Module) -> Any:
    """Parameters or groups of parameters, as an optimiser takes them.

    Args:
        model: what is trained; ``optimiser_groups()`` gives its groups, where it has any.
    """
    groups = getattr(model, "optimiser_groups", None)
    if groups is not None:
        return groups()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # A model without parameters (Pop has a dummy one) still needs an optimiser object.
    return trained or list(model.parameters())


def make_schedule(
    optimiser: Optimizer, name: str, steps: int, warmup_ratio: float
) -> LRScheduler | None:
    """The learning-rate schedule.

    Args:
        optimiser: whose rate it sets.
        name: value of ``lr_scheduler``.
        steps: optimiser steps of the whole training.
        warmup_ratio: share of them with a rising rate.

    Returns:
        ``None`` for a constant rate.
    """
    if name == "constant":
        return None
    from transformers import get_scheduler

    steps = max(1, steps)
    warmup = int(steps * warmup_ratio)
    return get_scheduler(name, optimiser, num_warmup_steps=warmup, num_training_steps=steps)
