"""Log-probabilities of some classes under a softmax over all, whose logits stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

CHUNK_LOGITS = 2**18
"""Logits that are computed together (1 MiB, the fastest of our measurements)."""

ALIGNED = 16
"""Rows of logits begin at multiples of so many floats, which products write faster."""

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

    On a CPU and without gradients a few rows at a time get their logits, in memory that the next
    rows use again, so that logits never leave the cache.

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
        logits = torch.cat([_logits(flat, layer).float() for layer in layers], dim=1)
        log_probs = (logits / temperature).log_softmax(1).narrow(1, first, count)
        return log_probs.contiguous().unflatten(0, states.shape[:-1])

    width = -(-n_classes // ALIGNED) * ALIGNED
    chunk_rows = max(1, CHUNK_LOGITS // width)
    # Columns that no class fills have no probability.
    memory = torch.full((min(chunk_rows, len(flat)), width), -torch.inf)
    log_probs = torch.empty_like(memory)
    result = torch.empty(len(flat), count)
    chunks = zip(flat.split(chunk_rows), result.split(chunk_rows), strict=True)
    for chunk, chosen in chunks:
        logits = memory[: len(chunk)]
        _write_logits(chunk, layers, logits)
        if temperature != 1.0:  # a division by 1 takes as long as any other
            logits.div_(temperature)
        of_chunk = log_probs[: len(chunk)]
        torch.log_softmax(logits, 1, out=of_chunk)
        chosen.copy_(of_chunk.narrow(1, first, count))
    return result.unflatten(0, states.shape[:-1])


def _write_logits(states: Tensor, layers: Sequence[OutputLayer], memory: Tensor) -> None:
    """Write the logits of all layers side by side into the first columns of ``memory``."""
    start = 0
    for layer in layers:
        if isinstance(layer, Tensor) and layer.dtype == states.dtype == memory.dtype:
            end = start + len(layer)
            torch.mm(states, layer.T, out=memory[:, start:end])
        else:
            logits = _logits(states, layer)
            end = start + logits.shape[1]
            memory[:, start:end] = logits
        start = end


def _logits(states: Tensor, layer: OutputLayer) -> Tensor:
    """Logits ``[R, n]`` of one layer for states ``[R, d]``."""
    if isinstance(layer, Tensor):
        return linear(states.to(layer.dtype), layer)
    return layer(states)
