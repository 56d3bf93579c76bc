"""Texts of a catalogue as token ids by item id, growing with added items."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.sequences import Segment, stack_rows
from recbole_genrec.backbone.text_vocabulary import tokenise_texts


class TextTable(nn.Module):
    """Token ids of texts, looked up by number.

    The texts are no weights: they are not part of the ``state_dict``, and move with the model.

    Args:
        text_tokenizer: of the language model.
        texts: by number, for items with the padding item first.
        max_length: tokens that are kept of each text.

    Attributes:
        ids: token ids ``[n, T]``, right-padded with 0.
        valid: bool ``[n, T]``, which of them count.
    """

    def __init__(
        self, text_tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
    ):
        super().__init__()
        self.text_tokenizer = text_tokenizer
        self.max_length = max_length
        ids, valid = tokenise_texts(text_tokenizer, texts, max_length)
        self.ids: Tensor
        self.valid: Tensor
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("valid", valid, persistent=False)

    def __len__(self) -> int:
        return len(self.ids)

    def forward(self, numbers: Tensor) -> Segment:
        """Ids and validity of texts, a segment of ``compose``.

        Args:
            numbers: ``[...]``.

        Returns:
            Both ``[..., T]``.
        """
        return self.ids[numbers], self.valid[numbers]

    def extend_to(self, texts: Sequence[str]) -> None:
        """Add the texts behind the last one.

        Args:
            texts: all of them by number; those that are there already stay.
        """
        new = texts[len(self) :]
        ids, valid = tokenise_texts(self.text_tokenizer, new, self.max_length)
        device = self.ids.device
        self.ids = stack_rows([self.ids, ids.to(device)])
        self.valid = stack_rows([self.valid, valid.to(device)], fill=False)
