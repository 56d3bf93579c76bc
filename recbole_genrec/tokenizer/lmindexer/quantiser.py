"""The quantiser of one position: the code that points most in the direction of a state."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.precision import at_least_float32


def quantise(states: Tensor, codebook: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Straight-through softmax over the inner products with the codes.

    The value is the chosen row; the gradient is that of the soft mixture, so it reaches the states
    and every row. No noise is added, whatever the paper's word "Gumbel" suggests. Computed in
    float32, also under autocast, where products of bfloat16 would give other codes.

    Args:
        states: ``h [B, d]``.
        codebook: ``E [K, d]``.
        temperature: ``tau``, divides the inner products in the mixture.

    Returns:
        ``hat h [B, d]`` and the codes int64 ``[B]``.
    """
    states, codebook = at_least_float32(states), at_least_float32(codebook)
    with torch.autocast(states.device.type, enabled=False):
        scores = states @ codebook.T  # [B, K]
        codes = scores.argmax(-1)  # [B]
        soft = (scores / temperature).softmax(-1) @ codebook  # [B, d]
    hard = codebook[codes]
    return soft + (hard - soft).detach(), codes
