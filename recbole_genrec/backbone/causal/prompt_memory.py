"""What the queries of a decoder-only model read: prompts as keys and values, or as embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from recbole_genrec.backbone.beam_cache import BeamCache
from recbole_genrec.backbone.visibility import causal, joined


@dataclass
class PromptMemory:
    """The prompts of B users.

    Without gradients the keys and values of the prompts are kept. With gradients the prompts are
    kept as embeddings and are read again in one pass with the queries, so that layers may
    recompute their activations.

    Attributes:
        valid: bool ``[B, S]``, False for padding.
        end: position after the last token of each prompt, ``[B]``.
        longest: the largest of them.
        cache: keys and values, or ``None``.
        source: embeddings ``[B, S, d_in]``, or ``None`` where ``cache`` is kept.
        positions: of the source, ``[B, S]``; ``None`` where ``cache`` is kept.
        sees: mask of the source ``[B, 1, S, S]``; ``None`` = each token sees those before it.
    """

    valid: Tensor
    end: Tensor
    longest: int
    cache: BeamCache | None = None
    source: Tensor | None = None
    positions: Tensor | None = None
    sees: Tensor | None = None

    def select(self, rows: Tensor) -> PromptMemory:
        """The memory of some of the users."""
        selected = replace(self, valid=self.valid[rows], end=self.end[rows])
        if self.cache is not None:
            selected.cache = self.cache.select(rows, self.valid.shape[1])
            return selected
        selected.source = self.source[rows]
        selected.positions = self.positions[rows]
        if self.sees is not None:
            selected.sees = self.sees.expand(len(self.valid), -1, -1, -1)[rows]
        return selected

    def query_mask(self, sees: Tensor) -> Tensor:
        """What queries see: all of the prompt, and each other as ``sees`` says.

        Args:
            sees: bool or float ``[Q, Q]`` or ``[B, Q, Q]``.

        Returns:
            A mask ``[B, 1, Q, S + Q]``.
        """
        count = sees.shape[-1]
        prompt = self.valid[:, None, None].expand(-1, -1, count, -1)  # [B, 1, Q, S]
        if sees.dim() == 2:
            sees = sees.unsqueeze(0)
        queries = sees.unsqueeze(1).expand(len(prompt), -1, -1, -1)  # [B, 1, Q, Q]
        return joined([prompt, queries], dim=-1)

    def joint_mask(self, sees: Tensor) -> Tensor:
        """The mask of one pass over prompt and queries.

        Args:
            sees: as in :meth:`query_mask`.

        Returns:
            A mask ``[B, 1, S + Q, S + Q]``.
        """
        size, count = self.valid.shape[1], sees.shape[-1]
        source = self.sees
        if source is None:
            source = causal(size, self.valid.device)[None, None]
        source = source.expand(len(self.valid), -1, -1, -1)  # [B, 1, S, S]
        hidden = self.valid.new_zeros(len(self.valid), 1, size, count)  # [B, 1, S, Q]
        return joined([joined([source, hidden], dim=-1), self.query_mask(sees)], dim=-2)
