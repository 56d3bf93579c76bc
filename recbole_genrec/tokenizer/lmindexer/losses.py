"""The losses of LMIndexer's tokenizer (arXiv 2310.07815, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.decoding.precision import at_least_float32


def reconstruction_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over text tokens.

    Args:
        logits: ``[..., V]``.
        labels: ``[...]``; -100 is ignored.
    """
    return cross_entropy(at_least_float32(logits).flatten(0, -2), labels.flatten())


def batch_contrast(states: Tensor, again: Tensor) -> Tensor:
    """Each item against the other items of the batch, at the first position.

    Args:
        states: continuous states ``h [B, d]``.
        again: states of the same items in a second pass with other dropout, ``h' [B, d]``.
    """
    with torch.autocast(states.device.type, enabled=False):
        scores = at_least_float32(states) @ at_least_float32(again).T  # [B, B]
    return cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def sibling_contrast(states: Tensor, candidates: Tensor, valid: Tensor) -> Tensor:
    """Each item against items with the same prefix, at the later positions.

    An item without siblings is skipped; a batch without siblings gives 0.

    Args:
        states: continuous states ``h [B, d]``.
        candidates: ``[B, 1 + n, d]``, the item itself in a second pass first, then its siblings.
        valid: bool ``[B, n]``, which siblings are there.
    """
    with torch.autocast(states.device.type, enabled=False):
        # [B, 1 + n]
        scores = torch.einsum("bd,bnd->bn", at_least_float32(states), at_least_float32(candidates))
    hidden = torch.cat([torch.zeros_like(valid[:, :1]), ~valid], dim=1)
    scores = scores.masked_fill(hidden, -torch.inf)
    target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    losses = cross_entropy(scores, target, reduction="none")  # [B]
    has_siblings = valid.any(1)
    return (losses * has_siblings).sum() / has_siblings.sum().clamp(min=1)


def commitment_loss(logits: Tensor, prefix: Tensor) -> Tensor:
    """The language model still gives the codes of earlier positions to the item.

    Args:
        logits: of the language model over the codes of all earlier positions, ``[B, t - 1, C]``.
        prefix: flat indices of these codes ``[B, t - 1]``.
    """
    return cross_entropy(at_least_float32(logits).flatten(0, 1), prefix.flatten())
