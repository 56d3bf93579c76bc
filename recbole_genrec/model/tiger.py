"""TIGER (arXiv 2305.05065): an encoder-decoder generates the semantic id of the next item.

==============================  ===========================================================
paper                           here
==============================  ===========================================================
semantic ids, RQ-VAE (3.1)      ``tokenizer/rkmeans_tokenizer.py`` (residual k-means),
                                ``tokenizer/quantiser/rqvae.py``
fourth code of colliding items  ``tokenizer/collision.py``: ``add_extra_token``
sequence-to-sequence (3.2)      :meth:`TIGER.source`, :meth:`TIGER.loss`;
                                user token: key ``n_user_tokens``
retrieval by beam search        ``decoding/``, through :meth:`TIGER.item_logits`
new items                       ``add_items``
share of unseen items (4.3)     ``search/cold_sharing.py``, key ``cold_share``
==============================  ===========================================================
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.backbone import (
    BeamDecoder,
    EncoderDecoderBackbone,
    TiedCodeVocabulary,
    length_mask,
    load_encoder_decoder,
)
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderMemory
from recbole_genrec.decoding import CodeDecoder, ItemTrie, SearchResult
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.common_keys import OneTargetSettings, TemperatureKeys
from recbole_genrec.model.encoder_decoder import EncoderDecoderRecommender
from recbole_genrec.model.search.cold_sharing import ColdShare, ColdShareKeys, check_cold_share
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.backbone_keys import BackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.search_keys import CompiledSearchKeys
from recbole_genrec.settings.shared_keys import LabelSmoothingKeys


class TIGERSettings(
    ColdShareKeys,
    CompiledSearchKeys,
    TemperatureKeys,
    LabelSmoothingKeys,
    BackboneKeys,
    OneTargetSettings,
):
    """Keys of TIGER and LETTER."""

    generator: Literal["tiger", "timeline", "lcrec"] = key("what generates the codes")
    n_user_tokens: int = key("tokens that users share by id, placed first; 0 = none", ge=0)
    use_eos: bool = key("an end token after history and target")
    score_eos: bool = key("the end token counts in the score")
    loss_vocab: Literal["full", "trie"] = key("codes among which a target competes")


class TIGER(EncoderDecoderRecommender):
    """TIGER on the codes of any vector tokenizer; ``properties/model/TIGER.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    settings_class = TIGERSettings
    settings: TIGERSettings
    vocabulary: TiedCodeVocabulary

    rows_by_id = {"user_numbers": "users"}

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        settings = self.settings
        self.cold_share = ColdShare(self, dataset)
        t5 = load_encoder_decoder(settings.backbone, settings.backbone_config)
        self.backbone = EncoderDecoderBackbone(t5)
        if settings.compile_search:
            self.backbone.compile_search()
        self.vocabulary = TiedCodeVocabulary(
            self.level_sizes,
            self.backbone.d_model,
            settings.use_eos,
            settings.n_user_tokens,
        )

        self.uses_users = settings.n_user_tokens > 0
        if self.uses_users:
            # RecBole's user ids in training tell which token a user has; 0 = not in training.
            self.register_buffer("user_numbers", torch.arange(len(self.user_tokens)))

        self.temperature = settings.temperature

    # --- the two functions of a method ------------------------------------------------------------

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of the target's codes and end token under teacher forcing.

        ``loss_vocab: full``: the mean over tokens; each competes with padding, all codes and the
        end token. ``loss_vocab: trie``: the sum over the item's codes; each competes with the
        codes that the trie allows.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        memory = self._memory(history, length, user)
        closed = self.closed_codes(history, target)
        if self.settings.loss_vocab == "full":
            loss = self.token_loss(memory, target, closed)
        else:
            states, _ = self.teach(memory, target)  # [B, L', d]
            loss = self.trie_loss(states, target, closed, self.temperature)
        return balanced(loss, len(target))

    def item_logits(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> BeamDecoder:
        """Next-code log-probabilities after the encoded histories.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        memory = self._memory(history, length, user)
        settings = self.settings
        return self.search_decoder(memory, settings.score_type, settings.search_temperature)

    # --- encoder and decoder ----------------------------------------------------------------------

    def source(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encoder input: "user, codes of item 1, codes of item 2, ..., end".

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            user: RecBole's user ids ``[B]``. Whom training has not seen has no token: somebody
                without an id, 0, and a user of the data who came later.

        Returns:
            Tokens and mask ``[B, S]``, right-padded.
        """
        n_levels = self.codes.shape[1]
        tokens = self.vocabulary.tokens(self.codes[history]).flatten(1)  # [B, T * L]
        ends = length * n_levels  # [B]
        end_token = self.vocabulary.eos
        if end_token is not None:
            tokens = pad(tokens, (0, 1)).scatter(1, ends.unsqueeze(1), end_token)  # [B, T * L + 1]
            ends = ends + 1
        mask = length_mask(ends, tokens.shape[1])

        if self.uses_users and user is not None:
            numbers = self.user_numbers[user]  # [B]
            user_tokens = self.vocabulary.user_tokens(numbers)  # [B]
            known = (numbers > 0).unsqueeze(1)  # [B, 1]
            with_user = torch.cat([user_tokens.unsqueeze(1), tokens], dim=1)
            tokens = torch.where(known, with_user, pad(tokens, (0, 1)))
            mask = torch.where(known, pad(mask, (1, 0), value=True), pad(mask, (0, 1)))
        return tokens, mask

    def _memory(self, history: Tensor, length: Tensor, user: Tensor | None) -> EncoderMemory:
        """The encoded histories."""
        tokens, mask = self.source(history, length, user)
        return self.backbone.read(self.vocabulary.embed(tokens), mask)

    def starting_weights(self, stored: dict) -> dict:
        """As the base's; users whom the earlier training did not see take the next numbers.

        Args:
            stored: the ``state_dict`` of the earlier training.
        """
        weights = super().starting_weights(stored)
        if "user_numbers" not in weights:
            return weights
        numbers = weights["user_numbers"].clone()
        new = numbers == 0
        new[0] = False  # padding
        numbers[new] = numbers.max() + torch.arange(1, int(new.sum()) + 1, device=numbers.device)
        return {**weights, "user_numbers": numbers}

    def trie_table(self) -> tuple[Tensor, tuple[int, ...]]:
        """Codes and alphabet sizes that the search follows.

        With ``score_eos`` the end token is one more level, with one code.
        """
        codes, sizes = super().trie_table()
        if self.settings.score_eos:
            return pad(codes, (0, 1)), (*sizes, 1)
        return codes, sizes

    # --- a share of the lists for cold items ------------------------------------------------------

    def _search_result(
        self,
        decoder: CodeDecoder,
        trie: ItemTrie,
        k: int,
        fill: bool,
        excluded: Tensor | None,
    ) -> SearchResult:
        """As the base's; with ``cold_share`` cold items take places in the lists."""
        search = partial(super()._search_result, decoder, k=k, fill=fill, excluded=excluded)
        return self.cold_share.lists(search, trie, k, excluded)

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """As the base's; with ``cold_share`` the scores of :meth:`full_sort_predict`."""
        if self.cold_share.items() is None:
            return super().predict(interaction)
        return GenRecModel.predict(self, interaction)

    def other_parameter(self) -> dict:
        """As the base's, with the raw ids of the cold items of the dataset."""
        return {**super().other_parameter(), **self.cold_share.stored()}

    # --- self_improve -----------------------------------------------------------------------------

    def alignment_loss(self, items: Tensor) -> Tensor:
        """As the base's; with ``loss_vocab: trie`` the sum over the codes instead of their mean.

        Args:
            items: item ids ``[B]``.
        """
        loss = super().alignment_loss(items)
        if self.settings.loss_vocab == "trie":
            loss = loss * len(self.vocabulary.level_sizes)
        return loss

    # --- settings ---------------------------------------------------------------------------------

    @classmethod
    def check_settings(cls, settings: TIGERSettings) -> None:
        """Refuse an end token that has no cost, and the tokenizer of another kind of model."""
        check_cold_share(settings)
        end_can_be_scored = settings.use_eos and settings.score_type == "joint"
        if settings.score_eos and not end_can_be_scored:
            raise ConfigError(
                "score_eos: True needs use_eos: True and score_type: joint; the other scores give "
                "the end token no cost."
            )
        if settings.tokenizer == "store":
            raise ConfigError(
                "tokenizer: store trains a causal language model; use it with STORE, LCRec or "
                "TimelineRec."
            )
