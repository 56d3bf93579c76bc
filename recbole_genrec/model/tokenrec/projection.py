"""From the decoder's states to the space of the collaborative vectors, and the loss there."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from recbole_genrec.backbone.dropout import Dropout


class ProjectionHead(nn.Module):
    """``Linear(ReLU(Dropout(Linear(states))))`` on the states of all positions, one after another.

    Args:
        d_in: positions times width of the states.
        hidden: width between.
        d_out: size of the collaborative vectors.
        dropout: share of the hidden units.
    """

    def __init__(self, d_in: int, hidden: int, d_out: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(d_in, hidden)
        self.dropout = Dropout(dropout)
        self.outer = nn.Linear(hidden, d_out)

    def forward(self, states: Tensor) -> Tensor:
        """``[B, T, d_model]`` -> ``[B, d_out]``."""
        hidden = self.inner(states.flatten(1))  # [B, hidden]
        return self.outer(self.dropout(hidden).relu())


def cosine_loss(
    projected: Tensor, positive: Tensor, negative: Tensor, gamma: float = 0.0
) -> Tensor:
    """Mean over 2B pairs of ``1 - cos`` (positive) and ``max(0, cos - gamma)`` (negative).

    Args:
        projected: ``[B, d]``.
        positive: vectors of the targets, ``[B, d]``.
        negative: vectors of other items, ``[B, d]``.
        gamma: cosine that a negative may have without a loss.
    """
    towards = 1 - cosine_similarity(projected, positive)
    away = (cosine_similarity(projected, negative) - gamma).relu()
    return (towards + away).mean() / 2


def cosine_scores(projected: Tensor, vectors: Tensor) -> Tensor:
    """Cosines ``[B, n]``; 0 where a vector is zero.

    Args:
        projected: ``[B, d]``.
        vectors: ``[n, d]``.
    """
    return normalize(projected, dim=1) @ normalize(vectors, dim=1).T
