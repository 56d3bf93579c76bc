"""An item's content vector as the input of a model without a text vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SoftPrefix(nn.Module):
    """Two input vectors for an item: a task marker, and ``W e_i`` of its content vector ``e_i``.

    Our choice, unpublished.

    Args:
        read: returns the content vectors ``[n_items, D]``, standardised; they are not part of the
            ``state_dict``.
        width: of the model's input vectors.
        content_width: D where it is known, from a checkpoint; the vectors are then read when they
            are first used.
    """

    def __init__(self, read: Callable[[], Tensor], width: int, content_width: int | None = None):
        super().__init__()
        self.read = read
        vectors: Tensor | None = None
        if content_width is None:
            vectors = read()
            content_width = vectors.shape[1]
        self.vectors: Tensor | None
        self.register_buffer("vectors", vectors, persistent=False)
        self.marker = nn.Parameter(torch.randn(width) * 0.02)
        self.projection = nn.Linear(content_width, width)

    def forward(self, items: Tensor) -> Tensor:
        """Item ids ``[B]`` -> ``[B, 2, width]``."""
        if self.vectors is None:
            self.vectors = self.read().to(items.device)
        marker = self.marker.expand(len(items), -1)  # [B, width]
        content = self.projection(self.vectors[items])  # [B, width]
        return torch.stack([marker, content], dim=1)

    def source(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of items, and that both of each count ``[B, 2]``.

        Args:
            items: item ids ``[B]``.
        """
        vectors = self(items)
        return vectors, vectors.new_ones(vectors.shape[:2], dtype=torch.bool)

    def forget(self) -> None:
        """Read the vectors again when they are next used, because there are more items."""
        self.vectors = None
