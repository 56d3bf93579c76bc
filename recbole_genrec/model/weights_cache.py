"""What follows from the weights of a model alone, kept while they do not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

Value = TypeVar("Value")


class WeightsCache:
    """A value that is computed from the weights of a model and kept until they change.

    What is kept is computed in float32, also under autocast: evaluations run under it, and
    recommendations do not. In training and with gradients nothing is kept.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Compute the value anew when it is next asked for."""
        self._version: tuple | None = None
        self._value: Any = None

    def get(self, model: nn.Module, compute: Callable[[], Value]) -> Value:
        """What ``compute`` returns, or returned before for the same parameters and buffers."""
        if model.training or torch.is_grad_enabled():
            return compute()
        # torch counts the changes of a tensor in place, an optimiser step or a loaded state among
        # them; another tensor has another identity
        tensors = [*model.parameters(), *model.buffers()]
        version = tuple((id(tensor), tensor._version, tensor.device) for tensor in tensors)
        if version != self._version:
            with torch.autocast(tensors[0].device.type, enabled=False):
                self._value = compute()
            self._version = version
        return self._value
