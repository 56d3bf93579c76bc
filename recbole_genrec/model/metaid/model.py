"""META ID (arXiv 2406.08477): users and items as pairs of out-of-vocabulary tokens.

==================================  ============================================================
specification                       here
==================================  ============================================================
identifiers of users and items      ``tokenizer/metapath.py``
sequential and direct task          ``prompts.py``, :meth:`MetaID.loss`
representation augmentation         ``vocabulary.py``: ``AugmentedVocabulary.source_table``
exact scores of the catalogue       ``score_mode: exact``: ``decoding/exact.py``, one query for the
                                    root and one for each cluster that holds an item
trie beams, as published            ``score_mode: beam``
diversity, memorisation             ``diagnostics.py``, key ``id_diagnostics``
==================================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import (
    BeamDecoder,
    EncoderDecoderBackbone,
    load_encoder_decoder,
    load_text_tokenizer,
    token_ids,
)
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderMemory
from recbole_genrec.data.ids import rows_by_token
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.common_keys import ClippedGradientKeys, OneTargetSettings
from recbole_genrec.model.encoder_decoder import EncoderDecoderRecommender
from recbole_genrec.model.metaid.diagnostics import diversity, item_pairs, memorisation
from recbole_genrec.model.metaid.prompts import Prompts
from recbole_genrec.model.metaid.vocabulary import AugmentedVocabulary
from recbole_genrec.model.user_codes import codes_of_users
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.backbone_keys import BackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.property_files import shipped
from recbole_genrec.settings.shared_keys import LabelSmoothingKeys
from recbole_genrec.tokenizer.metapath import MetaPathTokenizer, mean_of_known


class MetaIDSettings(ClippedGradientKeys, LabelSmoothingKeys, BackboneKeys, OneTargetSettings):
    """Keys of META ID beside those of its tokenizer."""

    tokenizer: Literal["metapath"] = key("META ID names users and items", affects="tokenizer")
    direct_weight: float = key(
        "weight of the task that sees the user without a history; 0 = none",
        ge=0,
    )
    augment: bool = key(
        "add the centroid of its cluster to a code's embedding at the encoder's input",
    )
    alpha: float = key("strength of the augmentation", ge=0, only_if=("augment", True))
    prompt_style: Literal["ids", "text"] = key("structural tokens or words around users and items")
    id_diagnostics: bool = key(
        "report diversity and memorisation of the identifiers", affects="display", evaluate=True
    )


class MetaID(EncoderDecoderRecommender):
    """META ID on the codes of ``tokenizer: metapath``; keys in ``properties/model/MetaID.yaml``.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        user_codes: buffer int64 ``[n_users, 2]``, row 0 = padding; prompts read it at every call.
        user_known: buffer bool ``[n_users]``, whether a user has a training interaction. The pairs
            of the others come from their history.
    """

    settings_class = MetaIDSettings
    settings: MetaIDSettings
    uses_users = True
    tables: ClassVar[dict[str, str]] = {
        "codes": "items",
        "user_codes": "users",
        "user_known": "users",
    }

    tokenizer: MetaPathTokenizer
    vocabulary: AugmentedVocabulary
    user_codes: Tensor
    user_known: Tensor

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._name_users()
        settings = self.settings
        t5 = load_encoder_decoder(settings.backbone, settings.backbone_config)
        self.texts: Mapping[str, str] | None = None
        if settings.prompt_style == "text":
            self.texts = (stored or {}).get("prompts") or shipped("prompts/metaid")
        self.prompts = self._prompts(t5.get_input_embeddings())
        code_vectors = None
        if settings.augment:
            code_vectors = self._code_vectors()
        words = self.prompts.words
        self.vocabulary = AugmentedVocabulary(
            self.level_sizes, t5.config.d_model, len(words), code_vectors, settings.alpha
        )
        if self.texts is not None:
            self.vocabulary.start_words(t5.get_input_embeddings().weight[words])
        self.backbone = EncoderDecoderBackbone(t5)

    # --- users ------------------------------------------------------------------------------------

    def _name_users(self) -> None:
        """Take over the users' codes and vectors; no item may have the codes of a user."""
        users = self.tokenizer.entities(self.item_codes).users
        vectors = rows_by_token(self.tokenizer.user_vectors, users.tokens, self.user_tokens)
        self.register_buffer(
            "user_codes", rows_by_token(users.codes, users.tokens, self.user_tokens)
        )
        self.register_buffer("user_known", vectors.any(1))
        dataset_items = self.item_tokens[: self.n_dataset_items]
        self.item_paths = rows_by_token(
            self.tokenizer.item_vectors, self.tokenizer.item_tokens, dataset_items
        )

    def user_pairs(self, user: Tensor | None, history: Tensor) -> Tensor:
        """Codes ``[B, 2]`` of users by id, or by their history where the training has none.

        Args:
            user: RecBole's user ids ``[B]``; ``None`` for users who are new.
            history: item ids ``[B, T]``, right-padded with 0.
        """
        return codes_of_users(
            user, history, self.user_codes, self.user_known, self._pairs_by_history
        )

    def _pairs_by_history(self, history: Tensor) -> Tensor:
        """Codes ``[B, 2]`` of new users; items that were added after the fit do not count."""
        items = history.cpu()
        items = items.where(items < self.n_dataset_items, 0)
        return self.tokenizer.new_pairs(mean_of_known(self.item_paths[items]))

    def reserved_codes(self) -> Tensor:
        """The pairs of the users: no item may take one."""
        return self.tokenizer.user_codes.codes[1:].to(self.codes.device)

    def codes_in_use(self) -> Tensor:
        """As the base's, with those of the users."""
        return torch.cat([super().codes_in_use(), self.reserved_codes()])

    # --- vocabulary -------------------------------------------------------------------------------

    def _prompts(self, text_table: nn.Embedding) -> Prompts:
        """Prompts of structural tokens, or of words that ``text_table`` has."""
        if self.texts is None:
            return Prompts()
        tokenizer = load_text_tokenizer(self.settings.backbone, text_table)
        return Prompts(self.texts, partial(token_ids, tokenizer))

    def _code_vectors(self) -> Tensor:
        """Fixed vectors of the codes ``[sum(sizes), d]``.

        A cluster has its centroid, a rank a random vector with values in [0, 1).
        """
        centroids = self.tokenizer.side_vectors()  # [K + 1, d]
        generator = torch.Generator().manual_seed(self.settings.seed)
        of_ranks = torch.rand(self.level_sizes[1], centroids.shape[1], generator=generator)
        return torch.cat([centroids, of_ranks])

    # --- the two functions of a method ------------------------------------------------------------

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Cross-entropy of the target's pair and end token, with and without the history.

        ``L = L_seq + direct_weight * L_direct``; both tasks see every sample.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        sequential = self.task_loss("sequential", history, length, target, user)
        weight = self.settings.direct_weight
        if weight == 0:
            return sequential
        return sequential, weight * self.task_loss("direct", history, length, target, user)

    def task_loss(
        self, task: str, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None
    ) -> Tensor:
        """Cross-entropy of the target's pair and end token in one task.

        Args:
            task: ``sequential`` or ``direct``.
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        memory = self._memory(task, self.user_pairs(user, history), history, length)
        closed = self.closed_codes(history, target)
        return balanced(self.token_loss(memory, target, closed), len(target))

    def validation_loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None = None
    ) -> Tensor:
        """The loss of the sequential task, which recommends."""
        return self.task_loss("sequential", history, length, target, user)

    def item_logits(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> BeamDecoder:
        """Next-code log-probabilities after the sequential prompt; the end token is certain.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            user: RecBole's user ids ``[B]``.
        """
        pairs = self.user_pairs(user, history)
        memory = self._memory("sequential", pairs, history, length)
        return self.search_decoder(memory, self.settings.score_type)

    def source(
        self, task: str, pairs: Tensor, history: Tensor, length: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encoder input of a task, from the present code tables.

        Args:
            task: ``sequential`` or ``direct``.
            pairs: codes of the users ``[B, 2]``.
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.

        Returns:
            Tokens and mask ``[B, S]``, right-padded.
        """
        vocabulary = self.vocabulary
        return self.prompts.source(
            task,
            vocabulary.first_word,
            vocabulary.first[-1],
            vocabulary.tokens(pairs),
            vocabulary.tokens(self.codes[history]),
            length,
        )

    def _memory(self, task: str, pairs: Tensor, history: Tensor, length: Tensor) -> EncoderMemory:
        tokens, mask = self.source(task, pairs, history, length)
        return self.backbone.read(self.vocabulary.embed_source(tokens), mask)

    # --- checkpoints and reports ------------------------------------------------------------------

    def other_parameter(self) -> dict:
        """As the base's, with the wording of the prompts."""
        return {**super().other_parameter(), "prompts": self.texts}

    @classmethod
    def check_settings(cls, settings: MetaIDSettings) -> None:
        """Refuse prompts of words where the backbone has none."""
        if settings.prompt_style == "text" and settings.backbone == "scratch":
            raise ConfigError(
                "prompt_style: text uses the words of a pretrained backbone, and backbone: scratch "
                "has none. Name a folder or hub id in backbone, or use prompt_style: ids."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines, with users and items in one, and the tasks."""
        settings = cls.settings_class.of(config)
        augmentation = "none"
        if settings.augment:
            augmentation = f"alpha {settings.alpha}"
        return {
            **super().describe(config),
            "tokenizer": f"{settings.tokenizer}, {settings.codebook_sizes[0]} clusters of users "
            "and items",
            "tasks": f"sequential, direct with weight {settings.direct_weight}; augmentation: "
            f"{augmentation}",
        }

    @torch.no_grad()
    def report(self) -> dict:
        """As the base's, with the statistics of the users' codes and the diagnostics."""
        report: dict[str, Any] = {
            **super().report(),
            "user_tokenizer": self.tokenizer.user_codes.stats(),
        }
        if self.settings.id_diagnostics:
            report["identifiers"] = self._diagnostics()
        return report

    def _diagnostics(self) -> dict[str, float]:
        """Diversity and memorisation; an identifier's embedding is the mean of its two tokens."""
        tokens = self.vocabulary.tokens(self.codes[1 : self.n_dataset_items])  # [n, 2]
        embeddings = self.vocabulary.embed_source(tokens).mean(1).float().cpu()
        pairs = item_pairs(len(embeddings))
        sequences = [items - 1 for items in self.content.item_sequences()]
        return {
            "diversity": diversity(embeddings, pairs),
            "memorisation": memorisation(embeddings, pairs, sequences),
        }
