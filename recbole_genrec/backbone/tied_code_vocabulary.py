"""Item codes as the whole vocabulary of an encoder-decoder: one table for inputs and outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.scored_vocabulary import ScoredVocabulary


class TiedCodeVocabulary(ScoredVocabulary):
    """One table ``[T, d_model]`` for padding, codes, end and users, tied to the output layer.

    As in TIGER (arXiv 2305.05065, section 3.2). Token 0 is padding and the decoder's start; code
    ``k`` of level ``j`` is token ``1 + sizes[0] + .. + sizes[j-1] + k``; then the end token, if
    any; then the user tokens. The output layer covers all but the user tokens, which are never
    targets (our choice, unpublished). T5's factor ``d_model^-0.5`` on the state goes with the
    table's start, a normal of standard deviation 1 (arXiv 1910.10683).

    Args:
        sizes: alphabet size of each level.
        d_model: width of the backbone.
        use_eos: with an end token. It counts as one more level with an alphabet of 1, which a
            search may ask for after the codes.
        n_user_tokens: users share this many tokens; 0 = none.

    Attributes:
        level_sizes: ``sizes``, and 1 for the end token if there is one.
        n_outputs: width of the output layer.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        d_model: int,
        use_eos: bool = False,
        n_user_tokens: int = 0,
    ):
        super().__init__()
        self.level_sizes = tuple(sizes)
        if use_eos:
            self.level_sizes = (*sizes, 1)
        self.first = [1 + sum(self.level_sizes[:level]) for level in range(len(self.level_sizes))]
        self.n_outputs = 1 + sum(self.level_sizes)
        self.eos = self.n_outputs - 1 if use_eos else None
        self.n_user_tokens = n_user_tokens
        self.scale = d_model**-0.5
        self.table = nn.Parameter(torch.randn(self.n_outputs + n_user_tokens, d_model))

    @property
    def output_table(self) -> Tensor:  # type: ignore[override]
        """Rows of padding, codes and end ``[n_outputs, d_model]``."""
        return self.table.narrow(0, 0, self.n_outputs)

    @property
    def start(self) -> Tensor:
        """Embedding ``[d_model]`` of the decoder's start."""
        return self.table[0]

    def user_tokens(self, users: Tensor) -> Tensor:
        """Tokens of user ids; users whose ids agree modulo ``n_user_tokens`` share one (TIGER)."""
        return self.n_outputs + users % self.n_user_tokens

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens ``[...]`` -> ``[..., d_model]``."""
        return nn.functional.embedding(tokens, self.started(self.table))

    def embed_code(self, codes: Tensor, level: int) -> Tensor:
        """Codes ``[...]`` of one level -> ``[..., d_model]``."""
        return self.embed(codes + self.first[level])

    def logits(self, hidden: Tensor, level: int | None = None) -> Tensor:
        """States ``[..., d_model]`` -> logits.

        Args:
            hidden: states.
            level: whose codes the columns are; ``None`` = all tokens, column = token.

        Returns:
            ``[..., level_sizes[level]]`` or ``[..., n_outputs]``.
        """
        start = 0
        count = self.n_outputs
        if level is not None:
            start = self.first[level]
            count = self.level_sizes[level]
        return nn.functional.linear(hidden * self.scale, self.table.narrow(0, start, count))

    def level_rows(self, level: int) -> list[Tensor]:
        """The rows of one level, as views."""
        return [self.table.narrow(0, self.first[level], self.level_sizes[level])]
