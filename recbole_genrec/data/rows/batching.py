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


def sorted_in_chunks(order: Tensor, lengths: Tensor, chunk_rows: int) -> Tensor:
    """Shuffled rows whose neighbours have similar lengths.

    Each chunk is sorted by length, one up and the next down, so that a batch across two chunks
    holds similar rows too.

    Args:
        order: shuffled row numbers ``[n]``.
        lengths: length of every row, indexed by row number.
        chunk_rows: rows that are sorted together.

    Returns:
        The row numbers in another order.
    """
    chunks = []
    for number, chunk in enumerate(order.split(chunk_rows)):
        downwards = number % 2 == 1
        chunks.append(chunk[torch.argsort(lengths[chunk], descending=downwards, stable=True)])
    return torch.cat(chunks)


def target_batches(order: Tensor, lengths: Tensor, n_targets: int) -> list[Tensor]:
    """Batches that end with the row whose last target fills them.

    A batch so has ``n_targets`` targets, give or take a row, and there are as many batches as the
    sum of the targets needs, whatever the order.

    Args:
        order: row numbers ``[n]``.
        lengths: targets of every row, at least 1 and at most ``n_targets``, indexed by row number.
        n_targets: targets of a batch.

    Returns:
        Row numbers of each batch; every row of ``order`` exactly once.
    """
    ends = lengths[order].cumsum(0)
    batch = (ends - 1) // n_targets  # never skips one, because no row is longer than a batch
    return list(order.split(batch.bincount().tolist()))
