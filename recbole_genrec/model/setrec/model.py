"""SETRec (arXiv 2502.10833): items as sets of continuous tokens, which are predicted at once.

Items are ranked by inner products.

==========================================  ====================================================
paper                                       here
==========================================  ====================================================
collaborative vectors (SASRec)              ``collaborative/``, :meth:`SETRec.pretrain_tokenizer`
collaborative and semantic tokens           :class:`~.item_tokens.ItemTokens`
reconstruction loss                         :meth:`~.item_tokens.ItemTokens.reconstruction_loss`
sparse attention, one position an item      :class:`~.reader.Layout`, ``SetReader.visible``
query vectors, simultaneous generation      :class:`~.reader.SetReader`
generation loss                             :func:`~.losses.generation_loss`
weighted grounding score                    :meth:`SETRec.similarity`, ``losses.py``
choice of beta                              :meth:`SETRec.after_fit`, ``beta.py``
new items                                   :meth:`SETRec.add_items`
==========================================  ====================================================

Nothing is discrete: there are no codes, no trie, no beam.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from recbole_genrec.backbone import CausalBackbone
from recbole_genrec.backbone.causal.lora import check_base
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import Validate
from recbole_genrec.model.new_items import filled_texts
from recbole_genrec.model.ranking import VectorRecommender
from recbole_genrec.model.setrec.beta import choose_beta
from recbole_genrec.model.setrec.item_tokens import AutoEncoder, ItemTokens, cold_vectors, fill_cold
from recbole_genrec.model.setrec.keys import SETRecSettings, check_keys
from recbole_genrec.model.setrec.language_model import is_encoder_decoder, load_language_model
from recbole_genrec.model.setrec.losses import (
    batch_rows,
    component_scores,
    generation_loss,
    normalised,
    sampled_generation_loss,
    token_weights,
)
from recbole_genrec.model.setrec.reader import SetReader


class SETRec(VectorRecommender):
    """SETRec; see ``properties/model/SETRec.yaml`` for the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no vectors are made.

    Attributes:
        cf_vectors: buffer float32 ``[n_items, d_cf]``, collaborative vectors, never trained.
        text_vectors: buffer float32 ``[n_items, d_text]``, standardised with ``ae_normalize``.
        text_mean: buffer ``[d_text]``, what was subtracted; 0 without.
        text_spread: buffer ``[d_text]``, what they were divided by; 1 without.
        has_cf: buffer bool ``[n_items]``, whether an item has training interactions.
        tuned_beta: buffer, the beta that validation chose.
        tokens: vectors of an item -> its tokens.
        reader: history of tokens -> states of the queries.
    """

    rows_by_id = {"cf_vectors": "items", "text_vectors": "items", "has_cf": "items"}
    vectors_are_weights = True

    cf_vectors: Tensor
    text_vectors: Tensor
    has_cf: Tensor
    text_mean: Tensor
    text_spread: Tensor
    tuned_beta: Tensor

    settings_class = SETRecSettings
    settings: SETRecSettings
    trains_without_history = True

    def __init__(self, config, dataset, stored: dict | None = None):
        settings = SETRecSettings.of(config)
        super().__init__(config, dataset, stored)
        self.places_by_text = settings.n_sem > 0
        encodes = is_encoder_decoder(settings)
        self.pretrain_tokenizer()
        self.register_buffer("tuned_beta", torch.tensor(0.5))
        self.beta_figures: dict[str, float] = {}
        self._states_of: dict[tuple, Tensor] | None = None

        self._start_anew()
        backbone, words, (instruction, separator) = load_language_model(config, encodes)
        if stored and isinstance(backbone, CausalBackbone):
            check_base(stored.get("base"), backbone.origin, settings.backbone)
        auto_encoder = None
        if settings.n_sem:
            auto_encoder = AutoEncoder(
                self.text_vectors.shape[1],
                settings.ae_layers,
                settings.n_sem,
                backbone.d_in,
                settings.ae_dropout,
            )
        self.tokens = ItemTokens(backbone.d_in, self.cf_vectors.shape[1], auto_encoder)
        slots = None
        if settings.setrec_position == "official":
            slots = self.max_seq_length
        self.reader = SetReader(
            backbone,
            words,
            instruction,
            separator,
            settings.n_cf + settings.n_sem,
            settings.query_init_std,
            is_causal=not encodes,
            official_mask=settings.setrec_mask == "official_t5",
            slots=slots,
        )

    @classmethod
    def reads_vectors(cls, config) -> bool:
        """Semantic tokens are made of them."""
        return bool(cls.settings_class.of(config).n_sem)

    # --- what an item is made of ------------------------------------------------------------------

    def pretrain_tokenizer(self) -> None:
        """Register the vectors that tokens are made of; a checkpoint fills them.

        Collaborative vectors are the item embeddings of a SASRec that saw the training split alone.
        """
        known = torch.ones(self.n_items, dtype=torch.bool)
        if self.stored:
            widths = self.stored["widths"]
            cf = torch.zeros(self.n_items, widths["cf"])
            texts = torch.zeros(self.n_items, widths["text"])
        else:
            cf, known = self._collaborative(known)
            texts = self._texts()
        self.register_buffer("cf_vectors", cf)
        self.register_buffer("text_vectors", texts)
        self.register_buffer("has_cf", known)
        self.register_buffer("text_mean", torch.zeros(texts.shape[1]))
        self.register_buffer("text_spread", torch.ones(texts.shape[1]))
        if texts.shape[1] and self.settings.ae_normalize and not self.stored:
            items = texts[1:]
            spread = items.std(0)
            self.text_mean.copy_(items.mean(0))
            self.text_spread.copy_(torch.where(spread > 0, spread, 1))
            texts[1:] = self._scaled(items)

    def _collaborative(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Collaborative vectors ``[n_items, d_cf]``, and which items have one."""
        if not self.settings.n_cf:
            return torch.zeros(self.n_items, 0), known
        vectors = torch.from_numpy(self.content.collaborative())
        known = torch.from_numpy(self.content.trained)
        cold = int((~known[1:]).sum())
        if cold:
            self.logger.info(
                f"{cold} of {self.n_items - 1} items have no training interaction; their "
                f"collaborative vectors follow cold_cf: {self.settings.cold_cf}."
            )
        return fill_cold(vectors, known, self.item_tokens, self.settings.cold_cf), known

    def _texts(self) -> Tensor:
        """Text vectors ``[n_items, d_text]``."""
        if not self.settings.n_sem:
            return torch.zeros(self.n_items, 0)
        return torch.tensor(self.content.embeddings())

    def _scaled(self, vectors: Tensor) -> Tensor:
        """Text vectors ``[n, d_text]`` as they are, or standardised with ``ae_normalize``."""
        return (vectors - self.text_mean) / self.text_spread

    def all_tokens(self) -> Tensor:
        """Tokens of all items ``[n_items, Q, d]``, row 0 = padding; with gradients in training."""
        return self.tokens(self.cf_vectors, self.text_vectors)

    # --- training ---------------------------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """L_gen and alpha * L_AE."""
        if self.settings.setrec_ce == "sampled":
            return self._sampled_loss(history, length, target)
        tokens = self.all_tokens()  # [n_items, Q, d]
        states = self.read(tokens, history, length)
        reconstruction = self.tokens.reconstruction_loss(tokens, self.text_vectors, history)
        excluded = self.excluded_in_training(history, target)
        generation = generation_loss(states, tokens, target, excluded)
        return generation, self.settings.alpha * reconstruction

    def _sampled_loss(
        self, history: Tensor, length: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`loss`, with the tokens of the batch's items and of the drawn ones alone."""
        n_real = self.n_items - 1
        shape = (self.settings.setrec_negatives,)
        negatives = torch.randint(1, self.n_items, shape, device=target.device)
        items, in_history, of_target, of_negatives = batch_rows(history, target, negatives)
        texts = self.text_vectors[items]
        tokens = self.tokens(self.cf_vectors[items], texts)  # [m, Q, d]
        states = self.read(tokens, in_history, length)
        generation = sampled_generation_loss(
            states,
            tokens[of_target],
            tokens[of_negatives],
            target,
            negatives,
            n_real,
            self.excluded_in_training(history, target),
        )
        reconstruction = self.tokens.reconstruction_loss(tokens, texts, in_history)
        return generation, self.settings.alpha * reconstruction

    def validation_loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """L_gen among all items, also with ``setrec_ce: sampled``."""
        tokens = self._kept_tokens()  # [n_items, Q, d]
        states = self.read(tokens, history, length)
        return generation_loss(states, tokens, target, self.excluded_in_training(history, target))

    def read(self, tokens: Tensor, history: Tensor, length: Tensor) -> Tensor:
        """States of the queries after histories, ``[B, Q, d]``.

        Args:
            tokens: of the items, ``[n, Q, d]``.
            history: rows of ``tokens``, ``[B, T]``, right-padded with 0.
            length: ``[B]``.
        """
        items = embedding(history, tokens.flatten(1))  # [B, T, Q * d]
        return self.reader(items.unflatten(2, tokens.shape[1:]), length)

    # --- ranking ----------------------------------------------------------------------------------

    @property
    def beta(self) -> Tensor:
        """Weight of semantic tokens in a score: the key's, or what validation chose."""
        if self.settings.beta == "auto":
            return self.tuned_beta
        return torch.full_like(self.tuned_beta, self.settings.beta)

    def item_vectors(self) -> Tensor:
        """The tokens of each item one after another, ``[n_items, Q * d]``."""
        return self.all_tokens().flatten(1)

    def project(self, history: Tensor, length: Tensor, user: Tensor | None = None) -> Tensor:
        """The states of the queries one after another, ``[B, Q * d]``.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            user: is not read.
        """
        if self._states_of is None:
            return self._states(history, length)
        key = (history.shape, history.cpu().numpy().tobytes())
        if key not in self._states_of:
            self._states_of[key] = self._states(history, length)
        return self._states_of[key]

    def _states(self, history: Tensor, length: Tensor) -> Tensor:
        return self.read(self._kept_tokens(), history, length).flatten(1)

    def _kept_tokens(self) -> Tensor:
        """:meth:`all_tokens`, kept in evaluation until the weights change."""
        vectors = self._ranked_vectors.get(self, self.item_vectors)  # [n_items, Q * d]
        return vectors.unflatten(1, (self.reader.n_tokens, -1))

    def similarity(self, projected: Tensor, vectors: Tensor) -> Tensor:
        """Scores ``[B, n_items]``: the weighted sum of the inner products of each token.

        Args:
            projected: from :meth:`project`.
            vectors: from :meth:`item_vectors`.
        """
        shape = (self.reader.n_tokens, -1)
        states = projected.unflatten(1, shape)
        tokens = vectors.unflatten(1, shape)
        weights = token_weights(self.beta, self.tokens.n_cf, self.tokens.n_sem)  # [Q]
        if self.settings.score_norm is None:
            # the sum of weighted inner products is one inner product
            return (states * weights.unsqueeze(1)).flatten(1) @ vectors.T
        scores = normalised(component_scores(states, tokens), self.settings.score_norm)
        return torch.einsum("q,bqn->bn", weights, scores)

    # --- beta -------------------------------------------------------------------------------------

    @property
    def chooses_beta(self) -> bool:
        """Whether there is something to choose: both kinds of tokens, and ``beta: auto``."""
        both = bool(self.tokens.n_cf and self.tokens.n_sem)
        return both and self.settings.beta == "auto"

    def after_fit(self, validate: Validate) -> None:
        """Choose beta on the validation split; the histories are read once for all values.

        Args:
            validate: evaluates the model on the validation split.
        """
        if not self.chooses_beta:
            return
        self._states_of = {}
        try:
            self.beta_figures = choose_beta(self.tuned_beta, self.settings, validate)
        finally:
            self._states_of = None

    # --- new items --------------------------------------------------------------------------------

    @torch.no_grad()
    def add_items(
        self,
        texts: Sequence[str],
        tokens: Sequence[str] | None = None,
        vectors: object = None,
    ) -> list[int]:
        """Make new items recommendable by their texts, without training.

        Their collaborative vectors are those of items without interactions (``cold_cf``).

        Args:
            texts: one text an item.
            tokens: their raw ids; default ``new-<internal id>``.
            vectors: with ``item_vectors``, such vectors ``[n, D]`` as the file has.

        Returns:
            Internal ids of the new items.

        Raises:
            ConfigError: items have no semantic tokens, or an id is taken or missing.
        """
        if not self.settings.n_sem:
            raise ConfigError(
                "With n_sem: 0 an item is its collaborative token alone, and a new item has none. "
                "Train with semantic tokens, or add the items to the dataset and train again."
            )
        tokens = self.catalogue.new_items(texts, tokens)
        if not tokens:
            return []
        texts = filled_texts(texts)
        of_content = self.content.new_vectors(tokens, vectors)
        embedded = torch.tensor(self.content.embed(texts, of_content))  # [n, D]
        text_vectors = self._scaled(embedded.to(self.text_mean))
        cf = self.cf_vectors.new_zeros(len(tokens), self.cf_vectors.shape[1])
        if self.tokens.n_cf:
            known = self.cf_vectors[1 : self.n_dataset_items][self.has_cf[1 : self.n_dataset_items]]
            cf = cold_vectors(known, tokens, self.settings.cold_cf)
        unknown = torch.zeros(len(tokens), dtype=torch.bool)
        self.content.add_vectors(of_content)
        rows = {"cf_vectors": cf, "text_vectors": text_vectors, "has_cf": unknown}
        return self.append_items(texts, tokens, **rows)

    # --- checkpoints, settings, reports -----------------------------------------------------------

    def other_parameter(self) -> dict:
        """As the base's, with the widths of the vectors and the facts of an adapter's base."""
        base = None
        backbone = self.reader.backbone
        if isinstance(backbone, CausalBackbone) and backbone.has_lora:
            base = backbone.origin
        widths = {"cf": self.cf_vectors.shape[1], "text": self.text_vectors.shape[1]}
        return {
            **super().other_parameter(),
            "widths": widths,
            "base": base,
            "beta_figures": self.beta_figures,
        }

    @classmethod
    def check_settings(cls, settings: SETRecSettings) -> None:
        """Refuse keys of SETRec that do not go together."""
        check_keys(settings)

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        settings = cls.settings_class.of(config)
        return {
            **super().describe(config),
            "item tokens": f"{settings.n_cf} collaborative, {settings.n_sem} semantic, continuous",
            "backbone": settings.language_model,
            "attention": f"mask {settings.setrec_mask}, positions {settings.setrec_position}",
            "ranking": f"inner products over all items, beta {settings.beta}",
        }

    def report(self) -> dict:
        """Tokens, beta and how it was chosen, and cold items, for the result file."""
        return {
            "item_tokens": {"cf": self.tokens.n_cf, "semantic": self.tokens.n_sem},
            "beta": round(float(self.beta), 6),
            "beta_figures": self.beta_figures,
            "cold_items": int((~self.has_cf[1:]).sum()),
        }
