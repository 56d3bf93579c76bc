"""LMIndexer (arXiv 2310.07815): the language model that named the items recommends them.

==============================  ===========================================================
paper                           here
==============================  ===========================================================
self-supervised ids (3)         ``tokenizer/lmindexer/``, a file for each part
model that goes on from there   ``LMIndexerTokenizer.hand_over``, key
                                ``init_from_tokenizer``
user as text, item id out (4.1) :meth:`LMIndexer.source`, :meth:`LMIndexer.loss`
constrained beam search         ``decoding/``, through :meth:`LMIndexer.item_logits`
new items                       ``tokenizer/lmindexer/new_items.py``
==============================  ===========================================================

Unpublished and our choice: a history of ids (``rec_input: ids``) or of ids and texts (``both``),
the losses over fewer tokens (``loss_vocab``), every prefix of a history as a row where the released
program draws five sub-histories of a user.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_genrec.backbone import (
    BeamDecoder,
    CodeVocabulary,
    TextAndCodes,
    TextTable,
    compose,
    length_mask,
    token_ids,
    whole,
)
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderMemory
from recbole_genrec.backbone.sequences import Segment
from recbole_genrec.decoding import ClosedCodes, smoothed_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.common_keys import OneTargetSettings
from recbole_genrec.model.encoder_decoder import EncoderDecoderRecommender
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.search_keys import CompiledSearchKeys
from recbole_genrec.settings.shared_keys import LabelSmoothingKeys
from recbole_genrec.tokenizer.lmindexer.network import with_end
from recbole_genrec.tokenizer.lmindexer.settings import LMIndexerTokenizerSettings
from recbole_genrec.tokenizer.lmindexer.tokenizer import LMIndexerTokenizer, check_settings

SEPARATOR = ". "


class LMIndexerSettings(CompiledSearchKeys, LabelSmoothingKeys, OneTargetSettings):
    """Keys of LMIndexer beside those of its tokenizer."""

    tokenizer: Literal["lmindexer"] = key("LMIndexer brings its own tokenizer", affects="tokenizer")
    init_from_tokenizer: bool = key(
        "go on with the language model that learned the codes; off: the same codes, random weights",
    )
    rec_input: Literal["ids", "text", "both"] = key("what stands for an item")
    max_source_length: int = key("tokens of a history", ge=2)
    item_max_length: int = key("text tokens of an item in a history", ge=1)
    loss_vocab: Literal["full", "codes", "trie"] = key("tokens among which a target competes")


class LMIndexer(EncoderDecoderRecommender):
    """LMIndexer's recommender; ``properties/model/LMIndexer.yaml`` lists the keys.

    Token ids below the text vocabulary's size are text, those from there on are codes.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    settings_class = LMIndexerSettings
    settings: LMIndexerSettings
    tokenizer: LMIndexerTokenizer
    vocabulary: CodeVocabulary
    prefix_width = None  # type: ignore[assignment]  # it reads the words of an item
    reads_prefix_words = False

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        settings = self.settings
        pretrained = self.tokenizer.hand_over()
        self.text_tokenizer = pretrained.text_tokenizer
        self.backbone = pretrained.backbone
        code_rows = pretrained.code_rows
        if not settings.init_from_tokenizer:
            self.backbone = self.tokenizer.fresh_backbone()
            code_rows = None
        if settings.compile_search:
            self.backbone.compile_search()

        self.end = self.text_tokenizer.eos_token_id
        width = self.backbone.d_model
        self.vocabulary = CodeVocabulary(
            self.level_sizes, width, width, tied=True, scale=self.backbone.output_scale
        )
        self.text_and_codes = TextAndCodes(self.backbone, self.vocabulary)
        self._start_codes(code_rows)
        self.item_texts = TextTable(
            self.text_tokenizer, self.content.text, settings.item_max_length
        )
        separator = token_ids(self.text_tokenizer, SEPARATOR)
        self.register_buffer("separator", torch.tensor(separator), persistent=False)  # [w]

    @torch.no_grad()
    def _start_codes(self, code_rows: Tensor | None) -> None:
        """Learned codes go on from the tokenizer; the others start like words.

        Args:
            code_rows: embeddings ``[C, d]`` of the learned codes; ``None`` = none.
        """
        words = self.backbone.text_table.weight
        self.vocabulary.start_like(words, words, spread=1.0)
        if code_rows is not None:
            self.vocabulary.embedding[: len(code_rows)] = code_rows

    # --- the two functions of a method ------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the target's codes and the end token under teacher forcing.

        ``loss_vocab: full``: text and codes compete. ``codes``: codes and the end token.
        ``trie``: the sum over the item's codes, each among those that the trie allows.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
        """
        memory = self._memory(*self.source(history, length))
        closed = self.closed_codes(history, target)
        if self.settings.loss_vocab == "trie":
            states, _ = self.teach(memory, target)  # [B, L + 1, d]
            loss = self.trie_loss(states[:, :-1], target, closed)
        else:
            loss = self.token_loss(memory, target, closed)
        return balanced(loss, len(target))

    def item_logits(self, history: Tensor, length: Tensor) -> BeamDecoder:
        """Next-code log-probabilities after the encoded histories.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: number of items in each history ``[B]``.
        """
        memory = self._memory(*self.source(history, length))
        return self.search_decoder(memory, self.settings.score_type)

    # --- source -----------------------------------------------------------------------------------

    def source(self, history: Tensor, length: Tensor) -> Segment:
        """Encoder input, with an end token behind it.

        ``ids``: codes of the items, oldest first, as in TIGER. ``text`` and ``both``: the items,
        newest first, joined by ". "; with ``both`` the codes of an item stand before its text. What
        exceeds ``max_source_length`` is of the oldest items.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: number of items in each history ``[B]``.

        Returns:
            Token ids ``[B, S]``, right-padded, and which of them count.
        """
        place = torch.arange(history.shape[1], device=history.device)
        is_item = length_mask(length, history.shape[1])  # [B, T]
        newest_first = (length.unsqueeze(1) - 1 - place).clamp(min=0)  # [B, T]
        items = history.gather(1, newest_first)  # [B, T]
        if self.settings.rec_input == "ids":
            n_kept = (self.settings.max_source_length - 1) // self.codes.shape[1]
            n_items = length.clamp(max=max(n_kept, 1))  # [B]
            oldest_first = (n_items.unsqueeze(1) - 1 - place).clamp(min=0)
            items = items.gather(1, oldest_first)
            is_item = length_mask(n_items, history.shape[1])

        pieces, counts = self._pieces(items)  # [B, T, w]
        counts = counts & is_item.unsqueeze(-1)
        ids, lengths = compose((pieces.flatten(1), counts.flatten(1)))  # [B, S], [B]
        ids = ids[:, : self.settings.max_source_length - 1]
        valid = length_mask(lengths, ids.shape[1])
        return with_end((ids, valid), self.end)

    def _pieces(self, items: Tensor) -> Segment:
        """What stands for each item of a history, ``[B, T, w]``."""
        codes = whole(self.text_and_codes.ids(self.codes[items]))  # [B, T, L]
        if self.settings.rec_input == "ids":
            return codes
        separator, follows = whole(self.separator.expand(*items.shape, -1))  # [B, T, w]
        follows[:, 0] = False  # nothing stands before the newest item
        segments = [(separator, follows), self.item_texts(items)]
        if self.settings.rec_input == "both":
            segments.insert(1, codes)
        ids, valid = zip(*segments, strict=True)
        return torch.cat(ids, dim=-1), torch.cat(valid, dim=-1)

    # --- encoder and decoder ----------------------------------------------------------------------

    def _memory(self, ids: Tensor, valid: Tensor) -> EncoderMemory:
        """The encoded sources, token ids ``[B, S]`` and which of them count."""
        return self.backbone.read(self.embed_tokens(ids), valid)

    def target_tokens(self, items: Tensor) -> Tensor:
        """As the base's: token ids behind the text vocabulary, and the text's end token."""
        return pad(self.text_and_codes.ids(self.codes[items]), (0, 1), value=self.end)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """As the base's, of text tokens and codes."""
        return self.text_and_codes.embed(tokens)

    def token_logits(
        self, states: Tensor, tokens: Tensor, closed: ClosedCodes
    ) -> tuple[Tensor, Tensor]:
        """As the base's: text tokens compete as ``loss_vocab`` says, and the codes behind them."""
        word_logits = self._word_logits(states)
        logits = torch.cat([word_logits, self.vocabulary.logits(states)], dim=-1)
        first = [word_logits.shape[-1] + offset for offset in self.vocabulary.first]
        logits = closed.hide_tokens(logits, first)
        if self.settings.loss_vocab == "full":
            return logits, tokens
        # Column 0 is the end token, the codes follow.
        codes = self.text_and_codes.code_numbers(tokens)
        return logits, torch.where(tokens == self.end, 0, codes + 1)

    def _word_logits(self, states: Tensor) -> Tensor:
        """Logits ``[B, L', V]`` of the text tokens that compete with codes."""
        return nn.functional.linear(states * self.backbone.output_scale, self._words())

    def _words(self) -> Tensor:
        """Output rows ``[V, d]`` of the text tokens that compete: all, or the end token alone."""
        rows = self.backbone.text_table.weight
        if self.backbone.lm_head is not None:
            rows = self.backbone.lm_head.weight
        if self.settings.loss_vocab == "full":
            return rows
        return rows[self.end : self.end + 1]

    def search_decoder(
        self, memory: EncoderMemory, score_type: str, temperature: float = 1.0
    ) -> BeamDecoder:
        """As the base's; ``joint`` is normalised as the loss is."""
        vocabulary = self.vocabulary
        log_probs = partial(
            vocabulary.log_probs,
            score_type=score_type,
            temperature=temperature,
            words=self._words(),
        )
        start = self.backbone.text_table.weight[0]
        return BeamDecoder(self.backbone, memory, start, vocabulary.embed_code, log_probs)

    # --- self_improve: the tokenizer's own task, text -> codes ------------------------------------

    def alignment_loss(self, items: Tensor) -> Tensor:
        """As the base's; with ``loss_vocab: trie`` the sum over the codes instead of their mean.

        Args:
            items: item ids ``[B]``.
        """
        loss = self.token_loss(self._item_memory(items), items)
        if self.settings.loss_vocab == "trie":
            loss = loss * self.codes.shape[1]
        return balanced(loss, len(items))

    def description_loss(self, items: Tensor) -> Tensor:
        """Cross-entropy of the items' texts and the end token given their codes.

        Args:
            items: item ids ``[B]``.
        """
        codes = whole(self.text_and_codes.ids(self.codes[items]))
        memory = self._memory(*with_end(codes, self.end))
        ids, valid = with_end(self.item_texts(items), self.end)  # [B, T + 1]
        inputs = pad(ids[:, :-1], (1, 0))  # the padding token starts the decoder
        states = self.backbone.decode(self.embed_tokens(inputs), memory)
        logits = self.backbone.text_logits(states[valid]).float()
        return balanced(smoothed_cross_entropy(logits, ids[valid]), int(valid.sum()))

    def _item_memory(self, items: Tensor) -> EncoderMemory:
        """The encoded texts of items."""
        return self._memory(*with_end(self.item_texts(items), self.end))

    # --- new items and settings -------------------------------------------------------------------

    def items_added(self, items: list[int]) -> None:
        """Take up the texts of new items."""
        self.item_texts.extend_to(self.content.text)

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, those of the tokenizer, and the place of the language model."""
        super().check_config(values)
        check_settings(LMIndexerTokenizerSettings.of(values))
        if values.get("backbone") is not None:
            raise ConfigError(
                f"backbone is {values['backbone']}, but LMIndexer goes on with the language model "
                f"of its tokenizer. Write --indexer_backbone={values['backbone']}."
            )

    @classmethod
    def language_model(cls, config) -> str:
        """As the base's, which is the tokenizer's."""
        settings = LMIndexerTokenizerSettings.of(config)
        if settings.indexer_backbone != "scratch":
            return settings.indexer_backbone
        return f"scratch, {settings.indexer_config}"
