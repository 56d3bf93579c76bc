"""What all methods share that generate codes: training, search, new items.

A method writes :meth:`GenerativeRecommender.loss` and :meth:`GenerativeRecommender.item_logits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.backbone import length_mask
from recbole_genrec.decoding import ClosedCodes, item_cross_entropy, level_logits
from recbole_genrec.model.coded import content_description, tokenizer_description
from recbole_genrec.model.new_items import new_items_for
from recbole_genrec.model.search.code_search import (
    check_search_settings,
    search_description,
)
from recbole_genrec.model.search.searched import SearchedModel
from recbole_genrec.model.self_improve.checks import check_settings, self_improvement_line
from recbole_genrec.model.self_improve.host import SelfImproving
from recbole_genrec.tokenizer.collision import parse_policies
from recbole_genrec.tokenizer.vector_tokenizer import VectorSettings


class GenerativeRecommender(SelfImproving, SearchedModel):
    """A sequential recommender that generates the codes of the next item.

    A method writes two functions: :meth:`loss` and :meth:`item_logits`. It builds prompts and
    labels from item ids through ``self.codes`` at run time, so a changed table takes effect at
    the next call. The code table itself is :class:`CodedModel`'s.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        loss_vocab_key: the key that says what a code competes with in training.
    """

    loss_vocab_key = "loss_vocab"
    takes_users_of_items = True

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        loss_vocab = getattr(self.settings, self.loss_vocab_key, None)
        score_type = self.settings.score_type
        if loss_vocab == "trie" and score_type != "renormalised":
            self.logger.warning(
                f"{self.loss_vocab_key}: trie never learns which codes are illegal, so score_type: "
                f"{score_type} ranks by probabilities that are not trained. Use score_type: "
                f"renormalised, or another {self.loss_vocab_key}."
            )

    # --- what a method writes ---------------------------------------------------------------------

    def next_items(self, history: Tensor, length: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The item after each position, and which of them to learn.

        With ``train_rows: all`` only the target is learned, because each prefix has its own row,
        and so it is in validation.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            target: next item ids ``[B]``.

        Returns:
            Item ids ``[B, T]`` and bool ``[B, T]``.
        """
        position = torch.arange(history.shape[1], device=history.device)
        last = position == length.unsqueeze(1) - 1  # [B, T]
        following = torch.where(last, target.unsqueeze(1), pad(history[:, 1:], (0, 1)))  # [B, T]
        if self.has_one_target:
            return following, last
        return following, length_mask(length, history.shape[1])

    def trie_loss(
        self, states: Tensor, target: Tensor, closed: ClosedCodes, temperature: float = 1.0
    ) -> Tensor:
        """Mean of -log p(target), in nats, where a code competes with those that the trie allows.

        Args:
            states: what predicts the codes ``[B, L, d]``.
            target: item ids ``[B]``.
            closed: codes that do not compete.
            temperature: divides the logits.
        """
        logits = level_logits(self.vocabulary.logits, states, temperature)
        return item_cross_entropy(self.trie, target, closed.hide(logits), self.label_smoothing)

    def list_code_words(self) -> list[str] | None:
        """As the base's, ``12-7-250``; a model that reads no codes shows none."""
        if not self.reads_codes(self.config):
            return None
        return ["-".join(map(str, codes)) for codes in self.codes.tolist()]

    # --- new items --------------------------------------------------------------------------------

    @torch.no_grad()
    def add_items(
        self,
        texts: Sequence[str],
        tokens: Sequence[str] | None = None,
        vectors: Tensor | None = None,
        users: Sequence[Sequence[str]] | None = None,
    ) -> list[int]:
        """Make new items recommendable without training.

        They take the codes of the fitted tokenizer, a free extra token, and a new leaf of the trie.

        Args:
            texts: one text an item.
            tokens: their raw ids; default ``new-<internal id>``.
            vectors: ``[n, D]`` for a tokenizer of item vectors, in place of those of the texts;
                with ``item_vectors`` such vectors as the file has.
            users: for a tokenizer of interactions, for each item the raw ids of users in training
                who chose it.

        Returns:
            Internal ids of the new items. Codes and scores of all other items do not
            change.
        """
        tokens = self.catalogue.new_items(texts, tokens)
        if not tokens:
            return []
        if self.self_improvement is not None:
            self.self_improvement.check_new_items(self)
        new, of_content = new_items_for(self, self.tokenizer, texts, tokens, vectors, users)
        codes, moved = self.tokenizer.place(new, self.codes[1:].cpu(), self.level_sizes)
        if moved:
            self.logger.warning(
                f"{moved} of {len(texts)} new items did not fit under their nearest codes and took "
                "the next free ones."
            )
        self.item_codes = replace(self.item_codes, codes=self.codes.cpu()).append(codes, tokens)
        self.codes_version += 1
        self.content.add_vectors(of_content)
        added = self.append_items(new.texts, tokens, codes=codes)
        self.start_unused_codes()
        self.items_added(added)
        if self.self_improvement is not None:
            self.self_improvement.code_new_items(self, added)
        return added

    def items_added(self, items: list[int]) -> None:
        """Called by :meth:`add_items` when new items have their codes.

        A method extends its other tables here.

        Args:
            items: internal ids of the new items.
        """

    # --- checkpoints and reports ------------------------------------------------------------------

    @classmethod
    def check_config(cls, values: dict) -> None:
        """As the base's: settings of self_improve, of collisions and of the search."""
        if values["self_improve"]:
            check_settings(cls, cls.settings_class.of(values))
        if "collision" in values:  # stored codes have none
            parse_policies(values["collision"])
        check_search_settings(values)
        cls.check_order_of_codes(values)

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        settings = cls.settings_class.of(config)
        lines = {"tokenizer": tokenizer_description(config), **super().describe(config)}
        if VectorSettings.of(config).tokenizer_input == "text" or cls.reads_vectors(config):
            lines |= content_description(settings)
        lines["search"] = search_description(settings)
        return {**lines, **self_improvement_line(settings)}

    def report(self) -> dict:
        """Tokenizer and search statistics for the result file."""
        codes = replace(self.item_codes, codes=self.codes.cpu())
        candidates = self._tries.candidates
        n_candidates = None
        if candidates is not None:
            n_candidates = len(candidates)
        report = {
            "tokenizer": {
                **codes.stats(),
                **self.sizes_report(),
                **getattr(self.tokenizer, "quality", {}),
            },
            "search": self._search.report(n_candidates),
        }
        if self.self_improvement is not None:
            report["self_improve"] = self.self_improvement.report()
        return report
