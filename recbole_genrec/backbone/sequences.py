"""Token sequences put together from pieces of different length, without a Python loop over rows.

Ids below the text vocabulary's size are text tokens; ids from there on point into a second table (codes, queries, dense tokens).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

Segment = tuple[Tensor, Tensor]


def constant(ids: Tensor, rows: int) -> Segment:
    """A segment that is the same in every row: ``ids [w]`` -> ids and validity ``[rows, w]``."""
    return ids.expand(rows, -1), torch.ones(rows, len(ids), dtype=torch.bool, device=ids.device)


def compose(*segments: Segment) -> tuple[Tensor, Tensor]:
    """Join segments and move each row's valid tokens to the left.

    Args:
        segments: pairs of ids ``[B, w]`` and validity ``[B, w]`` (bool).

    Returns:
        ids ``[B, S]``, right-padded with 0 and as short as the longest row allows; lengths ``[B]``.
    """
    ids = torch.cat([segment[0] for segment in segments], dim=1)
    valid = torch.cat([segment[1] for segment in segments], dim=1)
    lengths = valid.sum(1)
    order = torch.argsort(valid.to(torch.int8), dim=1, descending=True, stable=True)[
        :, : int(lengths.max())
    ]
    return (ids * valid).gather(1, order), lengths


def stack_rows(parts: Sequence[Tensor], fill: int = 0) -> Tensor:
    """Ids ``[n_i, ..., w_i]`` one below the other, right-padded with ``fill``: ``[sum n_i, ..., max w_i]``."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[-1]), value=fill) for part in parts])


def embed_mixed(ids: Tensor, text_table: torch.nn.Embedding, other: Tensor) -> Tensor:
    """Embed ids of :func:`compose`: each from its own table, never a sum of both.

    Args:
        ids: ``[B, S]``.
        text_table: embedding of the text vocabulary, ``V`` rows.
        other: rows for ids ``V, V+1, ...``: ``[C, d]`` for all, or ``[B, C, d]`` per row.

    Returns:
        ``[B, S, d]``.
    """
    n_text = text_table.num_embeddings
    is_text = ids < n_text
    text = text_table(ids.clamp(max=n_text - 1))
    position = (ids - n_text).clamp(min=0)
    if other.dim() == 2:
        rest = torch.nn.functional.embedding(position, other)
    else:
        rest = other.gather(1, position.unsqueeze(-1).expand(-1, -1, other.shape[-1]))
    return torch.where(is_text.unsqueeze(-1), text, rest.to(text.dtype))
