"""What the queries of a decoder-only model read: prompts as keys and values, or as embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from recbole_genrec.backbone.beam_cache import BeamCache
from recbole_genrec.backbone.visibility import joined


@dataclass
class PromptInput:
    """Prompts that are read again together with their queries.

    Attributes:
        embeddings: ``[B, S, d_in]``.
        positions: ``[B, S]``.
        sees: mask ``[B, 1, S, S]``, which token sees which.
    """

    embeddings: Tensor
    positions: Tensor
    sees: Tensor

    def select(self, rows: Tensor) -> PromptInput:
        """The prompts of some of the users."""
        return PromptInput(self.embeddings[rows], self.positions[rows], self.sees[rows])


@dataclass
class PromptMemory:
    """The prompts of B users.

    Without gradients their keys and values are kept. With gradients they are kept as embeddings,
    and one pass reads prompt and queries, so that layers may recompute their activations.

    Attributes:
        valid: bool ``[B, S]``, False for padding.
        end: position after the last token of each prompt, ``[B]``.
        longest: the largest of them.
        prompt: keys and values, or embeddings.
    """

    valid: Tensor
    end: Tensor
    longest: int
    prompt: BeamCache | PromptInput

    def select(self, rows: Tensor) -> PromptMemory:
        """The memory of some of the users."""
        if isinstance(self.prompt, BeamCache):
            prompt: BeamCache | PromptInput = self.prompt.select(rows, self.valid.shape[1])
        else:
            prompt = self.prompt.select(rows)
        return replace(self, valid=self.valid[rows], end=self.end[rows], prompt=prompt)

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

    def joint_mask(self, prompt_sees: Tensor, sees: Tensor) -> Tensor:
        """The mask of one pass over prompt and queries.

        Args:
            prompt_sees: mask of the prompts ``[B, 1, S, S]``.
            sees: as in :meth:`query_mask`.

        Returns:
            A mask ``[B, 1, S + Q, S + Q]``.
        """
        size = prompt_sees.shape[-1]
        count = sees.shape[-1]
        hidden = self.valid.new_zeros(len(self.valid), 1, size, count)  # [B, 1, S, Q]
        prompt = joined([prompt_sees, hidden], dim=-1)  # [B, 1, S, S + Q]
        return joined([prompt, self.query_mask(sees)], dim=-2)
