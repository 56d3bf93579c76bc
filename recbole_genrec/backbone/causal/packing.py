"""Sequences of very different lengths through a causal language model without padding waste.

A batch is *flat*: the tokens of its sequences one after another, ``[T, d]``, and their ``lengths [B]`` with sum T. A right-padded batch
becomes flat by ``padded[valid]``; labels and states are indexed alike.

Two ways with equal states: *groups* of similar length, each a right-padded pass of its own, or *pack*, several sequences in a row
with positions that start again and a mask that keeps them apart. ``benchmarks/packing.py`` compares them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

PASS_COST = 64  # what one more pass costs, in tokens (our choice; measured flat between 16 and 128 on the CPU)

Forward = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def length_groups(lengths: Tensor, pass_cost: int = PASS_COST) -> list[Tensor]:
    """The groups of sequences with the least sum of padded tokens and ``pass_cost`` per group, by dynamic programming over the lengths.

    Args:
        lengths: ``[B]``.

    Returns:
        Sequence numbers of each group, short ones first.
    """
    order = torch.argsort(lengths, stable=True)
    ordered = lengths[order].cpu().numpy()
    best, start = np.zeros(len(ordered) + 1), np.zeros(len(ordered) + 1, dtype=int)
    for end in range(1, len(ordered) + 1):
        costs = best[:end] + pass_cost + np.arange(end, 0, -1) * ordered[end - 1]
        start[end] = costs.argmin()
        best[end] = costs[start[end]]
    sizes, end = [], len(ordered)
    while end:
        sizes.append(int(end - start[end]))
        end = start[end]
    return list(order.split(sizes[::-1]))


def pack(lengths: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """First-fit-decreasing bin packing (Johnson 1973: at most 11/9 of the fewest rows, and one).

    Args:
        lengths: ``[B]``, each at most ``capacity``.

    Returns:
        Row and offset of each sequence, both ``[B]``.
    """
    row, offset = torch.empty_like(lengths, device="cpu"), torch.empty_like(lengths, device="cpu")
    free = np.full(len(lengths), capacity)
    for sequence in torch.argsort(lengths, descending=True, stable=True).tolist():
        length = int(lengths[sequence])
        first = int((free >= length).argmax())
        row[sequence], offset[sequence] = first, capacity - free[first]
        free[first] -= length
    return row.to(lengths.device), offset.to(lengths.device)


def positions_of(lengths: Tensor) -> Tensor:
    """Position of each token of a flat batch in its sequence, ``[T]``."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) - starts.repeat_interleave(
        lengths
    )


def grouped_states(forward: Forward, embeddings: Tensor, lengths: Tensor) -> Tensor:
    """States ``[T, d_out]`` of a flat batch ``[T, d_in]``, a right-padded pass for each of :func:`length_groups`."""
    starts = lengths.cumsum(0) - lengths
    parts, found, base = (
        [],
        torch.empty(len(embeddings), dtype=torch.long, device=lengths.device),
        0,
    )
    for rows in length_groups(lengths):
        steps = torch.arange(int(lengths[rows].max()), device=lengths.device)
        valid = steps < lengths[rows].unsqueeze(1)
        places = (starts[rows].unsqueeze(1) + steps) * valid
        parts.append(forward(embedding(places, embeddings), None, None).flatten(0, 1))
        found[places[valid]] = base + torch.nonzero(valid.flatten()).flatten()
        base += places.numel()
    return embedding(found, torch.cat(parts))


def packed_states(forward: Forward, embeddings: Tensor, lengths: Tensor) -> Tensor:
    """States ``[T, d_out]`` of a flat batch ``[T, d_in]`` in one pass of rows as long as the longest sequence.

    Longer rows would waste fewer tokens, but each token pays for a whole row of attention (our choice).
    """
    capacity = int(lengths.max())
    row, offset = pack(lengths, capacity)
    shape, positions = (int(row.max()) + 1, capacity), positions_of(lengths)
    places = (row * capacity + offset).repeat_interleave(lengths) + positions

    def laid_out(values: Tensor, empty: int) -> Tensor:
        return (
            torch.full((shape[0] * capacity,), empty, device=lengths.device)
            .index_copy(0, places, values)
            .view(shape)
        )

    source = laid_out(torch.arange(len(embeddings), device=lengths.device), 0)
    owner = laid_out(
        torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths), -1
    )
    earlier = torch.ones(capacity, capacity, dtype=torch.bool, device=lengths.device).tril()
    mask = (owner.unsqueeze(2) == owner.unsqueeze(1)) & earlier
    states = forward(embedding(source, embeddings), mask.unsqueeze(1), laid_out(positions, 0))
    return embedding(places, states.flatten(0, 1))


LAYOUTS = {"groups": grouped_states, "pack": packed_states}
