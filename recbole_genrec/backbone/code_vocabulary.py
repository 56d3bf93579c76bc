"""Item codes as a vocabulary of their own: input embeddings and an output layer, separate from the text tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CodeVocabulary(nn.Module):
    """Embeddings ``[C, d_in]`` and classifier ``[C, d_out]`` for ``C = sum(sizes)`` codes.

    Code ``k`` of level ``j`` has the flat index ``offsets[j] + k``, ``offsets[j] = sizes[0] + .. + sizes[j-1]``.

    Args:
        sizes: alphabet size of each level.
        d_in: width of the backbone's input embeddings.
        d_out: width of the state that the output layer reads.
        std: standard deviation of the normal start of both tables.
        tied: one table for both, for language models whose own two tables are one (``CausalBackbone.tied``).

    Attributes:
        words: a word for each code, by flat index: ``<a_0>``, ``<a_1>``, ..., ``<b_0>``, ... as in LC-Rec (arXiv 2311.09049).
    """

    def __init__(
        self, sizes: tuple[int, ...], d_in: int, d_out: int, std: float = 0.02, tied: bool = False
    ):
        super().__init__()
        self.sizes, self.tied = tuple(sizes), tied
        self.embedding = nn.Parameter(torch.randn(sum(sizes), d_in) * std)
        self.classifier = (
            self.embedding if tied else nn.Parameter(torch.randn(sum(sizes), d_out) * std)
        )
        self.offsets = [sum(self.sizes[:level]) for level in range(len(self.sizes))]
        self.words = [
            f"<{chr(ord('a') + level)}_{code}>"
            for level, size in enumerate(sizes)
            for code in range(size)
        ]

    @torch.no_grad()
    def start_like(self, inputs: Tensor, outputs: Tensor, spread: float) -> None:
        """Start as the mean of the text rows ``inputs [V, d_in]`` and ``outputs [V, d_out]``, with noise of ``spread`` times their
        standard deviation (our choice, unpublished)."""
        for table, rows in {
            self.embedding: inputs.float(),
            self.classifier: outputs.float(),
        }.items():
            table.copy_(rows.mean(0) + spread * rows.std(0) * torch.randn_like(table))

    def level_rows(self, level: int) -> list[Tensor]:
        """The rows of one level in each table, as views."""
        tables = {id(table): table for table in (self.embedding, self.classifier)}
        return [
            table.narrow(0, self.offsets[level], self.sizes[level]) for table in tables.values()
        ]

    def flat(self, codes: Tensor) -> Tensor:
        """Flat indices of codes ``[..., L']`` (the first L' levels)."""
        return codes + torch.tensor(self.offsets[: codes.shape[-1]], device=codes.device)

    def embed(self, codes: Tensor, level: int) -> Tensor:
        """``[...]`` codes of one level -> ``[..., d_in]``."""
        return nn.functional.embedding(codes + self.offsets[level], self.embedding)

    def logits(self, hidden: Tensor, level: int | None = None) -> Tensor:
        """``[..., d_out]`` -> ``[..., sizes[level]]``, or ``[..., C]`` without a level."""
        weight = self.classifier
        if level is not None:
            weight = weight.narrow(0, self.offsets[level], self.sizes[level])
        return nn.functional.linear(hidden, weight)

    def log_probs(
        self, hidden: Tensor, level: int, score_type: str, temperature: float = 1.0
    ) -> Tensor:
        """Log-probabilities of one level's codes in float32, ``[..., sizes[level]]``.

        ``joint`` normalises over all ``C`` codes; ``level`` and ``renormalised`` over the level (the search renormalises the latter
        over the legal children, which does not depend on this constant). Logits are divided by ``temperature`` before.
        """
        if score_type == "joint":
            every = (self.logits(hidden).float() / temperature).log_softmax(-1)
            return every.narrow(-1, self.offsets[level], self.sizes[level])
        return (self.logits(hidden, level).float() / temperature).log_softmax(-1)
