"""Log-probabilities of some classes under a softmax over all, whose logits stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

TILE_ROWS = 512
TILE_CLASSES = 512
"""Logits that are computed together, 1 MiB: the fastest of our measurements."""

RANGE = 2.0**-100, 2.0**120
"""Sums of powers that are exact: nothing ran over, and the largest terms are normal floats."""

OutputLayer = Tensor | Callable[[Tensor], Tensor]
"""Vectors of some classes ``[n, d]``, or a function of states ``[R, d]`` to logits ``[R, n]``."""


def cached_log_probs(
    states: Tensor,
    layers: Sequence[OutputLayer],
    first: int,
    count: int,
    n_classes: int,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probabilities of some classes under a softmax over all of them.

    On a CPU and without gradients, logits are computed tile by tile in memory that the next tile
    uses again, so that they never leave the cache.

    Args:
        states: ``[..., d]``.
        layers: the classes, one layer's after another's.
        first: the first of the classes; negative = counted from the end.
        count: their number.
        n_classes: number of all classes.
        temperature: divides the logits.

    Returns:
        float32 ``[..., count]``.
    """
    if first < 0:
        first += n_classes
    flat = states.flatten(0, -2)  # [N, d]
    if states.device.type != "cpu" or torch.is_grad_enabled():
        log_probs = _softmax(flat, layers, first, count, temperature)
        return log_probs.unflatten(0, states.shape[:-1])

    log_probs, sums = _powers(flat, layers, first, count, n_classes, temperature)
    log_probs.sub_(sums.log2()).mul_(math.log(2))
    least, largest = RANGE
    outside = ((sums < least) | (sums > largest)).squeeze(1)  # [N]
    rows = torch.from_numpy(np.flatnonzero(outside.numpy()))  # on a CPU nothing waits for them
    if len(rows):
        for part in rows.split(_whole_rows(n_classes)):
            log_probs[part] = _softmax(flat[part], layers, first, count, temperature)
    return log_probs.unflatten(0, states.shape[:-1])


def _whole_rows(n_classes: int) -> int:
    """Rows of logits of all classes that take the memory of one tile, at least one."""
    return max(1, TILE_ROWS * TILE_CLASSES // n_classes)


def _softmax(
    states: Tensor, layers: Sequence[OutputLayer], first: int, count: int, temperature: float
) -> Tensor:
    """The same for states ``[N, d]`` by one softmax over all classes."""
    logits = torch.cat([_logits(states, layer).float() for layer in layers], dim=1)
    return (logits / temperature).log_softmax(1).narrow(1, first, count).contiguous()


def _powers(
    states: Tensor,
    layers: Sequence[OutputLayer],
    first: int,
    count: int,
    n_classes: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Some logits to base 2, and the sums of 2 to the power of all logits.

    Powers of 2 take a third of the time of powers of e. No largest logit is subtracted, which
    would take one more pass over each tile.

    Args:
        states: ``[N, d]``.
        layers: the classes.
        first: the first of the chosen classes.
        count: their number.
        n_classes: number of all classes.
        temperature: divides the logits.

    Returns:
        float32 ``[N, count]`` and ``[N, 1]``.
    """
    scale = 1 / (temperature * math.log(2))
    tiles = _tiles(layers)
    n_rows = TILE_ROWS
    if any(not isinstance(tile, Tensor) for tile in tiles):
        n_rows = _whole_rows(n_classes)
    memory = torch.empty(min(n_rows, len(states)) * min(TILE_CLASSES, n_classes))
    chosen = torch.empty(len(states), count)
    sums = torch.zeros(len(states), 1)
    blocks = zip(*(rows.split(n_rows) for rows in (states, chosen, sums)), strict=True)
    for states_part, chosen_part, sums_part in blocks:
        start = 0
        for tile in tiles:
            logits = _scaled_logits(states_part, tile, scale, memory)
            end = start + logits.shape[1]
            left = max(start, first)
            right = min(end, first + count)
            if left < right:
                columns = logits[:, left - start : right - start]
                chosen_part[:, left - first : right - first] = columns
            sums_part.add_(logits.exp2_().sum(1, keepdim=True))
            start = end
    return chosen, sums


def _tiles(layers: Sequence[OutputLayer]) -> Sequence[OutputLayer]:
    """The layers in pieces of at most :data:`TILE_CLASSES`; functions cannot be divided."""
    tiles: list[OutputLayer] = []
    for layer in layers:
        if isinstance(layer, Tensor):
            tiles.extend(layer.split(TILE_CLASSES))
        else:
            tiles.append(layer)
    return tiles


def _scaled_logits(states: Tensor, layer: OutputLayer, scale: float, memory: Tensor) -> Tensor:
    """Float32 logits of one layer, times ``scale``; in ``memory`` where they can be."""
    if isinstance(layer, Tensor) and layer.dtype == states.dtype == memory.dtype:
        shape = len(states), len(layer)
        logits = memory[: shape[0] * shape[1]].view(shape)
        return torch.addmm(logits, states, layer.T, beta=0, alpha=scale, out=logits)
    return _logits(states, layer).float() * scale


def _logits(states: Tensor, layer: OutputLayer) -> Tensor:
    """Logits ``[R, n]`` of one layer for states ``[R, d]``."""
    if isinstance(layer, Tensor):
        return linear(states.to(layer.dtype), layer)
    return layer(states)
