"""How much memory a training keeps for good: weights, gradients and the optimiser's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

GB = 1e9
STATES = {
    "adam": 2.0,
    "adamw": 2.0,
    "sparse_adam": 2.0,
    "adagrad": 1.0,
    "rmsprop": 1.0,
    "sgd": 0.0,
}
"""Numbers that an optimiser keeps for each trained weight, in the weight's format."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training, without activations.

    Attributes:
        weights: trained and frozen.
        gradients: of the trained weights.
        state: of the optimiser.
    """

    weights: int
    gradients: int
    state: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.state

    def shared(self, processes: int) -> TrainingMemory:
        """What each process holds where all weights are shared out (``fsdp``).

        Args:
            processes: how many share them.
        """
        sizes = (self.weights, self.gradients, self.state)
        return TrainingMemory(*(size // processes for size in sizes))

    def __str__(self) -> str:
        sizes = f"weights {_gb(self.weights)}, gradients {_gb(self.gradients)}"
        return f"{_gb(self.total)} ({sizes}, optimiser {_gb(self.state)}) and the activations"


def training_memory(weights: Iterable[Tensor], learner: str) -> TrainingMemory:
    """The memory of a training.

    Args:
        weights: parameters, each once; meta tensors too. Those with ``requires_grad`` train.
        learner: value of the key.
    """
    total = gradients = state = 0
    for weight in weights:
        size = weight.numel() * weight.element_size()
        total += size
        if weight.requires_grad:
            gradients += size
            state += _state(weight, learner)
    return TrainingMemory(total, gradients, state)


def _state(weight: Tensor, learner: str) -> int:
    """Bytes of the optimiser's state of a weight."""
    if learner.endswith("8bit"):
        return 2 * weight.numel()
    if learner == "adafactor":
        if weight.dim() < 2:
            return 4 * weight.numel()
        rows, columns = weight.shape[-2:]
        return 4 * (rows + columns) * (weight.numel() // max(1, rows * columns))
    return int(STATES[learner] * weight.numel() * weight.element_size())


def available_memory(device: torch.device) -> int:
    """Free bytes of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _gb(size: float) -> str:
    """``"107.8 GB"``, ``"53 MB"``."""
    if size >= 0.1 * GB:
        return f"{size / GB:.1f} GB"
    return f"{size / 1e6:.1f} MB"
