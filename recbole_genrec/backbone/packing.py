"""Sequences of very different lengths through a causal language model without padding waste.

A batch is *flat*: the tokens of its sequences one after another, ``[T, d]``, and their ``lengths [B]`` with sum T. ``padded[valid]`` makes a
flat batch of a right-padded one; labels and states are indexed alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROW_COST = 0


def length_groups(lengths: Tensor) -> list[Tensor]:
    """Sequence numbers in groups of similar length."""
    order = torch.argsort(lengths, stable=True)
    return list(order.split(16))


def flat_index(lengths: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the tokens of some sequences lie in a flat batch.

    Returns:
        places ``[n, S]`` in the flat batch and which of them count, right-padded (padding repeats place 0).
    """
    starts = lengths.cumsum(0) - lengths
    places = torch.arange(int(lengths[rows].max()), device=lengths.device)
    valid = places < lengths[rows].unsqueeze(1)
    return (starts[rows].unsqueeze(1) + places) * valid, valid
