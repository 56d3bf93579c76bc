"""Sequences of very different lengths through a causal language model without padding waste.

A batch is *flat*: the tokens of its sequences one after another, ``[T, d]``, and their
``lengths [B]`` with sum T. A right-padded batch becomes flat by ``padded[valid]``; labels and
states are indexed alike.

Two ways give equal states: *groups* of similar length, each a right-padded pass of its own, or
*pack*, several sequences in a row with positions that start again and a mask that keeps them apart.
``benchmarks/packing.py`` compares them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from recbole_genrec.backbone.sequences import length_mask
from recbole_genrec.backbone.visibility import causal

PASS_COST = 64
"""What one more pass costs, in tokens (our choice; measured flat from 16 to 128 on a CPU)."""

Forward = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def length_groups(lengths: Tensor) -> list[Tensor]:
    """Groups with the least sum of padded tokens and passes, by dynamic programming.

    Args:
        lengths: ``[B]``.

    Returns:
        Sequence numbers of each group, short ones first.
    """
    order = torch.argsort(lengths, stable=True)
    ordered = lengths[order].cpu().numpy()
    count = len(ordered)
    best = np.zeros(count + 1)  # least cost of the first sequences
    start = np.zeros(count + 1, dtype=int)  # where their last group starts
    for end in range(1, count + 1):
        sizes = np.arange(end, 0, -1)
        costs = best[:end] + PASS_COST + sizes * ordered[end - 1]
        start[end] = costs.argmin()
        best[end] = costs[start[end]]

    group_sizes = []
    end = count
    while end:
        group_sizes.append(int(end - start[end]))
        end = start[end]
    return list(order.split(group_sizes[::-1]))


def pack(lengths: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """First-fit-decreasing bin packing (Johnson 1973: at most 11/9 of the fewest rows, and one).

    Args:
        lengths: ``[B]``, each at most ``capacity``.
        capacity: tokens in a row.

    Returns:
        Row and offset of each sequence, both ``[B]``.
    """
    row = torch.empty_like(lengths, device="cpu")
    offset = torch.empty_like(lengths, device="cpu")
    free = np.full(len(lengths), capacity)
    for sequence in torch.argsort(lengths, descending=True, stable=True).tolist():
        length = int(lengths[sequence])
        first = int((free >= length).argmax())
        row[sequence] = first
        offset[sequence] = capacity - free[first]
        free[first] -= length
    return row.to(lengths.device), offset.to(lengths.device)


def positions_of(lengths: Tensor) -> Tensor:
    """Position of each token of a flat batch in its sequence, ``[T]``."""
    starts = lengths.cumsum(0) - lengths  # [B]
    places = torch.arange(int(lengths.sum()), device=lengths.device)
    return places - starts.repeat_interleave(lengths)


def grouped_states(forward: Forward, embeddings: Tensor, lengths: Tensor) -> Tensor:
    """States of a flat batch, with a right-padded pass for each of :func:`length_groups`.

    Args:
        forward: ``(embeddings [B, S, d_in], mask, positions) -> states [B, S, d_out]``.
        embeddings: ``[T, d_in]``.
        lengths: ``[B]``.

    Returns:
        ``[T, d_out]``.
    """
    device = lengths.device
    starts = lengths.cumsum(0) - lengths  # [B]
    states = []
    # row of each token's state among the states of all groups
    row_of = torch.empty(len(embeddings), dtype=torch.long, device=device)
    rows_so_far = 0
    for group in length_groups(lengths):
        longest = int(lengths[group].max())
        valid = length_mask(lengths[group], longest)  # [b, s]
        steps = torch.arange(longest, device=device)
        places = (starts[group].unsqueeze(1) + steps) * valid
        states.append(forward(embedding(places, embeddings), None, None).flatten(0, 1))
        row_of[places[valid]] = rows_so_far + torch.nonzero(valid.flatten()).flatten()
        rows_so_far += places.numel()
    return embedding(row_of, torch.cat(states))


def packed_states(forward: Forward, embeddings: Tensor, lengths: Tensor) -> Tensor:
    """States of a flat batch in one pass of rows as long as the longest sequence.

    Longer rows would waste fewer tokens, but each token pays for a whole row of attention (our
    choice).

    Args:
        forward: ``(embeddings [R, S, d_in], mask, positions) -> states [R, S, d_out]``.
        embeddings: ``[T, d_in]``.
        lengths: ``[B]``.

    Returns:
        ``[T, d_out]``.
    """
    device = lengths.device
    capacity = int(lengths.max())
    row, offset = pack(lengths, capacity)
    shape = int(row.max()) + 1, capacity
    positions = positions_of(lengths)  # [T]
    places = (row * capacity + offset).repeat_interleave(lengths) + positions

    def laid_out(values: Tensor, empty: int) -> Tensor:
        flat = torch.full((shape[0] * capacity,), empty, device=device)
        return flat.index_copy(0, places, values).view(shape)  # [R, S]

    tokens = torch.arange(len(embeddings), device=device)
    sequences = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
    source = laid_out(tokens, 0)
    owner = laid_out(sequences, -1)
    earlier = causal(capacity, device)
    mask = (owner.unsqueeze(2) == owner.unsqueeze(1)) & earlier  # [R, S, S]
    states = forward(embedding(source, embeddings), mask.unsqueeze(1), laid_out(positions, 0))
    return embedding(places, states.flatten(0, 1))


LAYOUTS = {"groups": grouped_states, "pack": packed_states}
