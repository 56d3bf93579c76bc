"""STORE (arXiv 2409.07276 v1): one causal language model that turns item text into codes and recommends over the codes.

==============================  ==================================================================
task of the paper               here
==============================  ==================================================================
text-to-token (tokenization)    ``tokenizer/dense.py``: ``DenseTokenizer.dense``
token-to-text (reconstruction)  ``tokenizer/dense.py``: ``DenseTokenizer.reconstruction_loss``
token-to-token (recommendation) :meth:`STORE.recommendation_loss`
text-to-token (alignment)       :meth:`STORE.alignment_loss`
conditional beam search         ``decoding/``, through :meth:`STORE.item_logits`
==============================  ==================================================================

The language model starts from its stage-1 weights; codes have tables of their own (``CodeVocabulary``), both trained.
Unpublished and our choice: centroid start of the code embeddings, separators instead of numbered items, joint alignment.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from recbole_genrec.backbone import (
    CausalDecoder,
    CodeVocabulary,
    TextTable,
    compose,
    constant,
    embed_mixed,
    tokenise_texts,
)
from recbole_genrec.decoding import item_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.causal import CausalRecommender
from recbole_genrec.runtime.processes import balanced, from_first, own_part
from recbole_genrec.settings.rules import Rule


class STORE(CausalRecommender):
    """STORE, stages 1 to 3; see ``properties/model/STORE.yaml`` for the keys."""

    config_rules = {
        "tokenizer": Rule(str, "STORE brings its own tokenizer", choices=("store",)),
        "align_text_len": Rule(int, "text tokens per item in the alignment task", low=1),
        "code_init": Rule(str, "start of the code embeddings", choices=("centroid", "random")),
        "code_lr": Rule(float, "learning rate of the code tables", low=0),
        "loss_positions": Rule(str, "which codes are targets", choices=("all", "target")),
        "loss_vocab": Rule(str, "codes among which a target competes", choices=("full", "trie")),
        "lambda_align": Rule(float, "weight of the alignment task", low=0),
        "align_mode": Rule(str, "when the alignment task trains", choices=("joint", "alternate")),
        "align_batch": Rule(int, "items per batch of the alignment task", low=1),
        "item_prefix": Rule(str, "what announces an item", choices=("sep", "number")),
    }

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self.backbone, self.text_tokenizer, inject = self.tokenizer.hand_over()
        self.tune_backbone()
        self.vocabulary = CodeVocabulary(self.level_sizes, self.backbone.d_in, self.backbone.d_out)
        if config["code_init"] == "centroid":
            self.start_from_centroids(inject)
        self.n_text = self.backbone.text_table.num_embeddings
        self._tokenise_prompts(self.text_tokenizer)

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, all prompts present, and rows that suit the targets."""
        super().check_config(values)
        missing = {"reconstruct", "recommend", "history", "next", "describe", "answer"} - set(
            values["prompts"]
        )
        if missing:
            raise ConfigError(
                f"prompts has no {sorted(missing)[0]!r}; give all sentences as in properties/tokenizer/store.yaml."
            )
        if values["loss_positions"] == "target" and values["train_rows"] != "all":
            raise ConfigError(
                f"loss_positions: target learns from the last item of a row only; with train_rows: {values['train_rows']} most "
                "interactions would never be a target. Use train_rows: all, or loss_positions: all."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the language model."""
        return {
            **super().describe(config),
            "backbone": f"{config['backbone']}, tuning {config['tuning']}",
        }

    @torch.no_grad()
    def start_from_centroids(self, inject: Tensor) -> None:
        """Each learned code starts as ``P(PCA^-1(centroid))``, scaled to the mean norm of the text embeddings; what it stands for.

        Args:
            inject: P of stage 1, ``[d_in, d_model]``.
        """
        norm = self.backbone.text_table.weight.norm(dim=-1).mean()
        vectors = [
            quantiser.centroid_vectors() @ inject.T.float()
            for quantiser in self.tokenizer.quantisers
        ]
        learned = sum(map(len, vectors))
        self.vocabulary.embedding[:learned] = torch.cat(vectors)
        self.vocabulary.embedding[learned:] = torch.randn_like(self.vocabulary.embedding[learned:])
        self.vocabulary.embedding.mul_(
            norm / self.vocabulary.embedding.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        )

    def _tokenise_prompts(self, text_tokenizer) -> None:
        """Token ids of every text piece, as buffers; prompts are put together from them at run time."""
        prompts, number = self.config["prompts"], self.config["item_prefix"] == "number"

        def piece(name: str, *texts: str) -> None:
            ids = [
                token
                for text in texts
                for token in text_tokenizer(text, add_special_tokens=False)["input_ids"]
            ]
            self.register_buffer(
                f"{name}_ids", torch.tensor(ids, dtype=torch.long), persistent=False
            )

        piece("task", prompts["recommend"], prompts["history"])
        piece("describe", prompts["describe"])
        piece("answer", prompts["answer"])
        separator = text_tokenizer.sep_token or "\n"
        piece("next", prompts["next"] if number else separator)
        prefixes = [f"\n({n})" if number else separator for n in range(1, self.max_seq_length + 1)]
        prefix_ids, prefix_valid = tokenise_texts(text_tokenizer, prefixes, 16)
        self.register_buffer("prefix_ids", prefix_ids, persistent=False)
        self.register_buffer("prefix_valid", prefix_valid, persistent=False)
        self.item_texts = TextTable(
            text_tokenizer, self.content.text, self.config["align_text_len"]
        )

    def items_added(self, items: list[int]) -> None:
        """Add the texts of new items to those of the alignment task.

        Args:
            items: internal ids of the new items.
        """
        self.item_texts.append(self.content.text[len(self.item_texts) :])

    # --- sequences ------------------------------------------------------------------------------------------------------------------

    def _codes(self, items: Tensor, levels: int | None = None) -> Tensor:
        """Ids of the items' codes behind the text vocabulary, ``[..., levels]``."""
        return self.n_text + self.vocabulary.flat(self.codes[items, :levels])

    def _prompt(self, history: Tensor, length: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Segments of "task, prefix, codes, prefix, codes, ..., next:"."""
        rows, slots = history.shape
        prefix = self.prefix_ids[:slots].expand(rows, -1, -1)
        items = torch.cat([prefix, self._codes(history)], dim=-1)
        present = (torch.arange(slots, device=length.device) < length.unsqueeze(1)).unsqueeze(-1)
        shown = torch.cat(
            [self.prefix_valid[:slots], self.prefix_valid.new_ones(slots, self.codes.shape[1])],
            dim=-1,
        )
        history_segment = (items.flatten(1), (present & shown).flatten(1))
        return [constant(self.task_ids, rows), history_segment, constant(self.next_ids, rows)]

    def prompts(self, history: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, S]``, right-padded, and lengths ``[B]`` of what the codes of the next item follow."""
        return compose(*self._prompt(history, length))

    def _embed(self, ids: Tensor) -> Tensor:
        return embed_mixed(ids, self.backbone.text_table, self.vocabulary.embedding)

    def _code_states(self, ids: Tensor, first: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """States ``[P, d_out]`` that predict the code positions from ``first`` on, each from the position before, and their codes."""
        states = self.backbone(self._embed(ids))[:, :-1]
        labels = ids[:, 1:] - self.n_text
        is_code = (labels >= 0) & (torch.arange(1, ids.shape[1], device=ids.device) >= first)
        return states[is_code], labels[is_code]

    def _code_loss(self, ids: Tensor, first: Tensor | int = 0) -> Tensor:
        """Cross-entropy over all C codes at the code positions from ``first`` on."""
        states, labels = self._code_states(ids, first)
        return balanced(cross_entropy(self.vocabulary.logits(states).float(), labels), len(labels))

    # --- the two tasks of stage 3 -----------------------------------------------------------------------------------------------------

    def recommendation_loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Token-to-token: codes of the history -> codes of the next item, L_rec; with ``loss_vocab: trie`` the sum over an item's codes."""
        codes, every = self._codes(target), self.config["loss_positions"] == "all"
        ids, lengths = compose(
            *self._prompt(history, length), (codes, torch.ones_like(codes, dtype=torch.bool))
        )
        first = 0 if every else (lengths - codes.shape[1]).unsqueeze(1)
        if self.config["loss_vocab"] == "full":
            return self._code_loss(ids, first)
        place, last = torch.arange(history.shape[1] + 1, device=length.device), length.unsqueeze(1)
        items = pad(history, (0, 1)).scatter(1, last, target.unsqueeze(1))[
            place <= last if every else place == last
        ]
        states = self._code_states(ids, first)[0].unflatten(0, (len(items), -1))
        blocks = (self.vocabulary.logits(state, n) for n, state in enumerate(states.unbind(1)))
        return balanced(item_cross_entropy(self.trie, items, blocks), len(items))

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Text-to-token: item text -> its learned codes, L_align (the extra token cannot be inferred from text)."""
        codes = self._codes(items, self.n_aligned)
        ids, _ = compose(
            *self._description(items), (codes, torch.ones_like(codes, dtype=torch.bool))
        )
        return self._code_loss(ids)

    def _description(self, items: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Segments of "task, text, answer:"."""
        text = self.item_texts(items)
        return [
            constant(self.describe_ids, len(items)),
            text,
            constant(self.answer_ids, len(items)),
        ]

    def loss(self, history: Tensor, length: Tensor, target: Tensor):
        """``L_rec + lambda_align * L_align``; the parts are logged apart."""
        recommendation = self.recommendation_loss(history, length, target)
        weight = self.config["lambda_align"]
        if weight == 0 or self.config["align_mode"] == "alternate":
            return recommendation
        items = from_first(
            torch.randint(
                1, len(self.item_texts), (self.config["align_batch"],), device=target.device
            )
        )
        return recommendation, weight * self.alignment_loss(own_part(items))

    def on_epoch_start(self, epoch: int) -> Iterator[Tensor]:
        """``align_mode: alternate``: one pass over all items with L_align before the epoch of L_rec."""
        super().on_epoch_start(epoch)
        return self._alternating()

    def _alternating(self) -> Iterator[Tensor]:
        weight = self.config["lambda_align"]
        if self.config["align_mode"] == "alternate" and weight > 0:
            order = from_first((1 + torch.randperm(len(self.item_texts) - 1)).to(self.codes.device))
            for items in order.split(self.config["align_batch"]):
                yield weight * self.alignment_loss(own_part(items))

    def parameter_groups(self) -> list[dict]:
        """The code tables learn at ``code_lr``, the language model at ``learning_rate``."""
        model = [p for p in self.backbone.parameters() if p.requires_grad]
        return [
            {"params": model},
            {"params": list(self.vocabulary.parameters()), "lr": self.config["code_lr"]},
        ]

    # --- inference ------------------------------------------------------------------------------------------------------------------

    def item_logits(self, history: Tensor, length: Tensor) -> CausalDecoder:
        """Next-code log-probabilities after the users' prompts."""
        return self._decoder(*self.prompts(history, length), self.config["score_type"])

    def item_decoder(self, items: Tensor) -> CausalDecoder:
        """Next-code log-probabilities after the text-to-token prompt."""
        return self._decoder(*compose(*self._description(items)), "level")

    def _decoder(self, ids: Tensor, lengths: Tensor, score_type: str) -> CausalDecoder:
        log_probs = partial(self.vocabulary.log_probs, score_type=score_type)
        return CausalDecoder(
            self.backbone, self._embed(ids), lengths, self.vocabulary.embed_code, log_probs
        )
