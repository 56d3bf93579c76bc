"""An item's content vector as the input of a model without a text vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SoftPrefix(nn.Module):
    """ "Task marker, ``W e_i``": two input vectors for an item with content vector ``e_i`` (our choice, unpublished).

    Args:
        read: returns ``[n_items, D]``, standardised; not part of the ``state_dict``.
        width: of the model's input vectors.
        content_width: D where it is known, from a checkpoint; the vectors are then read when they are first used.
    """

    def __init__(self, read: Callable[[], Tensor], width: int, content_width: int | None = None):
        super().__init__()
        self.read = read
        self.register_buffer("vectors", read() if content_width is None else None, persistent=False)
        self.marker = nn.Parameter(torch.randn(width) * 0.02)
        self.projection = nn.Linear(content_width or self.vectors.shape[1], width)

    def forward(self, items: Tensor) -> Tensor:
        """Item ids ``[B]`` -> ``[B, 2, width]``."""
        if self.vectors is None:
            self.vectors = self.read().to(items.device)
        return torch.stack(
            [self.marker.expand(len(items), -1), self.projection(self.vectors[items])], dim=1
        )

    def forget(self) -> None:
        """Read the vectors again when they are next used: there are more items."""
        self.vectors = None
