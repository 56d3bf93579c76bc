"""TIGER (arXiv 2305.05065): an encoder-decoder reads a history as semantic ids and generates the semantic id of the next item.

==============================  ===========================================================================
paper                           here
==============================  ===========================================================================
semantic ids, RQ-VAE (3.1)      ``tokenizer/vectors.py`` (residual k-means), ``tokenizer/rqvae.py``
fourth code of colliding items  ``tokenizer/collision.py``: ``add_extra_token``
sequence-to-sequence (3.2)      :meth:`TIGER.source`, :meth:`TIGER.loss`; user token: ``n_user_tokens``
retrieval by beam search        ``decoding/``, through :meth:`TIGER.item_logits`
new items                       :meth:`TIGER.add_items`
==============================  ===========================================================================
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from recbole_genrec.backbone import (
    BeamDecoder,
    EncoderDecoderBackbone,
    TiedCodeVocabulary,
    load_encoder_decoder,
)
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderMemory
from recbole_genrec.decoding import item_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.rules import Rule


def ranking_guided_loss(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of ``logits / temperature`` (LETTER, arXiv 2405.07314, ranking-guided generation loss); 1 is the plain loss.

    Args:
        logits: ``[..., V]``. labels: ``[...]``, -100 is ignored.
    """
    logits = logits.float() if logits.dtype != torch.float64 else logits
    return cross_entropy(
        (logits if temperature == 1 else logits / temperature).flatten(0, -2), labels.flatten()
    )


class TIGER(GenerativeRecommender):
    """TIGER on the codes of any vector tokenizer; see ``properties/model/TIGER.yaml`` for the keys."""

    config_rules = {
        "tokenizer": Rule(str, "tokenizer of item vectors, or the folder of stored codes"),
        "generator": Rule(str, "what generates the codes", choices=("tiger", "timeline", "lcrec")),
        "backbone_config": Rule(dict, "settings of a backbone from scratch"),
        "n_user_tokens": Rule(int, "tokens that users share by id, placed first; 0 = none", low=0),
        "use_eos": Rule(bool, "an end token after history and target"),
        "score_eos": Rule(bool, "the end token counts in the score"),
        "loss_vocab": Rule(str, "codes among which a target competes", choices=("full", "trie")),
        "temperature": Rule(float, "divides the logits in training", low=1e-6),
        "train_rows": Rule(str, "a row trains its last item alone", choices=("all",)),
        "compile_search": Rule(bool, "torch.compile for the search"),
        "infer_temperature": Rule(
            float,
            "divides the logits in the search; match = temperature",
            choices=("match",),
            low=1e-6,
        ),
    }

    rows_by_id = {"user_numbers": "users"}

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self.backbone = EncoderDecoderBackbone(
            load_encoder_decoder(config["backbone"], config["backbone_config"])
        )
        if config["compile_search"]:
            self.backbone.compile_search()
        self.vocabulary = TiedCodeVocabulary(
            self.level_sizes, self.backbone.d_model, config["use_eos"], config["n_user_tokens"]
        )
        self.uses_users = config["n_user_tokens"] > 0
        if self.uses_users:  # RecBole's ids in training, which tell users' tokens
            self.register_buffer("user_numbers", torch.arange(len(self.user_tokens)))
        match = config["infer_temperature"] == "match"
        self.infer_temperature = config["temperature"] if match else config["infer_temperature"]

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, and an end token where it is scored."""
        super().check_config(values)
        if values["score_eos"] and not (values["use_eos"] and values["score_type"] == "joint"):
            raise ConfigError(
                "score_eos: True needs use_eos: True and score_type: joint; the other scores give the end token no cost."
            )
        if values["tokenizer"] == "store":
            raise ConfigError(
                "tokenizer: store trains a causal language model; use it with STORE or TimelineRec."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the backbone."""
        return {
            **super().describe(config),
            "backbone": f"{config['backbone']}, {config['backbone_config']}",
        }

    def trie_table(self) -> tuple[Tensor, tuple[int, ...]]:
        """With ``score_eos`` the end token is one more level."""
        codes, sizes = super().trie_table()
        return (pad(codes, (0, 1)), (*sizes, 1)) if self.config["score_eos"] else (codes, sizes)

    def source(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encoder input "user, codes of item 1, codes of item 2, ..., end": tokens and mask ``[B, S]``, right-padded."""
        levels = self.codes.shape[1]
        tokens = self.vocabulary.tokens(self.codes[history]).flatten(1)
        ends = length * levels
        if self.vocabulary.eos is not None:
            tokens = pad(tokens, (0, 1)).scatter(1, ends.unsqueeze(1), self.vocabulary.eos)
            ends = ends + 1
        mask = torch.arange(tokens.shape[1], device=tokens.device) < ends.unsqueeze(1)
        if self.uses_users and user is not None:
            tokens = torch.cat(
                [self.vocabulary.user_tokens(self.user_numbers[user]).unsqueeze(1), tokens], dim=1
            )
            mask = pad(mask, (1, 0), value=True)
        return tokens, mask

    def _memory(self, history: Tensor, length: Tensor, user: Tensor | None) -> EncoderMemory:
        tokens, mask = self.source(history, length, user)
        return self.backbone.memory(self.backbone.encode(self.vocabulary.embed(tokens), mask), mask)

    def loss(
        self, history: Tensor, length: Tensor, target: Tensor, user: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of the target's codes (and end token) under teacher forcing, over padding, codes and end token.

        With ``loss_vocab: trie`` the sum over the item's codes, each among those that the trie allows.
        """
        states, labels = self._teach(self._memory(history, length, user), target)
        if self.config["loss_vocab"] == "full":
            loss = ranking_guided_loss(
                self.vocabulary.logits(states), labels, self.config["temperature"]
            )
        else:
            blocks = (
                self.vocabulary.logits(state, n) / self.config["temperature"]
                for n, state in enumerate(states.unbind(1))
            )
            loss = item_cross_entropy(self.trie, target, blocks)
        return balanced(loss, len(labels))

    def _teach(self, memory: EncoderMemory, target: Tensor) -> tuple[Tensor, Tensor]:
        """States ``[B, L', d_model]`` that predict the target's codes (and end token), and these tokens ``[B, L']``."""
        labels = self.vocabulary.tokens(self.codes[target])
        if self.vocabulary.eos is not None:
            labels = pad(labels, (0, 1), value=self.vocabulary.eos)
        return self.backbone.decode(
            self.vocabulary.embed(pad(labels[:, :-1], (1, 0))), memory
        ), labels

    def item_logits(
        self, history: Tensor, length: Tensor, user: Tensor | None = None
    ) -> BeamDecoder:
        """Next-code log-probabilities after the encoded histories."""
        return self._decoder(
            self._memory(history, length, user), self.config["score_type"], self.infer_temperature
        )

    def _decoder(self, memory: EncoderMemory, score_type: str, temperature: float) -> BeamDecoder:
        log_probs = partial(
            self.vocabulary.log_probs, score_type=score_type, temperature=temperature
        )
        return BeamDecoder(
            self.backbone, memory, self.vocabulary.start, self.vocabulary.embed_code, log_probs
        )

    @property
    def prefix_width(self) -> int:
        """The item's projected content vector is the encoder's input."""
        return self.backbone.d_model

    def _item_memory(self, items: Tensor) -> EncoderMemory:
        prefix = self.item_prefix(items)
        mask = torch.ones(prefix.shape[:2], dtype=torch.bool, device=prefix.device)
        return self.backbone.memory(self.backbone.encode(prefix, mask), mask)

    def alignment_loss(self, items: Tensor) -> Tensor:
        """In the unit of :meth:`loss`, always over the whole vocabulary: a refresh looks beyond the trie."""
        states, labels = self._teach(self._item_memory(items), items)
        mean = ranking_guided_loss(
            self.vocabulary.logits(states), labels, self.config["temperature"]
        )
        return balanced(
            mean if self.config["loss_vocab"] == "full" else mean * labels.shape[1], len(labels)
        )

    def item_decoder(self, items: Tensor) -> BeamDecoder:
        """Next-code log-probabilities from the item's own content."""
        return self._decoder(self._item_memory(items), "level", self.config["temperature"])

    def items_added(self, items: list[int]) -> None:
        """Start values of the extra token that no item had before.

        Args:
            items: internal ids of the new items.
        """
        self.start_unused_codes()
