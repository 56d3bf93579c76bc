"""TokenRec (arXiv 2406.10450): users and items as tokens of quantised collaborative vectors.

Items are ranked by cosine, without a search.

==================================  ================================================================
paper                               here
==================================  ================================================================
collaborative vectors (LightGCN)    ``collaborative/lightgcn_vectors.py``
masked vector quantisation          ``tokenizer/entity_mq.py``, one for items and one for users
prompts with user and item tokens   ``prompt.py``, wording in ``properties/prompts/tokenrec.yaml``
generative retrieval                :meth:`TokenRec.project`, ``projection.py``
pairwise ranking loss               :func:`cosine_loss` in ``projection.py``
unseen users and items              :meth:`Entities.infer_users`, :meth:`TokenRec.add_items`
codes by itself (``self_improve``)  ``self_coding.py``, our choice
==================================  ================================================================

Codes stand on the input side only, so equal codes do not tie items in the ranking: what is ranked
are the collaborative vectors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recbole_genrec.backbone import (
    EncoderDecoderBackbone,
    load_encoder_decoder,
    load_text_tokenizer,
    token_ids,
)
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.text_vocabulary import split_words
from recbole_genrec.data.given_ids import choosers
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.model.self_improve.checks import check_settings, self_improvement_line
from recbole_genrec.model.stored import TextUse
from recbole_genrec.model.tokenrec.entities import Entities
from recbole_genrec.model.tokenrec.keys import TokenRecSettings
from recbole_genrec.model.tokenrec.projection import ProjectionHead, cosine_loss, cosine_scores
from recbole_genrec.model.tokenrec.prompt import Prompts
from recbole_genrec.model.tokenrec.self_coding import SelfCoding
from recbole_genrec.model.user_codes import codes_of_users
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.property_files import shipped
from recbole_genrec.tokenizer.collision import parse_policies

SEEN_AT_TEST = 4
"""The trained template that evaluation uses: the fifth (our choice, unpublished)."""


def _rename_old_weights(module: nn.Module, state: dict, *_: object) -> None:
    """Checkpoints of version 0.1 call the buffer ``vectors`` ``item_vectors``."""
    if "item_vectors" in state:
        vectors = state.pop("item_vectors")
        state.setdefault("vectors", vectors)


class TokenRec(SelfCoding):
    """TokenRec; see ``properties/model/TokenRec.yaml`` for the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        codes: buffer int64 ``[n_items, K]``, row 0 = padding; prompts read it at every call.
        user_codes: buffer int64 ``[n_users, K]``, row 0 = padding; prompts read it at every call.
        user_known: buffer bool ``[n_users]``, whether a user has training interactions. The codes
            of the others come from their history.
        vectors: buffer float32 ``[n_items, d]``, what is ranked; zero for items without a training
            interaction.
    """

    needs_tokenizer = True
    uses_users = True
    places_by_users = True
    takes_users_of_items = True
    tables: ClassVar[dict[str, str]] = {
        "codes": "items",
        "user_codes": "users",
        "user_known": "users",
        "vectors": "items",
    }

    codes: Tensor
    user_codes: Tensor
    user_known: Tensor
    vectors: Tensor

    settings_class = TokenRecSettings
    settings: TokenRecSettings

    def __init__(self, config, dataset, stored: dict | None = None):
        settings = TokenRecSettings.of(config)
        super().__init__(config, dataset, stored)
        self.register_load_state_dict_pre_hook(_rename_old_weights)
        self.entities = self.pretrain_tokenizer(dataset)
        self.tokenizer_curves = self.entities.curves
        for name, table in zip(self.tables, self.entities.tables(), strict=True):
            self.register_buffer(name, table)
        self._start_anew()

        scratch = settings.backbone == "scratch"
        lm = load_encoder_decoder(settings.backbone, settings.backbone_config)
        self.texts = stored["prompts"] if stored else shipped("prompts/tokenrec")
        tokenise: Callable[[str], Sequence[Hashable]] = split_words
        if not scratch:
            tokenizer = load_text_tokenizer(settings.backbone, lm.get_input_embeddings())
            tokenise = partial(token_ids, tokenizer)
        self.prompts = Prompts(
            self.texts, tokenise, *self.entities.sizes, settings.source_len, settings.dec_len
        )
        self.table = nn.Parameter(torch.randn(self.prompts.n_tokens, lm.config.d_model))
        if not scratch:
            self._start_from_words(lm)
        if settings.init_token_from_codebook:
            self._start_from_codebooks()
        self.backbone = EncoderDecoderBackbone(lm)
        self.head = ProjectionHead(
            settings.dec_len * self.backbone.d_model,
            settings.proj_hidden,
            self.vectors.shape[1],
            settings.proj_dropout,
        )

    def pretrain_tokenizer(self, dataset) -> Entities:
        """Collaborative vectors, item and user codes: from a checkpoint, stored, or made now."""
        tokens = {"items": self.item_tokens, "users": self.user_tokens}
        if self.stored is not None:
            return Entities.restore(self.stored["entities"], self.config, tokens)
        return Entities.fit(self.config, dataset, tokens, self.logger.info)

    @torch.no_grad()
    def _start_from_words(self, lm: TransformersModule) -> None:
        """Start words from the language model's rows, and codes at random with their spread.

        Our choice, unpublished.
        """
        rows = lm.get_input_embeddings().weight
        used = [lm.config.pad_token_id, lm.config.eos_token_id, *self.prompts.words]
        self.table.mul_(rows.std())
        self.table[: len(used)] = rows[used]

    @torch.no_grad()
    def _start_from_codebooks(self) -> None:
        """Start each code as its codebook vector, scaled to the spread of the table.

        Our choice, unpublished.
        """
        books = self.entities.codebooks()
        width = self.table.shape[1]
        if books.shape[1] != width:
            raise ConfigError(
                f"init_token_from_codebook: the codes have {books.shape[1]} dimensions, the "
                f"backbone is {width} wide. Set code_dim to {width}, or "
                "init_token_from_codebook: False."
            )
        self.table[-len(books) :] = books * (self.table.std() / books.std())

    # --- training ---------------------------------------------------------------------------------

    def read_prompts(
        self, template: Tensor, user_codes: Tensor, history: Tensor, shown: Tensor
    ) -> Tensor:
        """The projected states of the language model after the prompts, ``[B, d]``.

        Args:
            template: number of the template, ``[B]``.
            user_codes: ``[B, K]``.
            history: item ids ``[B, T]``.
            shown: bool ``[B, T]``, which items of the history the prompt shows.
        """
        item_codes = self.codes[history]  # [B, T, K]
        ids, mask = self.prompts.source(template, user_codes, item_codes, shown)  # [B, S]
        memory = self.backbone.read(embedding(ids, self.table), mask)
        sentence = embedding(self.prompts.decoder_ids, self.table)  # [dec_len, d_model]
        states = self.backbone.decode(sentence.expand(len(ids), -1, -1), memory)
        return self.head(states)

    def loss(self, history: Tensor, length: Tensor, target: Tensor, user: Tensor) -> Tensor:
        """:func:`cosine_loss` towards the target and away from one item, drawn uniformly."""
        template = self._draw_templates(length)
        shown = self.prompts.shown(template, length, history.shape[1])
        if self.settings.shuffle_history:
            order = torch.rand(history.shape, device=history.device).argsort(1)
            history = history.gather(1, order)
            shown = shown.gather(1, order)
        projected = self.read_prompts(template, self.user_codes[user], history, shown).float()
        negative = torch.randint(1, self.n_items, target.shape, device=target.device)
        loss = cosine_loss(
            projected, self.vectors[target], self.vectors[negative], self.settings.gamma
        )
        return balanced(loss, len(target))

    def validation_loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor
    ) -> Tensor:
        """As :meth:`loss`, under the prompt of evaluation; a user's drawn item stays the same."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        drawn = torch.randint(1, self.n_items, (len(self.user_codes),), generator=generator)
        negative = drawn.to(user.device)[user]
        projected = self.project(history, length, user).float()
        return cosine_loss(
            projected, self.vectors[target], self.vectors[negative], self.settings.gamma
        )

    def _draw_templates(self, length: Tensor) -> Tensor:
        """A template for each row, ``[B]``: a share ``user_only_prob`` shows no history."""
        draw = torch.rand(2, len(length), device=length.device)
        templates = self.prompts.seen
        without_items = self.prompts.user_only
        with_history = (draw[1] * len(templates)).long()
        user_only = without_items.start + (draw[1] * len(without_items)).long()
        return torch.where(draw[0] < self.settings.user_only_prob, user_only, with_history)

    # --- ranking ----------------------------------------------------------------------------------

    def project(self, history: Tensor, length: Tensor, user: Tensor | None = None) -> Tensor:
        """The vectors ``[B, d]`` that the next items should be near to, under ``eval_prompt``.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            user: RecBole ids ``[B]``. Without them, and for users that have no training
                interaction, the history gives the user's codes.
        """
        number = SEEN_AT_TEST
        if self.settings.eval_prompt == "unseen":
            number = self.prompts.unseen
        template = torch.full_like(length, number)
        shown = self.prompts.shown(template, length, history.shape[1])
        user_codes = codes_of_users(
            user, history, self.user_codes, self.user_known, self.entities.infer_users
        )
        return self.read_prompts(template, user_codes, history, shown)

    def item_vectors(self) -> Tensor:
        """The collaborative vectors ``[n_items, d]``."""
        return self.vectors

    def similarity(self, projected: Tensor, vectors: Tensor) -> Tensor:
        """Cosines ``[B, n_items]``."""
        return cosine_scores(projected, vectors)

    def list_scores(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        user: Tensor | None = None,
    ) -> Tensor:
        """As the base's: cosines.

        Raises:
            DataError: a user is new, and the history has no item that occurs in training.
        """
        if user is None:
            user = history.new_zeros(len(history))
        for new_history in history[~self.user_known[user]]:
            self.entities.check_new_user(new_history)
        return super().list_scores(history, length, k, candidates, excluded, user=user)

    def listable(self, history: Tensor, user: Tensor) -> Tensor:
        """Rows of users in training, and those whose history has an item that was."""
        rows = self.user_known[user.to(self.user_known.device)].cpu().clone()
        for row in (~rows).nonzero().squeeze(1).tolist():
            try:
                self.entities.check_new_user(history[row])
            except DataError:
                continue
            rows[row] = True
        return rows

    # --- new items, checkpoints, reports ----------------------------------------------------------

    @torch.no_grad()
    def add_items(
        self,
        texts: Sequence[str],
        tokens: Sequence[str] | None = None,
        vectors: Tensor | None = None,
        users: Sequence[Sequence[str]] | None = None,
    ) -> list[int]:
        """Make new items recommendable without training.

        Each gets a collaborative vector and the codes of the frozen quantiser.

        Args:
            texts: one text an item, for people; TokenRec does not read it.
            tokens: their raw ids; default ``new-<internal id>``.
            vectors: ``[n, d]`` from the same collaborative model.
            users: instead of vectors, for each item the raw ids of users in training who chose it.

        Returns:
            Internal ids of the new items.

        Raises:
            ConfigError: neither vectors nor users, or both, or of the wrong shape; an unknown user.
            DataError: an item without a vector: none of its users was in training, or its vector
                is zero or no number.
        """
        tokens = self.catalogue.new_items(texts, tokens)
        if not tokens:
            return []
        if (vectors is None) == (users is None):
            raise ConfigError(
                f"Item {tokens[0]!r} has no collaborative vector: give either vectors, or users "
                "who chose each new item."
            )
        chosen_by = None
        if users is not None:
            chosen_by = [self._user_ids(users_of_item) for users_of_item in choosers(users)]
        vectors, codes = self.entities.new_items(tokens, vectors, chosen_by)
        added = self.append_items(texts, tokens, codes=codes, vectors=vectors)
        if self.self_improvement is not None:
            self.self_improvement.code_new_items(self, added)
        return added

    def _user_ids(self, users: Sequence[str]) -> Tensor:
        """Internal ids, int64 ``[n]``, of raw ones."""
        return torch.tensor([self.catalogue.user_id(user) for user in users], dtype=torch.long)

    def lacks_of_new_items(
        self, texts: Sequence[str], tokens: Sequence[str], users: Sequence[Sequence[str]]
    ) -> dict[str, str]:
        """An item needs one user at least who was in training, and nothing else."""
        alone = [token for token, chosen in zip(tokens, users, strict=True) if not chosen]
        return dict.fromkeys(alone, "no user who was in training chose them.")

    def has_learned(self, user: str) -> bool:
        """Whether a user has training interactions."""
        return super().has_learned(user) and bool(self.user_known[self.catalogue.user_id(user)])

    def other_parameter(self) -> dict:
        """As the base's, with vectors, codes and quantisers by raw id, and the wording."""
        return {
            **super().other_parameter(),
            "entities": self.entities.state(),
            "prompts": self.texts,
        }

    @classmethod
    def text_use(cls, config) -> TextUse:
        """The words of texts are read by ``si_embed_text: text`` alone."""
        settings = cls.settings_class.of(config)
        reads_words = settings.self_improve and settings.si_embed_text == "text"
        return "required" if reads_words else "none"

    @classmethod
    def check_config(cls, values: dict) -> None:
        """As the base's, and settings of the tokenizer that are for item codes alone."""
        super().check_config(values)
        if values["self_improve"]:
            check_settings(cls, cls.settings_class.of(values))
        if values["tokenizer_input"] != "graph" or parse_policies(values["collision"]) != ["none"]:
            raise ConfigError(
                "TokenRec quantises LightGCN's vectors and ranks the vectors. Set tokenizer_input: "
                "graph and collision: [none]."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        settings = cls.settings_class.of(config)
        return {
            "tokenizer": f"{settings.tokenizer}, codebooks {settings.codebook_sizes}, "
            "one set for items and one for users",
            **super().describe(config),
            "backbone": settings.language_model,
            "ranking": f"cosine over all items, eval_prompt {settings.eval_prompt}",
            **self_improvement_line(settings),
        }
