"""Masks of attention: which token sees which, as truth values or as numbers added to the scores."""

from __future__ import annotations

import torch
from torch import Tensor


def causal(size: int, device: torch.device) -> Tensor:
    """Each token sees itself and what stands before it: bool ``[size, size]``."""
    steps = torch.arange(size, device=device)
    return steps <= steps.unsqueeze(1)


def only_itself(size: int, device: torch.device) -> Tensor:
    """Each token sees itself alone, as SETRec's queries do: bool ``[size, size]``."""
    return torch.eye(size, dtype=torch.bool, device=device)


def without_siblings(group: Tensor) -> Tensor:
    """Tokens of one group do not see each other (SETRec, arXiv 2502.10833, sparse attention).

    Args:
        group: number of each token's group ``[B, S]``; tokens with a negative number are in none.

    Returns:
        bool ``[B, S, S]``: all tokens but the others of the same group.
    """
    siblings = (group.unsqueeze(2) == group.unsqueeze(1)) & (group >= 0).unsqueeze(2)
    return ~siblings | only_itself(group.shape[1], group.device)


def added_to(scores: Tensor, sees: Tensor) -> Tensor:
    """Attention scores under a mask.

    Args:
        scores: ``[..., Q, N]``.
        sees: bool, hidden where False; or float, added to the scores.

    Returns:
        The scores, -inf where a query does not see a key.
    """
    if sees.dtype == torch.bool:
        return torch.where(sees, scores, -torch.inf)
    return scores + sees


def restricted(sees: Tensor, valid: Tensor) -> Tensor:
    """A mask that hides what is not valid, of the same kind as ``sees``.

    Args:
        sees: bool, or float added to the scores, ``[..., Q, N]``.
        valid: bool ``[..., 1 or Q, N]``.
    """
    if sees.dtype == torch.bool:
        return sees & valid
    return torch.where(valid, sees, -torch.inf)


def as_numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers that are added to the scores.

    Args:
        mask: bool, or float, of any shape; a float one stays as it is.
        dtype: of the numbers.

    Returns:
        Of the shape of ``mask``: 0 where it is True, -inf where it is False.
    """
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


def joined(masks: list[Tensor], dim: int) -> Tensor:
    """Masks beside or below each other.

    Args:
        masks: bool or float, of the same shape but for ``dim``.
        dim: along which they are joined.

    Returns:
        Float as soon as one of them is float, else bool.
    """
    numbers = [mask for mask in masks if mask.is_floating_point()]
    if numbers:
        masks = [as_numbers(mask, numbers[0].dtype) for mask in masks]
    return torch.cat(masks, dim=dim)
