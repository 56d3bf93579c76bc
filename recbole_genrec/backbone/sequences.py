"""Token sequences put together from pieces of different length, without a Python loop over rows.

Ids below the text vocabulary's size are text tokens; ids from there on are rows of a second table
(codes, queries, dense tokens).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

Segment = tuple[Tensor, Tensor]


def whole(ids: Tensor) -> Segment:
    """A segment without padding.

    Args:
        ids: ``[..., w]``.

    Returns:
        Ids and validity ``[..., w]``.
    """
    return ids, torch.ones_like(ids, dtype=torch.bool)


def constant(ids: Tensor, rows: int) -> Segment:
    """A segment that is the same in every row.

    Args:
        ids: ``[w]``.
        rows: number of rows.

    Returns:
        Ids and validity ``[rows, w]``.
    """
    return whole(ids.expand(rows, -1))


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """Which places of right-padded rows count.

    Args:
        lengths: valid places of each row ``[...]``.
        width: places of a row.

    Returns:
        bool ``[..., width]``.
    """
    places = torch.arange(width, device=lengths.device)
    return places < lengths.unsqueeze(-1)


def compose(*segments: Segment) -> tuple[Tensor, Tensor]:
    """Join segments and move each row's valid tokens to the left.

    Args:
        *segments: pairs of ids ``[B, w]`` and validity ``[B, w]`` (bool).

    Returns:
        Ids ``[B, S]``, right-padded with 0 and as short as the longest row allows; lengths ``[B]``.
    """
    ids = torch.cat([segment[0] for segment in segments], dim=1)  # [B, W]
    valid = torch.cat([segment[1] for segment in segments], dim=1)
    lengths = valid.sum(1)
    width = int(lengths.max())
    order = torch.argsort(valid.to(torch.int8), dim=1, descending=True, stable=True)
    return (ids * valid).gather(1, order[:, :width]), lengths


def stack_rows(blocks: Sequence[Tensor], fill: int = 0) -> Tensor:
    """Blocks of rows, one below the other.

    Args:
        blocks: ``[n_i, ..., w_i]``.
        fill: what stands at the right of the narrower ones.

    Returns:
        ``[sum n_i, ..., max w_i]``.
    """
    width = max(block.shape[-1] for block in blocks)
    padded = [pad(block, (0, width - block.shape[-1]), value=fill) for block in blocks]
    return torch.cat(padded)


def embed_mixed(ids: Tensor, text_table: torch.nn.Embedding, other: Tensor) -> Tensor:
    """Embed ids of :func:`compose`, each from its own table.

    Args:
        ids: ``[B, S]``, or ``[...]`` where ``other`` is the same for all.
        text_table: embedding of the text vocabulary, ``V`` rows.
        other: rows for the ids from V on, ``[C, d]`` for all, or ``[B, C, d]`` per row.

    Returns:
        ``[B, S, d]``, or ``[..., d]``.
    """
    n_text = text_table.num_embeddings
    is_text = (ids < n_text).unsqueeze(-1)
    text_rows = text_table(ids.clamp(max=n_text - 1))  # [B, S, d]
    positions = (ids - n_text).clamp(min=0)
    if other.dim() == 2:
        other_rows = embedding(positions, other)
    else:
        index = positions.unsqueeze(-1).expand(-1, -1, other.shape[-1])
        other_rows = other.gather(1, index)
    return torch.where(is_text, text_rows, other_rows.to(text_rows.dtype))
