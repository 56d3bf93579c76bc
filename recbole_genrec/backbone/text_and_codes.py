"""Item codes as words of a language model, behind those of its text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from recbole_genrec.backbone.code_vocabulary import CodeVocabulary
from recbole_genrec.backbone.protocol import Backbone
from recbole_genrec.backbone.sequences import embed_mixed


@dataclass(frozen=True)
class TextAndCodes:
    """Token ids of text and codes in one row of numbers.

    Ids below ``n_text`` are text tokens; those from there on are the tokens of codes. It is no
    module: the tables are the model's, under the names that they have there.

    Attributes:
        backbone: has the table of the text.
        codes: the tables of the codes.
    """

    backbone: Backbone
    codes: CodeVocabulary

    @property
    def n_text(self) -> int:
        """Rows of the text table."""
        return self.backbone.text_table.num_embeddings

    def ids(self, codes: Tensor) -> Tensor:
        """Token ids of codes.

        Args:
            codes: ``[..., L']``, of the first L' levels.

        Returns:
            ``[..., L']``.
        """
        return self.n_text + self.codes.tokens(codes)

    def code_numbers(self, ids: Tensor) -> Tensor:
        """Tokens of the codes' own vocabulary; a text token has a negative one.

        Args:
            ids: token ids ``[...]``.

        Returns:
            ``[...]``.
        """
        return ids - self.n_text

    def embed(self, ids: Tensor) -> Tensor:
        """Input vectors of text tokens and codes.

        Args:
            ids: token ids ``[...]``.

        Returns:
            ``[..., d_in]``.
        """
        return embed_mixed(ids, self.backbone.text_table, self.codes.inputs)
