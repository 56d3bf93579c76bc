"""What generative methods share whose backbone is an encoder-decoder over item codes.

A method encodes its own source; teacher forcing, search and the codes of an item from its content
(for self_improve) stand here.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.backbone import BeamDecoder, EncoderDecoderBackbone
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderMemory
from recbole_genrec.backbone.word_prefix import WordPrefix
from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ranking_guided_loss
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.backbone_keys import BackboneKeys


def words_loss(
    backbone: EncoderDecoderBackbone, code_vectors: Tensor, words: WordPrefix, items: Tensor
) -> Tensor:
    """Cross-entropy of the words of items given their codes, under teacher forcing.

    Args:
        backbone: reads the codes and writes the words.
        code_vectors: input vectors of the items' codes ``[B, L, d]``.
        words: of all items.
        items: item ids ``[B]``.
    """
    valid = code_vectors.new_ones(code_vectors.shape[:2], dtype=torch.bool)
    memory = backbone.read(code_vectors, valid)
    inputs, labels = words.teach(items)
    loss, count = words.loss(backbone.decode(inputs, memory), labels)
    return balanced(loss, count)


class EncoderDecoderRecommender(GenerativeRecommender):
    """A method that generates codes with an encoder-decoder.

    Its constructor sets the attributes below.

    Attributes:
        backbone: the language model.
        vocabulary: the codes as its vocabulary, by default a
            :class:`~recbole_genrec.backbone.TiedCodeVocabulary`.
        temperature: divides the logits in training.
    """

    backbone: EncoderDecoderBackbone
    temperature: float = 1.0
    trains_without_history = True
    reads_prefix_words = True

    # --- tokens, which a method with another vocabulary has of its own ----------------------------

    def target_tokens(self, items: Tensor) -> Tensor:
        """What the decoder writes for items ``[B]``: their codes and the end token ``[B, L']``."""
        tokens = self.vocabulary.tokens(self.codes[items])  # [B, L]
        if self.vocabulary.eos is None:
            return tokens
        return pad(tokens, (0, 1), value=self.vocabulary.eos)  # [B, L + 1]

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Input vectors ``[..., d]`` of tokens ``[...]``."""
        return self.vocabulary.embed(tokens)

    def token_logits(
        self, states: Tensor, tokens: Tensor, closed: ClosedCodes
    ) -> tuple[Tensor, Tensor]:
        """The logits of all tokens that compete, and where the right ones stand among them.

        Args:
            states: what predicts the tokens ``[B, L', d]``.
            tokens: the right ones ``[B, L']``.
            closed: codes that do not compete.

        Returns:
            Logits ``[B, L', V]`` and columns ``[B, L']``.
        """
        logits = closed.hide_tokens(self.vocabulary.logits(states), self.vocabulary.first)
        return logits, tokens

    # --- the decoder ------------------------------------------------------------------------------

    def teach(self, memory: EncoderMemory, target: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: the target's tokens are both the decoder's input and its labels.

        Args:
            memory: the encoded sources.
            target: item ids ``[B]``.

        Returns:
            States ``[B, L', d]`` that predict the target's codes and its end token, and these
            tokens ``[B, L']``.
        """
        tokens = self.target_tokens(target)  # [B, L']
        inputs = pad(tokens[:, :-1], (1, 0))  # the padding token starts the decoder
        return self.backbone.decode(self.embed_tokens(inputs), memory), tokens

    def token_loss(
        self, memory: EncoderMemory, target: Tensor, closed: ClosedCodes = ALL_OPEN
    ) -> Tensor:
        """Mean cross-entropy of the target's codes and end token among the tokens that compete.

        Args:
            memory: the encoded sources.
            target: item ids ``[B]``.
            closed: codes that do not compete.
        """
        states, tokens = self.teach(memory, target)
        logits, columns = self.token_logits(states, tokens, closed)
        return ranking_guided_loss(logits, columns, self.temperature, self.label_smoothing)

    def search_decoder(
        self, memory: EncoderMemory, score_type: str, temperature: float = 1.0
    ) -> BeamDecoder:
        """What the search steps through.

        Args:
            memory: the encoded sources.
            score_type: over what the log-probabilities of a code are normalised.
            temperature: divides the logits.
        """
        vocabulary = self.vocabulary
        log_probs = partial(vocabulary.log_probs, score_type=score_type, temperature=temperature)
        return BeamDecoder(
            self.backbone, memory, vocabulary.start, vocabulary.embed_code, log_probs
        )

    # --- self_improve: codes from the content of an item ------------------------------------------

    @property
    def prefix_width(self) -> int:
        """Width of the content vectors, which are the encoder's input."""
        return self.backbone.d_model

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the items' codes given their content, in the unit of :meth:`loss`.

        All codes compete: a refresh looks beyond the trie.

        Args:
            items: item ids ``[B]``.
        """
        return balanced(self.token_loss(self._item_memory(items), items), len(items))

    def item_decoder(self, items: Tensor) -> BeamDecoder:
        """Next-code log-probabilities given the content of items.

        Args:
            items: item ids ``[B]``.
        """
        return self.search_decoder(self._item_memory(items), "level", self.temperature)

    def _item_memory(self, items: Tensor) -> EncoderMemory:
        """The encoded contents of items."""
        return self.backbone.read(*self.item_source(items))

    def description_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the items' words given their codes, with ``si_embed_text: text``.

        Args:
            items: item ids ``[B]``.
        """
        tokens = self.vocabulary.tokens(self.codes[items])
        code_vectors = self.vocabulary.embed(tokens)  # [B, L, d]
        return words_loss(self.backbone, code_vectors, self.self_improvement.item_prefix, items)

    # --- settings ---------------------------------------------------------------------------------

    @classmethod
    def language_model(cls, config) -> str:
        """Which language model, for the summary of a run."""
        return BackboneKeys.of(config).language_model

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the language model."""
        return {**super().describe(config), "backbone": cls.language_model(config)}
