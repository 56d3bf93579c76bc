"""Dropout that costs one random byte an element on a CPU.

Drawing random floats there takes a third of a small model's training step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero elements of ``x`` and scale the others to keep the mean.

    Args:
        x: of any shape.
        p: probability, rounded to a multiple of 1/256 on a CPU. On a GPU, and where it rounds to 0
            or 1, this is PyTorch's own dropout.
        training: ``False`` returns ``x``.
    """
    level = round(256 * p)
    if not training or x.device.type != "cpu" or not 0 < level < 256:
        return nn.functional.dropout(x, p, training)
    count = x.numel()
    n_words = -(-count // 8)  # 8 bytes each, rounded up
    words = torch.empty(n_words, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
    keep = words.view(torch.uint8)[:count].view(x.shape)
    keep.ge_(level)  # 0 or 1 in place: making booleans takes longer than drawing the bytes
    return x * keep.to(x.dtype).mul_(256 / (256 - level))


class Dropout(nn.Dropout):
    """:func:`dropout` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with elements dropped, in training."""
        return dropout(x, self.p, self.training)


def cheapen(module: nn.Module) -> None:
    """Replace every ``nn.Dropout`` inside ``module`` by :class:`Dropout`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
