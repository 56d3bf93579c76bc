"""What all methods share that generate codes: code table, trie and search. A method adds its loss and its next-code scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.data.ids import read_ids
from recbole_genrec.data.item_text import PLACEHOLDER
from recbole_genrec.decoding import (
    CodeDecoder,
    ItemTrie,
    SearchLog,
    SearchResult,
    beam_search,
    beam_search_auto,
    exact_search,
    grammar_search,
    path_scores,
)
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.self_improve.checks import check_settings, description
from recbole_genrec.model.self_improve.improvement import SelfImprovement
from recbole_genrec.tokenizer import ItemCodes, NewItems, fit_or_load, make_tokenizer
from recbole_genrec.tokenizer.collision import parse_policies


class GenerativeRecommender(GenRecModel):
    """A sequential recommender that generates the codes of the next item.

    A method overrides two functions: :meth:`loss` and :meth:`item_logits`. Prompts and labels are built from item ids through
    ``self.codes`` at run time, so a changed table takes effect at the next call.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        codes: buffer int64 ``[n_items, L]``, row 0 = padding item. codes_version: buffer, rises with every change of the table.
        self_improvement: what refreshes the codes while the model trains; ``None`` = nothing does.
    """

    needs_tokenizer = True
    tables: ClassVar[dict[str, str]] = {"codes": "items"}

    codes: Tensor
    self_improvement: SelfImprovement | None

    def __init__(self, config, dataset, stored: dict | None = None):
        tokenizer = make_tokenizer(config, config["seed"])
        super().__init__(
            config, dataset, stored, needs_text=tokenizer.uses_text or self.needs_item_texts(config)
        )
        file = config["candidate_file"]
        self.candidates = (
            None if file is None else torch.tensor(self.item_ids(read_ids(file), f" in {file}"))
        )
        self.tokenizer = tokenizer
        self.item_codes = self.pretrain_tokenizer(dataset)
        self.register_buffer("codes", self.item_codes.codes.clone())
        self.register_buffer("codes_version", torch.zeros((), dtype=torch.long))
        self._trie: tuple[tuple, ItemTrie] | None = None
        if config["loss_vocab"] == "trie" and config["score_type"] != "renormalised":
            self.logger.warning(
                f"loss_vocab: trie never learns which codes are illegal, so score_type: {config['score_type']} ranks by probabilities that "
                "are not trained. Use score_type: renormalised, or another loss_vocab."
            )
        self._subset: tuple[ItemTrie, ItemTrie] | None = None
        self.self_improvement = None
        self.reset_search_log()
        init_seed(
            config["seed"], config["reproducibility"]
        )  # the same start with a fitted and with a stored tokenizer

    @classmethod
    def build(cls, config, dataset, stored: dict | None = None) -> GenerativeRecommender:
        """As the base's, with :class:`SelfImprovement` where ``self_improve`` is on."""
        model = super().build(config, dataset, stored)
        if config["self_improve"]:
            model.self_improvement = SelfImprovement(model, config)
        return model

    # --- what a method writes -------------------------------------------------------------------------------------------------------

    def item_logits(self, history: Tensor, length: Tensor) -> CodeDecoder:
        """Next-code log-probabilities, level by level, as a decoder that the search steps through.

        Args:
            history: item ids ``[B, T]``, right-padded with 0. length: ``[B]``.
        """
        raise NotImplementedError

    def next_items(self, history: Tensor, length: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The item after each position ``[B, T]``, and which of them to learn ``[B, T]``: with ``train_rows: all`` the target alone."""
        at = torch.arange(history.shape[1], device=history.device)
        last = at == length.unsqueeze(1) - 1
        following = torch.where(last, target.unsqueeze(1), pad(history[:, 1:], (0, 1)))
        return following, last if self.config["train_rows"] == "all" else at < length.unsqueeze(1)

    # What self_improve needs besides: the codes of an item from its own content, by the same
    # weights. A method that leaves one of the two functions out refuses self_improve.

    # ``alignment_loss(items [B])``: cross-entropy of the first ``n_aligned`` codes of the items,
    # given their content, in the unit of ``loss``.
    alignment_loss: Callable[[Tensor], Tensor] | None = None

    # ``item_decoder(items [B])``: next-code log-probabilities (``score_type: level``), given the
    # content of the items in the place of a history.
    item_decoder: Callable[[Tensor], CodeDecoder] | None = None

    # Width of the vectors of ``item_prefix``; ``None`` for a method with a text prompt.
    prefix_width: int | None = None

    def item_prefix(self, items: Tensor) -> Tensor:
        """The content of items as input vectors.

        Args:
            items: item ids ``[B]``.

        Returns:
            ``[B, 2, prefix_width]``: a marker of the task, and the projected content vector.
        """
        return self.self_improvement.item_prefix(items)

    def reserved_codes(self) -> Tensor:
        """Codes ``[R, L]`` that no item may take; none by default."""
        return self.codes[:0]

    @property
    def n_aligned(self) -> int:
        """Levels that ``alignment_loss`` covers: the learned ones.

        With self_improve they are all levels, because a refresh decodes each of them.
        """
        if self.self_improvement is None:
            return self.item_codes.n_learned
        return len(self.level_sizes)

    # --- tokenizer ------------------------------------------------------------------------------------------------------------------

    def pretrain_tokenizer(self, dataset) -> ItemCodes:
        """The item codes: from a checkpoint, from the artefact store, or by fitting the tokenizer now."""
        if self.stored is None:
            return fit_or_load(
                self.tokenizer,
                self.content,
                self.config["cache_dir"],
                self.config["seed"],
                self.logger.info,
            )
        self.tokenizer.set_state(
            self.stored["tokenizer"]["tensors"], self.stored["tokenizer"]["meta"]
        )
        codes = ItemCodes(
            **{**self.stored["item_codes"], "sizes": tuple(self.stored["item_codes"]["sizes"])}
        )
        return codes.aligned(self.item_tokens)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Alphabet size of each code position."""
        return self.item_codes.sizes

    @property
    def trie(self) -> ItemTrie:
        """The item trie of the present code table; rebuilt when the table has changed."""
        key = (
            int(self.codes_version),
            self.codes._version,
            self.codes.data_ptr(),
            self.codes.device,
        )
        if self._trie is None or self._trie[0] != key:
            codes, sizes = self.trie_table()
            build = partial(ItemTrie, codes.cpu(), sizes, budget_mb=self.config["trie_budget_mb"])
            trie = build()
            if trie.leaf_width > 1:
                self.logger.info(
                    "Items with the same codes have the same score; those with more training interactions go first."
                )
                trie = build(tie_order=-self.popularity())
            self._trie = key, trie.to(codes.device)
        return self._trie[1]

    def popularity(self) -> Tensor:
        """Training interactions of each item, ``[n_items]``; 0 for padding and added items."""
        return torch.from_numpy(
            np.bincount(np.concatenate(self.content.item_sequences()), minlength=self.n_items)
        )

    @property
    def search_trie(self) -> ItemTrie:
        """The trie that evaluations follow: :attr:`trie`, or its part for the items of ``candidate_file``."""
        trie = self.trie
        if self.candidates is None:
            return trie
        if self._subset is None or self._subset[0] is not trie:
            self._subset = trie, trie.subset(self.candidates, self.config["subset_norm"])
        return self._subset[1]

    def trie_table(self) -> tuple[Tensor, tuple[int, ...]]:
        """Codes ``[n_items, L]`` and alphabet sizes that the search follows."""
        return self.codes, self.level_sizes

    # --- RecBole's interface --------------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction):
        """As the base's, and the alignment task of self_improve.

        Raises:
            ConfigError: self_improve is on, but something that it needs is missing.
        """
        if self.self_improvement is None:
            if self.config["self_improve"]:
                raise ConfigError(
                    f"self_improve: True, but the constructor of {type(self).__name__} was called "
                    "directly, which leaves it out. Use registry.build_model(config, dataset)."
                )
            return super().calculate_loss(interaction)
        self.self_improvement.check_trainer(self._epoch_hook_seen)
        losses = super().calculate_loss(interaction)
        return self.self_improvement.with_alignment(self, losses)

    def on_epoch_start(self, epoch: int):
        """As the base's; with self_improve the codes may be refreshed."""
        if self.self_improvement is not None:
            self.self_improvement.on_epoch_start(self, epoch)
        return super().on_epoch_start(epoch)

    def scores(self, history: Tensor, length: Tensor, **more: Tensor) -> Tensor:
        """Reached items carry their log-likelihood, the others a finite value below every reached one."""
        return self.search(history, length, fill=True, **more).full

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Teacher-forced score ``[B]`` of the candidate item of each row, under the same ``score_type``."""
        history, length = self._history(interaction)
        items, more = interaction[self.ITEM_ID].unsqueeze(1), self._user(interaction)
        step = self.config["search_batch_size"]
        parts = []
        for rows in torch.arange(len(length), device=length.device).split(step):
            decoder = self.item_logits(
                history[rows], length[rows], **{name: value[rows] for name, value in more.items()}
            )
            parts.append(
                path_scores(
                    decoder, self.search_trie, items[rows], score_type=self.config["score_type"]
                )
            )
        return torch.cat(parts).squeeze(1)

    # --- search ---------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def search(
        self,
        history: Tensor,
        length: Tensor,
        k: int | None = None,
        fill: bool = False,
        trie: ItemTrie | None = None,
        **more: Tensor,
    ) -> SearchResult:
        """The best ``k`` items (default ``max(topk)``) per user by the configured search.

        Args:
            history: item ids ``[B, T]``, right-padded. length: ``[B]``. fill: also score all items. trie: default :attr:`search_trie`.
            more: ``user`` ids ``[B]``, for methods that use them.
        """
        config, trie = self.config, trie or self.search_trie
        decoder = self.item_logits(history[:, : int(length.max())], length, **more)
        wanted = k or max(config["topk"])
        options = {"score_type": config["score_type"], "fill": fill}
        width = config["beam_width"]
        if config["constraint"] != "trie":
            result = grammar_search(decoder, trie, max(width, wanted), **options)
        elif config["score_mode"] == "exact":
            result = exact_search(decoder, trie, wanted, **options)
        elif width == "auto":
            limits = {
                "beam_max": max(config["beam_max"], wanted),
                "uncertified": config["uncertified"],
            }
            result = beam_search_auto(decoder, trie, wanted, **limits, **options)
        else:
            result = beam_search(decoder, trie, max(width, wanted), **options)
        self.search_log.add(result)
        return result

    def ranked(
        self, history: Tensor, length: Tensor, k: int, candidates: Tensor | None, **more: Tensor
    ) -> list[tuple[int, dict]]:
        """Scores are sums of log-probabilities; ``certified`` = the list up to this rank is proven to be the exact best."""
        trie = (
            self.trie
            if candidates is None
            else self.trie.subset(candidates, self.config["subset_norm"])
        )
        result = self.search(history, length, k=k, trie=trie, **more)
        best = zip(result.items[0, :k].tolist(), result.scores[0, :k].tolist(), strict=True)
        return [
            (item, {"score": score, "certified": bool(result.certified(rank))})
            for rank, (item, score) in enumerate(best, 1)
            if item
        ]

    def reset_search_log(self) -> None:
        """Forget the search statistics; our trainer does so before each evaluation."""
        self.search_log = SearchLog(self.config["topk"])

    # --- new items ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def add_items(
        self,
        texts: Sequence[str],
        tokens: Sequence[str] | None = None,
        vectors: Tensor | None = None,
    ) -> list[int]:
        """Make new items recommendable without training.

        They take the codes of the fitted tokenizer, a free extra token, and a new leaf of the trie.

        Args:
            texts: one text an item.
            tokens: their raw ids; default ``new-<internal id>``.
            vectors: ``[n, D]`` for a tokenizer of item vectors, in place of those of the texts.

        Returns:
            Internal ids of the new items. Existing codes and scores (``score_type: level``) do not change.
        """
        if not len(texts):
            return []
        if self.self_improvement is not None:
            self.self_improvement.check_new_items(self)
        tokens, texts = (
            self.catalogue.new_items(texts, tokens),
            [text if text.strip() else PLACEHOLDER for text in texts],
        )
        new = NewItems(texts, vectors)
        codes, moved = self.tokenizer.place(new, self.codes[1:].cpu(), self.level_sizes)
        if moved:
            self.logger.warning(
                f"{moved} of {len(texts)} new items did not fit under their nearest codes and took the next free ones."
            )
        self.item_codes = replace(self.item_codes, codes=self.codes.cpu()).append(codes, tokens)
        self.codes_version += 1
        added = self.append_items(texts, tokens, codes=codes)
        self.items_added(added)
        if self.self_improvement is not None:
            self.self_improvement.code_new_items(self, added)
        return added

    def items_added(self, items: list[int]) -> None:
        """Called by :meth:`add_items` when new items have their codes; a method extends its tables here.

        Args:
            items: internal ids of the new items.
        """

    # --- checkpoints and reports ----------------------------------------------------------------------------------------------------

    def other_parameter(self) -> dict:
        """RecBole's hook for what is no weight: the codes by raw item id, and the tokenizer (plain values and tensors)."""
        tensors, meta = self.tokenizer.state()
        codes = {
            **vars(self.item_codes),
            "codes": self.codes.cpu(),
            "sizes": list(self.level_sizes),
            "tokens": list(self.item_tokens),
        }
        parameter = {
            **super().other_parameter(),
            "item_codes": codes,
            "tokenizer": {"tensors": tensors, "meta": meta},
        }
        if self.self_improvement is not None:
            parameter |= self.self_improvement.other_parameter()
        return parameter

    @classmethod
    def check_config(cls, values: dict) -> None:
        """Refuse combinations of settings that cannot work, before anything is trained; a method adds its own."""
        if values["self_improve"]:
            check_settings(cls, values)
        if "collision" in values:  # stored codes have none
            parse_policies(values["collision"])
        beam, deepest = values["beam_width"], max(values["topk"])
        if isinstance(beam, int) and beam < deepest:
            raise ConfigError(
                f"beam_width {beam} is below max(topk) {deepest}: the rest of each list would be arbitrary. "
                f"Use --beam_width={deepest} or more, or a smaller topk."
            )
        if beam == "auto" and values["beam_max"] < deepest:
            raise ConfigError(
                f"beam_max {values['beam_max']} is below max(topk) {deepest}. Use --beam_max={deepest} or more."
            )
        free = values["constraint"] != "trie"
        if free and (
            beam == "auto"
            or values["score_mode"] == "exact"
            or values["score_type"] == "renormalised"
        ):
            raise ConfigError(
                f"constraint: {values['constraint']} lets beams leave the catalogue, so nothing can be proven, scored exactly or "
                "renormalised over legal codes. Use an integer beam_width, score_mode: beam and score_type: level or joint, "
                "or constraint: trie."
            )
        file = values["candidate_file"]
        if file is not None and len(read_ids(file)) < deepest:
            raise ConfigError(
                f"{file} names {len(read_ids(file))} items, but topk asks for {deepest}. Give more items or a smaller topk."
            )

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """Lines for the summary that is printed when a run starts."""
        lines = {
            "tokenizer": f"{config['tokenizer']}, sizes {config['codebook_sizes']}, collision {config['collision']}",
            **super().describe(config),
            **(
                {"text encoder": config["text_encoder"]}
                if config["tokenizer_input"] == "text" or cls.needs_item_texts(config)
                else {}
            ),
            "search": ", ".join(
                f"{key} {config[key]}"
                for key in ("score_mode", "beam_width", "score_type", "constraint")
            ),
        }
        if config["self_improve"]:
            lines["self-improvement"] = description(config)
        return lines

    @classmethod
    def needs_item_texts(cls, config) -> bool:
        """Whether the model itself reads item texts: the method does, or self_improve does."""
        reads_content = config["self_improve"] and config["item_text_fields"]
        return cls.reads_text(config) or bool(reads_content)

    def report(self) -> dict:
        """Tokenizer and search statistics for the result file."""
        search = {
            key: self.config[key]
            for key in ("beam_width", "score_type", "score_mode", "constraint", "subset_norm")
        }
        report = {
            "tokenizer": {
                **replace(self.item_codes, codes=self.codes.cpu()).stats(),
                **getattr(self.tokenizer, "quality", {}),
            },
            "search": {
                **search,
                "candidates": None if self.candidates is None else len(self.candidates),
                **self.search_log.shares(),
            },
        }
        if self.self_improvement is not None:
            report["self_improve"] = self.self_improvement.report()
        return report

    @torch.no_grad()
    def start_unused_codes(self) -> None:
        """Values of the extra token that no item had in training take the mean of those in use (our choice, unpublished)."""
        for level in range(self.item_codes.n_learned, len(self.level_sizes)):
            for rows in self.vocabulary.level_rows(level):
                used = self.codes[1 : self.n_dataset_items, level]
                seen = torch.zeros(len(rows), dtype=torch.bool, device=rows.device).index_fill(
                    0, used, True
                )
                rows[~seen] = rows[seen].mean(0)
