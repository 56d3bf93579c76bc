"""Item codes as a vocabulary of their own, separate from the text tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.scored_vocabulary import ScoredVocabulary


class CodeVocabulary(ScoredVocabulary):
    """Input embeddings ``[C, d_in]`` and output layer ``[C, d_out]`` for ``C = sum(sizes)`` codes.

    Code ``k`` of level ``j`` is token ``first[j] + k`` with ``first[j] = sizes[0] + .. +
    sizes[j-1]``.

    Args:
        sizes: alphabet size of each level.
        d_in: width of the backbone's input embeddings.
        d_out: width of the states that the output layer reads.
        std: standard deviation of the normal start of both tables.
        tied: one table for both, for language models that have one (``Backbone.tied``).
        scale: factor on the states before the output layer (``Backbone.output_scale``).

    Attributes:
        words: a word for each code, by token: ``<a_0>``, ``<a_1>``, ..., ``<b_0>``, ... as in
            LC-Rec (arXiv 2311.09049).
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        d_in: int,
        d_out: int,
        std: float = 0.02,
        tied: bool = False,
        scale: float = 1.0,
    ):
        super().__init__()
        self.level_sizes = tuple(sizes)
        self.first = [sum(self.level_sizes[:level]) for level in range(len(self.level_sizes))]
        self.tied = tied
        self.scale = scale
        self.embedding = nn.Parameter(torch.randn(sum(sizes), d_in) * std)
        if tied:
            self.classifier = self.embedding
        else:
            self.classifier = nn.Parameter(torch.randn(sum(sizes), d_out) * std)
        self.words: list[str] = []
        for level, size in enumerate(sizes):
            letter = chr(ord("a") + level)
            self.words += [f"<{letter}_{code}>" for code in range(size)]

    @property
    def output_table(self) -> Tensor:  # type: ignore[override]
        """Rows of the output layer ``[C, d_out]``."""
        return self.classifier

    @torch.no_grad()
    def start_like(self, inputs: Tensor, outputs: Tensor, spread: float) -> None:
        """Start near the mean of the text rows (our choice, unpublished).

        Args:
            inputs: rows of the text table ``[V, d_in]``.
            outputs: rows of the output layer ``[V, d_out]``.
            spread: size of the noise, in standard deviations of the rows.
        """
        rows_of = {self.embedding: inputs.float(), self.classifier: outputs.float()}
        for table, rows in rows_of.items():
            noise = torch.randn_like(table)
            table.copy_(rows.mean(0) + spread * rows.std(0) * noise)

    def level_rows(self, level: int) -> list[Tensor]:
        """The rows of one level in each table, as views."""
        tables = [self.embedding]
        if self.classifier is not self.embedding:
            tables.append(self.classifier)
        return [table.narrow(0, self.first[level], self.level_sizes[level]) for table in tables]

    def embed_code(self, codes: Tensor, level: int) -> Tensor:
        """Codes ``[...]`` of one level -> ``[..., d_in]``."""
        return nn.functional.embedding(codes + self.first[level], self.inputs)

    @property
    def inputs(self) -> Tensor:
        """Input embeddings ``[C, d_in]`` as they are read."""
        return self.started(self.embedding)

    def logits(self, hidden: Tensor, level: int | None = None) -> Tensor:
        """Logits of states ``[..., d_out]``.

        ``[..., level_sizes[level]]``, or ``[..., C]`` without a level.
        """
        weight: Tensor = self.classifier
        if level is not None:
            weight = weight.narrow(0, self.first[level], self.level_sizes[level])
        if self.scale != 1:
            hidden = hidden * self.scale
        return nn.functional.linear(hidden, weight)
