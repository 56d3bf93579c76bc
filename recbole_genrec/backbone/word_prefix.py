"""An item's words as the input of a model over codes, and as what it can write."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, pad
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.text_table import TextTable
from recbole_genrec.backbone.text_vocabulary import serialised

IGNORED = -100  # label of a token that is no target


class WordPrefix(nn.Module):
    """Input vectors of an item's words behind a task marker, with a word table of their own.

    The table stands on both sides, scaled as T5's: what reads words can also write them. Our
    choice, unpublished.

    Args:
        text_tokenizer: of the words.
        texts: of all items, the padding item first.
        max_length: words that are kept of a text.
        width: of the model's input vectors.
        rows: how the table starts ``[V, width]``; ``None`` = at random with T5's spread of 1.

    Attributes:
        words: token ids of the texts.
    """

    def __init__(
        self,
        text_tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        max_length: int,
        width: int,
        rows: Tensor | None = None,
    ):
        super().__init__()
        self.words = TextTable(text_tokenizer, texts, max_length)
        self.end = int(text_tokenizer.eos_token_id)
        self.marker = nn.Parameter(torch.randn(width) * 0.02)
        if rows is None:
            rows = torch.randn(len(text_tokenizer), width)
        self.table = nn.Parameter(rows.detach().float().clone())

    def source(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Input vectors of items, the marker first, and which of them count.

        Args:
            items: item ids ``[B]``.

        Returns:
            ``[B, 1 + T, width]`` and bool ``[B, 1 + T]``.
        """
        ids, valid = self.words(items)
        n_words = max(1, int(valid.sum(1).max()))
        vectors = embedding(ids[:, :n_words], self.table)  # [B, T, width]
        marker = self.marker.expand(len(items), 1, -1)
        mask = pad(valid[:, :n_words], (1, 0), value=True)
        return torch.cat([marker, vectors], 1), mask

    def teach(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder inputs ``[B, T + 1, width]`` of the words, and labels ``[B, T + 1]``.

        The end token is the last label, the padding row the first input.

        Args:
            items: item ids ``[B]``.
        """
        ids, valid = self.words(items)
        n_words = int(valid.sum(1).max())
        ids = ids[:, :n_words]
        valid = valid[:, :n_words]
        inputs = pad(ids, (1, 0))
        labels = pad(ids.masked_fill(~valid, IGNORED), (0, 1), value=IGNORED)
        labels = labels.scatter(1, valid.sum(1, keepdim=True), self.end)
        return embedding(inputs, self.table), labels

    def loss(self, states: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        """Mean cross-entropy of the words and the end token, and their number.

        Args:
            states: of a decoder ``[B, T + 1, width]``.
            labels: from :meth:`teach`.
        """
        counts = labels != IGNORED
        logits = states[counts] @ self.table.T * self.table.shape[1] ** -0.5
        return cross_entropy(logits.float(), labels[counts]), int(counts.sum())

    def vocabulary(self) -> str:
        """The vocabulary as JSON."""
        return serialised(self.words.text_tokenizer)

    def forget(self) -> None:
        """Nothing is kept that new items make stale; :meth:`extend` adds theirs."""

    def extend(self, texts: Sequence[str]) -> None:
        """Take up the texts of new items.

        Args:
            texts: of all items; those that are there already stay.
        """
        self.words.extend_to(texts)
