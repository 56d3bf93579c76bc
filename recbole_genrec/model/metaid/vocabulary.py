"""The vocabulary of META ID, whose code tokens are augmented at the encoder's input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from recbole_genrec.backbone import TiedCodeVocabulary


class AugmentedVocabulary(TiedCodeVocabulary):
    """Codes, an end token, and words that only the encoder reads.

    The encoder reads a code token t as ``E(t) + alpha * (W c_t + b)`` with a fixed vector ``c_t``.
    The decoder and the output layer know ``E`` alone, as published.

    Args:
        sizes: alphabet size of each level.
        d_model: width of the backbone.
        n_words: tokens that are never targets.
        code_vectors: ``c_t`` of all codes, level after level, float32 ``[sum(sizes), d]``;
            ``None`` for no augmentation.
        alpha: its strength.

    Attributes:
        side_vectors: buffer float32 ``[T, d]``, ``c_t`` by token; zero for all other tokens.
    """

    side_vectors: Tensor | None

    def __init__(
        self,
        sizes: tuple[int, ...],
        d_model: int,
        n_words: int,
        code_vectors: Tensor | None = None,
        alpha: float = 0.1,
    ) -> None:
        super().__init__(sizes, d_model, use_eos=True, n_user_tokens=n_words)
        self.alpha = alpha
        self.n_codes = sum(sizes)
        self.register_buffer("side_vectors", None)
        self.projection: nn.Linear | None = None
        if code_vectors is not None:
            self.side_vectors = pad(code_vectors, (0, 0, *self._around_codes))
            self.projection = nn.Linear(code_vectors.shape[1], d_model)

    @property
    def first_word(self) -> int:
        """Token of word 0."""
        return self.n_outputs

    @property
    def _around_codes(self) -> tuple[int, int]:
        """Number of tokens before and after those of the codes."""
        before = self.first[0]
        return before, len(self.table) - before - self.n_codes

    def source_table(self) -> Tensor:
        """What the encoder reads of each token, ``[T, d_model]``."""
        if self.projection is None or self.side_vectors is None:
            return self.started(self.table)
        of_codes = self.side_vectors.narrow(0, self.first[0], self.n_codes)
        added = self.alpha * self.projection(of_codes)  # [C, d_model]
        return self.started(self.table) + pad(added, (0, 0, *self._around_codes))

    def embed_source(self, tokens: Tensor) -> Tensor:
        """Tokens ``[...]`` -> ``[..., d_model]``, as the encoder reads them."""
        return embedding(tokens, self.source_table())

    @torch.no_grad()
    def start_words(self, rows: Tensor) -> None:
        """Start the words from rows of a language model.

        Args:
            rows: ``[n_words, d_model]``.
        """
        self.table[self.first_word :] = rows
