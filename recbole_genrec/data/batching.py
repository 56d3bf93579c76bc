"""Batches that carry little padding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BATCHES = 50  # batches whose rows are sorted by length together (our choice)


def length_grouped(
    order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches of rows of similar length, still random.

    The shuffled rows are cut into chunks of :data:`CHUNK_BATCHES` batches; each chunk is sorted by
    length and cut into batches, and the batches are shuffled. A batch trimmed to its longest row
    then carries little padding.

    Args:
        order: shuffled row numbers ``[n]``.
        lengths: length of every row, indexed by row number.
        batch_size: rows of a batch.
        generator: source of the order of the batches.

    Yields:
        Row numbers, at most ``batch_size`` at a time; every row of ``order`` exactly once.
    """
    for chunk in order.split(batch_size * CHUNK_BATCHES):
        batches = chunk[torch.argsort(lengths[chunk], stable=True)].split(batch_size)
        for position in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[position]
