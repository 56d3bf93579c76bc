"""An item's content vector as the input of a model without a text vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SoftPrefix(nn.Module):
    """ "Task marker, ``W e_i``": two input vectors for an item with content vector ``e_i`` (our choice, unpublished).

    Args:
        vectors: ``[n_items, D]``, standardised; not part of the ``state_dict``.
        width: of the model's input vectors.
    """

    def __init__(self, vectors: Tensor, width: int):
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.marker = nn.Parameter(torch.randn(width) * 0.02)
        self.projection = nn.Linear(vectors.shape[1], width)

    def forward(self, items: Tensor) -> Tensor:
        """Item ids ``[B]`` -> ``[B, 2, width]``."""
        return torch.stack([self.marker.expand(len(items), -1), self.projection(self.vectors[items])], dim=1)
