"""TokenRec (arXiv 2406.10450): users and items as tokens of quantised collaborative vectors, retrieval by cosine without a search.

==================================  ===================================================================================
paper                               here
==================================  ===================================================================================
collaborative vectors (LightGCN)    ``graph_vectors.py``
masked vector quantisation          ``tokenizer/mq.py``, one for items and one for users
prompts with user and item tokens   ``model/tokenrec_prompt.py``, wording: ``properties/prompts/tokenrec.yaml``
generative retrieval                :meth:`TokenRec.project`, :class:`ProjectionHead`, :meth:`TokenRec.scores`
pairwise ranking loss               :func:`cosine_loss`
unseen users and items              :meth:`Entities.infer_users`, :meth:`TokenRec.add_items`
==================================  ===================================================================================

Codes stand on the input side only, so equal codes do not tie items in the ranking: ranked are the collaborative vectors themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from recbole.utils import init_seed
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, embedding, normalize

from recbole_genrec.backbone import (
    EncoderDecoderBackbone,
    load_encoder_decoder,
    load_text_tokenizer,
)
from recbole_genrec.backbone.dropout import Dropout
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.tokenrec.entities import Entities
from recbole_genrec.model.tokenrec.prompt import Prompts, split_words
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.settings.rules import Rule
from recbole_genrec.tokenizer.collision import parse_policies

SEEN_AT_TEST = 4
"""The trained template that evaluation uses: the fifth (our choice, unpublished)."""


class ProjectionHead(nn.Module):
    """``Linear(ReLU(Dropout(Linear(states))))`` on the states of all positions, one after another.

    Args:
        d_in: positions times width of the states. hidden: width between. d_out: size of the collaborative vectors.
    """

    def __init__(self, d_in: int, hidden: int, d_out: int, dropout: float):
        super().__init__()
        self.inner, self.dropout, self.outer = (
            nn.Linear(d_in, hidden),
            Dropout(dropout),
            nn.Linear(hidden, d_out),
        )

    def forward(self, states: Tensor) -> Tensor:
        """``[B, T, d_model]`` -> ``[B, d_out]``."""
        return self.outer(self.dropout(self.inner(states.flatten(1))).relu())


def cosine_loss(
    projected: Tensor, positive: Tensor, negative: Tensor, gamma: float = 0.0
) -> Tensor:
    """Mean over 2B pairs of ``1 - cos`` (positive) and ``max(0, cos - gamma)`` (negative); all arguments ``[B, d]``."""
    towards = 1 - cosine_similarity(projected, positive)
    away = (cosine_similarity(projected, negative) - gamma).relu()
    return (towards + away).mean() / 2


def cosine_scores(projected: Tensor, vectors: Tensor) -> Tensor:
    """Cosines ``[B, n]`` of ``projected [B, d]`` and ``vectors [n, d]``; 0 where a vector is zero."""
    return normalize(projected, dim=1) @ normalize(vectors, dim=1).T


class TokenRec(GenRecModel):
    """TokenRec; see ``properties/model/TokenRec.yaml`` for the keys.

    Attributes:
        codes, user_codes: buffers int64 ``[n_items, K]`` and ``[n_users, K]``, row 0 = padding. Prompts read them at every call.
        user_known: buffer bool ``[n_users]``, whether a user has training interactions; the others' codes come from their history.
        item_vectors: buffer float32 ``[n_items, d]``, what is ranked; zero for items without a training interaction.
    """

    uses_users = True
    tables = ("codes", "user_codes", "user_known", "item_vectors")
    config_rules = {
        "tokenizer": Rule(str, "TokenRec quantises collaborative vectors", choices=("mq",)),
        "backbone_config": Rule(dict, "settings of a backbone from scratch"),
        "source_len": Rule(
            int, "longest encoder input, in tokens; the last items that fit are kept", low=1
        ),
        "dec_len": Rule(int, "length of the constant decoder input, in tokens", low=1),
        "proj_hidden": Rule(
            int, "width between the decoder's states and the projected vector", low=1
        ),
        "proj_dropout": Rule(float, "dropout of the projection", low=0, high=1),
        "gamma": Rule(float, "cosine that a negative may have without a loss", low=-1, high=1),
        "shuffle_history": Rule(bool, "train on the history in random order"),
        "user_only_prob": Rule(
            float, "share of the training samples without a history", low=0, high=1
        ),
        "init_token_from_codebook": Rule(
            bool,
            "start the token embeddings from the codebooks, whose size must be the backbone's width",
        ),
        "eval_prompt": Rule(str, "template at test time", choices=("seen", "unseen")),
        "mask_history": Rule(bool, "never rank items of the history"),
        "train_rows": Rule(str, "a row trains its last item alone", choices=("all",)),
    }

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored, needs_text=False)
        self.entities = self.pretrain_tokenizer(dataset)
        for name, table in zip(self.tables, self.entities.tables(), strict=True):
            self.register_buffer(name, table)
        self.n_items = len(self.codes)
        init_seed(
            config["seed"], config["reproducibility"]
        )  # the same start with fitted and with stored tokenizers
        scratch = config["backbone"] == "scratch"
        lm = load_encoder_decoder(config["backbone"], config["backbone_config"])
        self.texts = (
            stored["prompts"]
            if stored
            else read_yaml(properties_folder() / "prompts" / "tokenrec.yaml")
        )
        tokenise = (
            split_words
            if scratch
            else partial(load_text_tokenizer(config["backbone"]).encode, add_special_tokens=False)
        )
        self.prompts = Prompts(
            self.texts, tokenise, *self.entities.sizes, config["source_len"], config["dec_len"]
        )
        self.table = nn.Parameter(torch.randn(self.prompts.n_tokens, lm.config.d_model))
        if not scratch:
            self._start_from_words(lm)
        if config["init_token_from_codebook"]:
            self._start_from_codebooks()
        self.backbone = EncoderDecoderBackbone(lm)
        d_in = config["dec_len"] * self.backbone.d_model
        self.head = ProjectionHead(
            d_in, config["proj_hidden"], self.item_vectors.shape[1], config["proj_dropout"]
        )

    def pretrain_tokenizer(self, dataset) -> Entities:
        """Collaborative vectors, item and user codes: from a checkpoint, stored, or made now."""
        tokens = {"items": self.item_tokens, "users": self.user_tokens}
        if self.stored is not None:
            return Entities.restore(self.stored["entities"], self.config, tokens)
        return Entities.fit(self.config, dataset, tokens, self.logger.info)

    @torch.no_grad()
    def _start_from_words(self, lm: nn.Module) -> None:
        """Words start from the language model's rows, codes at random with their spread (our choice, unpublished)."""
        rows = lm.get_input_embeddings().weight
        used = [lm.config.pad_token_id, lm.config.eos_token_id, *self.prompts.words]
        self.table.mul_(rows.std())
        self.table[: len(used)] = rows[used]

    @torch.no_grad()
    def _start_from_codebooks(self) -> None:
        """Each code starts as its codebook vector, scaled to the spread of the table (our choice, unpublished)."""
        books = self.entities.codebooks()
        if books.shape[1] != self.table.shape[1]:
            raise ConfigError(
                f"init_token_from_codebook: the codes have {books.shape[1]} dimensions, the backbone is {self.table.shape[1]} wide. Set "
                f"code_dim to {self.table.shape[1]}, or init_token_from_codebook: False."
            )
        self.table[-len(books) :] = books * (self.table.std() / books.std())

    # --- training -------------------------------------------------------------------------------------------------------------------

    def project(
        self, template: Tensor, user_codes: Tensor, history: Tensor, shown: Tensor
    ) -> Tensor:
        """What the language model makes of the prompts, as vectors ``[B, d]`` beside the items'.

        Args:
            template: number ``[B]``. user_codes: ``[B, K]``. history: item ids ``[B, T]``. shown: bool ``[B, T]``, which of them to show.
        """
        ids, mask = self.prompts.source(template, user_codes, self.codes[history], shown)
        memory = self.backbone.memory(self.backbone.encode(embedding(ids, self.table), mask), mask)
        sentence = embedding(self.prompts.decoder_ids, self.table).expand(len(ids), -1, -1)
        return self.head(self.backbone.decode(sentence, memory))

    def loss(self, history: Tensor, length: Tensor, target: Tensor, user: Tensor) -> Tensor:
        """:func:`cosine_loss` towards the target and away from one item drawn uniformly, be it what it may."""
        template = self._draw_templates(length)
        shown = self.prompts.shown(template, length, history.shape[1])
        if self.config["shuffle_history"]:
            order = torch.rand(history.shape, device=history.device).argsort(1)
            history, shown = history.gather(1, order), shown.gather(1, order)
        projected = self.project(template, self.user_codes[user], history, shown).float()
        negative = torch.randint(1, self.n_items, target.shape, device=target.device)
        loss = cosine_loss(
            projected, self.item_vectors[target], self.item_vectors[negative], self.config["gamma"]
        )
        return balanced(loss, len(target))

    def _draw_templates(self, length: Tensor) -> Tensor:
        draw, share = (
            torch.rand(2, len(length), device=length.device),
            self.config["user_only_prob"],
        )
        seen, alone = self.prompts.seen, self.prompts.user_only
        return torch.where(
            draw[0] < share,
            alone.start + (draw[1] * len(alone)).long(),
            (draw[1] * len(seen)).long(),
        )

    # --- ranking --------------------------------------------------------------------------------------------------------------------

    def scores(self, history: Tensor, length: Tensor, user: Tensor | None = None) -> Tensor:
        """Cosine ``[B, n_items]`` of the projected vectors and the items'; one encoder and one decoder pass, no search.

        Args:
            user: RecBole ids ``[B]``; without them, and for users that have no training interaction, the history gives the user's codes.
        """
        template = torch.full_like(
            length, SEEN_AT_TEST if self.config["eval_prompt"] == "seen" else self.prompts.unseen
        )
        shown = self.prompts.shown(template, length, history.shape[1])
        projected = self.project(template, self._user_codes(user, history), history, shown)
        with torch.autocast(projected.device.type, enabled=False):
            found = cosine_scores(projected.float(), self.item_vectors)
        return found.scatter(1, history, -torch.inf) if self.config["mask_history"] else found

    def _user_codes(self, user: Tensor | None, history: Tensor) -> Tensor:
        user = history.new_zeros(len(history)) if user is None else user
        codes, new = self.user_codes[user], ~self.user_known[user]
        if new.any():
            codes[new] = self.entities.infer_users(history[new]).to(codes.device)
        return codes

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """The cosine ``[B]`` of the given item of each row, as in :meth:`full_sort_predict`."""
        return (
            self.full_sort_predict(interaction)
            .gather(1, interaction[self.ITEM_ID].unsqueeze(1))
            .squeeze(1)
        )

    def ranked(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        user: Tensor | None = None,
    ) -> list[tuple[int, dict]]:
        """Scores are cosines."""
        if user is None or not self.user_known[user]:
            self.entities.check_new_user(history[0])
        items = (
            torch.arange(1, self.n_items, device=history.device)
            if candidates is None
            else candidates.unique()
        )
        scores, best = self.scores(history, length, user)[0, items].topk(min(k, len(items)))
        found = zip(items[best].tolist(), scores.tolist(), strict=True)
        return [(item, {"score": score}) for item, score in found if score > -math.inf]

    # --- new items, checkpoints, reports ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def add_items(
        self,
        texts: Sequence[str],
        tokens: Sequence[str] | None = None,
        vectors: Tensor | None = None,
        users: Sequence[Sequence[str]] | None = None,
    ) -> list[int]:
        """Make new items recommendable without training: a collaborative vector, and the codes of the frozen quantiser.

        Args:
            texts: one text an item, for people; TokenRec does not read it. tokens: their raw ids; default ``new-<internal id>``
            vectors: ``[n, d]`` from the same collaborative model.
            users: instead of vectors, for each item the raw ids of users in training who chose it.

        Returns:
            Internal ids of the new items.

        Raises:
            ConfigError: neither vectors nor users, or both, or of the wrong shape; an unknown user.
            DataError: an item without a vector: none of its users was in training, or its vector is zero or no number.
        """
        if not len(texts):
            return []
        tokens = self.new_tokens(texts, tokens)
        if (vectors is None) == (users is None):
            raise ConfigError(
                f"Item {tokens[0]!r} has no collaborative vector: give either vectors, or users who chose each new item."
            )
        if users is not None:
            users = [
                torch.tensor([self._user_id(user) for user in chosen], dtype=torch.long)
                for chosen in users
            ]
        added, codes = self.entities.new_items(tokens, vectors, users)
        self.item_vectors = torch.cat([self.item_vectors, added.to(self.item_vectors)])
        return self.append_items(codes, texts, tokens)

    def other_parameter(self) -> dict:
        """RecBole's hook for what is no weight: vectors, codes and quantisers of users and items by raw id, and the wording."""
        return {
            "entities": self.entities.state(),
            "prompts": self.texts,
            "added": self.added_items(),
        }

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, and settings of the tokenizer that mean something for item codes alone."""
        super().check_config(values)
        if values["tokenizer_input"] != "graph" or parse_policies(values["collision"]) != ["none"]:
            raise ConfigError(
                "TokenRec quantises LightGCN's vectors and ranks the vectors: tokenizer_input: graph and collision: [none]."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        return {
            "tokenizer": f"{config['tokenizer']}, codebooks {config['codebook_sizes']}, one set for items and one for users",
            **super().describe(config),
            "backbone": f"{config['backbone']}, {config['backbone_config']}",
            "ranking": f"cosine over all items, eval_prompt {config['eval_prompt']}",
        }

    def report(self) -> dict:
        """Tokenizer statistics for the result file."""
        return self.entities.report()
