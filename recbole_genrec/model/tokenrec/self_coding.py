"""TokenRec as the tokenizer of its own items, for ``self_improve`` (our choice, unpublished).

It has no language-model head. The code of book k is what a decoder state says of it: the inner
product with the embeddings of that book's item tokens, scaled as T5 scales. Books are decoded in
their order. Only item codes change: user codes and the vectors that are ranked stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, pad

from recbole_genrec.backbone import BeamDecoder, EncoderDecoderBackbone
from recbole_genrec.data.vectors.scale import standardised
from recbole_genrec.model.encoder_decoder import words_loss
from recbole_genrec.model.ranking import VectorRecommender
from recbole_genrec.model.self_improve.host import SelfImproving
from recbole_genrec.model.tokenrec.entities import Entities
from recbole_genrec.model.tokenrec.prompt import Prompts
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.tokenizer import ItemCodes


class SelfCoding(SelfImproving, VectorRecommender):
    """The hooks of self-improvement on TokenRec, whose constructor sets the attributes below.

    Attributes:
        entities: users and items with their vectors and codes.
        backbone: the encoder-decoder.
        prompts: which row of ``table`` a code has.
        table: embeddings of words and codes.
        vectors: buffer ``[n_items, d]``, what is ranked, and what a refresh reads of an item.
    """

    reads_prefix_words = True
    prefix_follows_items = True

    entities: Entities
    backbone: EncoderDecoderBackbone
    prompts: Prompts
    table: nn.Parameter
    vectors: Tensor

    def __init__(self, config: Any, dataset: Any, stored: dict | None = None) -> None:
        super().__init__(config, dataset, stored)
        self.register_buffer("codes_version", torch.zeros((), dtype=torch.long), persistent=False)

    @property
    def item_codes(self) -> ItemCodes:
        """The present item codes with raw ids and alphabet sizes."""
        return replace(self.entities.codes.items, codes=self.codes.cpu())

    @item_codes.setter
    def item_codes(self, codes: ItemCodes) -> None:
        self.entities.codes = replace(self.entities.codes, items=codes)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Alphabet size of each code of an item."""
        return self.entities.sizes[0]

    @property
    def prefix_width(self) -> int:
        """Width of the content vectors, which are the encoder's input."""
        return self.backbone.d_model

    def content_vectors(self) -> Tensor:
        """The collaborative vectors, standardised, ``[n_items, d]``."""
        vectors = self.vectors.cpu().numpy()
        return torch.from_numpy(standardised(vectors, self.n_dataset_items))

    def popularity(self) -> Tensor:
        """Users of each item in training, ``[n_items]``; 0 for padding and added items."""
        degree = self.entities.graph.item_degree.cpu()
        return pad(degree, (0, self.n_items - len(degree)))

    # --- codes of an item from its content --------------------------------------------------------

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Mean over books of the cross-entropy of the items' codes given their content.

        Args:
            items: item ids ``[B]``.
        """
        codes = self.codes[items]  # [B, K]
        memory = self.backbone.read(*self.item_source(items))
        tokens = codes + self.prompts.first_item
        inputs = embedding(pad(tokens[:, :-1], (1, 0)), self.table)  # the padding token first
        states = self.backbone.decode(inputs, memory)  # [B, K, d]
        losses = []
        for book, state in enumerate(states.unbind(1)):
            losses.append(cross_entropy(self._book_logits(state, book), codes[:, book]))
        return balanced(torch.stack(losses).mean(), len(items))

    def item_decoder(self, items: Tensor) -> BeamDecoder:
        """Next-code log-probabilities given the content of items.

        Args:
            items: item ids ``[B]``.
        """
        memory = self.backbone.read(*self.item_source(items))

        def embed_code(codes: Tensor, book: int) -> Tensor:
            return embedding(codes, self._book(book))

        def log_probs(states: Tensor, book: int) -> Tensor:
            return self._book_logits(states, book).log_softmax(-1)

        return BeamDecoder(self.backbone, memory, self.table[0], embed_code, log_probs)

    def description_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the items' words given their codes, with ``si_embed_text: text``.

        Args:
            items: item ids ``[B]``.
        """
        tokens = self.codes[items] + self.prompts.first_item
        code_vectors = embedding(tokens, self.table)  # [B, K, d]
        return words_loss(self.backbone, code_vectors, self.self_improvement.item_prefix, items)

    def code_rows(self, level: int) -> list[Tensor]:
        """As the base's: the item tokens of a book."""
        return [self._book(level)]

    def _book(self, book: int) -> Tensor:
        """Embeddings of the item tokens of a book ``[V_book, d]``."""
        first = int(self.prompts.first_item[book])
        return self.table[first : first + self.level_sizes[book]]

    def _book_logits(self, states: Tensor, book: int) -> Tensor:
        """Float32 logits ``[..., V_book]`` of the codes of a book."""
        with torch.autocast(states.device.type, enabled=False):
            scaled = states.float() * self.backbone.d_model**-0.5
            return scaled @ self._book(book).float().T

    # --- checkpoints and reports ------------------------------------------------------------------

    def _update_entities(self) -> None:
        """Give ``entities`` the codes of the present table: loaded weights bring their own."""
        self.entities.codes = replace(self.entities.codes, items=self.item_codes)

    def other_parameter(self) -> dict:
        """As the base's; the stored item codes are those of the present table."""
        self._update_entities()
        return super().other_parameter()

    def report(self) -> dict:
        """Tokenizer statistics for the result file, and the refreshes."""
        self._update_entities()
        report = self.entities.report()
        if self.self_improvement is not None:
            report["self_improve"] = self.self_improvement.report()
        return report
