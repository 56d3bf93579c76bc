"""The code table of a generative method: its tokenizer, its tries, and how it is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.backbone.scored_vocabulary import ScoredVocabulary
from recbole_genrec.data.given_ids import read_ids
from recbole_genrec.data.ids import rows_by_token
from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ItemTrie
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.search.item_tries import ItemTries
from recbole_genrec.model.self_improve.content import content_source
from recbole_genrec.model.stored import TextUse
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.tokenizer import (
    ItemCodes,
    ItemTokenizer,
    fit_or_load,
    make_tokenizer,
    tokenizer_class,
)
from recbole_genrec.tokenizer.code_sizes import sizes_notice
from recbole_genrec.tokenizer.cold_fit import trained_items


def tokenizer_description(config) -> str:
    """The tokenizer of a run in one line; codes that are read have the sizes that they have."""
    settings = SharedSettings.of(config)
    declared = tokenizer_class(settings.tokenizer).settings_class.declared()
    if "codebook_sizes" not in declared:
        return settings.tokenizer
    return f"{settings.tokenizer}, sizes {settings.codebook_sizes}, collision {settings.collision}"


def content_description(settings: SharedSettings) -> dict[str, str]:
    """What item vectors are made of, for the summary of a run."""
    lines = {"text encoder": settings.text_encoder}
    if settings.item_vectors is None:
        return lines
    vectors = {"item vectors": f"{settings.item_vectors}, {settings.item_vectors_use} text"}
    if settings.item_vectors_use == "instead":
        return vectors
    return {**lines, **vectors}


class CodedModel(GenRecModel):
    """The codes of :class:`~recbole_genrec.model.generative.GenerativeRecommender`.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer is fitted.

    Attributes:
        codes: buffer int64 ``[n_items, L]``, row 0 = padding item.
        codes_version: buffer, rises with every change of the table.
        item_codes: the same codes with raw ids, alphabet sizes and the policy for collisions.
        tokenizer: what gave the codes, and gives new items theirs.
    """

    needs_tokenizer = True
    tables: ClassVar[dict[str, str]] = {"codes": "items"}

    codes: Tensor
    codes_version: Tensor
    item_codes: ItemCodes
    tokenizer: ItemTokenizer

    def __init__(self, config, dataset, stored: dict | None = None):
        tokenizer = make_tokenizer(config, config.settings.seed)
        super().__init__(config, dataset, stored)
        self._tries = ItemTries(self.settings, self._read_candidates())
        self._popularity: Tensor | None = None
        self.tokenizer = tokenizer
        self.places_by_users = tokenizer.places_by_users
        self.places_by_text = tokenizer.uses_text or not tokenizer.uses_interactions
        self.item_codes = self.pretrain_tokenizer(dataset)
        self.tokenizer_curves = self.tokenizer.curves
        self.register_buffer("codes", self.item_codes.codes.clone())
        self.register_buffer("codes_version", torch.zeros((), dtype=torch.long))
        self.register_load_state_dict_post_hook(lambda model, _: model.start_unused_codes())
        self._start_anew()
        if stored is None:
            self._say_unread_vectors(tokenizer.uses_item_vectors)

    @classmethod
    def text_use(cls, config) -> TextUse:
        """As the base's; the tokenizer may need them, and self_improve those that it is given."""
        settings = config.settings
        refreshes_by_text = settings.self_improve and settings.item_text_fields
        if refreshes_by_text or make_tokenizer(config, settings.seed).uses_text:
            return "required"
        return super().text_use(config)

    @classmethod
    def reads_vectors(cls, config) -> bool:
        """As the base's; self_improve reads them too, where no prompt of text does."""
        return bool(config.settings.self_improve) and content_source(config) == "text"

    def _read_candidates(self) -> Tensor | None:
        """Ids of the items in ``candidate_file``."""
        file = self.settings.candidate_file
        if file is None:
            return None
        return torch.tensor(self.item_ids(read_ids(file), f" in {file}"))

    @classmethod
    def generates_paths(cls, values: dict) -> bool:
        """Whether codes are generated as a path, each given those before it.

        Args:
            values: all settings of the run.
        """
        return True

    @classmethod
    def check_order_of_codes(cls, values: dict) -> None:
        """Refuse a tokenizer of parallel codes where codes are generated as a path.

        Args:
            values: all settings of the run.

        Raises:
            ConfigError: names the tokenizer and what to do.
        """
        name = str(values["tokenizer"])
        if tokenizer_class(name).codes_are_path or not cls.generates_paths(values):
            return
        raise ConfigError(
            f"tokenizer: {name} gives an item many codes side by side, and {cls.__name__} "
            "generates a path of codes, each given those before it. Use "
            "--model=TimelineRec --generator=parallel, or another tokenizer such as rkmeans."
        )

    # --- tokenizer --------------------------------------------------------------------------------

    def pretrain_tokenizer(self, dataset) -> ItemCodes:
        """The item codes: from a checkpoint, from the store of results, or by a fit now."""
        if self.stored is None:
            codes = fit_or_load(
                self.tokenizer,
                self.content,
                self.settings.cache_dir,
                self.settings.seed,
                self.logger.info,
            )
            self._say_sizes(codes)
            return codes
        return self.tokenizer.restore(self.stored, self.item_tokens)

    def fitted_items(self) -> Tensor:
        """Ids of the items that the tokenizer was fitted to, or takes for such, int64 ``[n]``.

        With ``tokenizer_fit_items: train_only`` those without training interactions are left out.
        """
        tokens = self.content.tokens
        rows = list(range(1, len(tokens)))
        if self.tokenizer.fits_trained_items:
            trained = trained_items(self.content)
            rows = [row for row in rows if tokens[row] in trained]
        return torch.tensor(rows, dtype=torch.long, device=self.codes.device)

    def _say_sizes(self, codes: ItemCodes) -> None:
        """Warn where levels have fewer codes than were asked for."""
        sizes = self._sizes_asked
        if sizes is not None:
            notice = sizes_notice(codes.n_items - 1, sizes, codes.sizes[: codes.n_learned])
            if notice:
                self.logger.warning(notice)

    @property
    def _sizes_asked(self) -> list[int] | None:
        """The key ``codebook_sizes``; ``None`` for a tokenizer that does not read it."""
        sizes = getattr(self.tokenizer.settings, "codebook_sizes", None)
        return None if sizes is None else self.tokenizer.sizes_asked(sizes, self.n_items - 1)

    def sizes_report(self) -> dict[str, list[int] | None]:
        """Codes of the learned levels for the result file: those asked for and those there are."""
        used = list(self.level_sizes[: self.item_codes.n_learned])
        return {"codebook_sizes_asked": self._sizes_asked, "codebook_sizes_used": used}

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Alphabet size of each code position."""
        return self.item_codes.sizes

    @property
    def trie(self) -> ItemTrie:
        """The item trie of the present code table; rebuilt when the table has changed."""
        codes = self.codes
        version = (int(self.codes_version), codes._version, codes.data_ptr(), codes.device)
        return self._tries.of_all_items(
            version, self.trie_table, self.popularity, self.n_dataset_items
        )

    @property
    def search_trie(self) -> ItemTrie:
        """The trie that evaluations follow: :attr:`trie`, or its part for ``candidate_file``."""
        return self._tries.of_candidates(self.trie)

    def popularity(self) -> Tensor:
        """Training interactions of each item, ``[n_items]``; 0 for padding and added items.

        A checkpoint holds them where items have the same codes, which they order.
        """
        if self._popularity is None:
            self._popularity = self._stored_popularity()
        if self._popularity is None:
            return torch.zeros(self.n_items, dtype=torch.long)
        return pad(self._popularity, (0, self.n_items - len(self._popularity)))

    def _stored_popularity(self) -> Tensor | None:
        """What the checkpoint holds, else what the data says; ``None`` where there is neither."""
        if self.stored is None:
            return self.counted()
        if "popularity" in self.stored:
            tokens = self.stored["item_codes"]["tokens"]
            return rows_by_token(self.stored["popularity"], tokens, self.item_tokens)
        try:
            return self.counted()
        except DataError:
            self.logger.warning(
                "This checkpoint of an earlier version does not say how many interactions its "
                "items had, and its data is not here. Items with the same codes stand in the order "
                "of the catalogue, where evaluations put those with more interactions first."
            )
            return None

    def counted(self) -> Tensor:
        """:meth:`popularity` by the training split of the data.

        Raises:
            DataError: the data is not here.
        """
        items = np.concatenate(self.content.item_sequences())
        return torch.from_numpy(np.bincount(items, minlength=self.n_items))

    def trie_table(self) -> tuple[Tensor, tuple[int, ...]]:
        """Codes ``[n_items, L]`` and alphabet sizes that the search follows."""
        return self.codes, self.level_sizes

    # --- training without the history -------------------------------------------------------------

    def closed_codes(
        self, history: Tensor, target: Tensor, is_target: Tensor | None = None
    ) -> ClosedCodes:
        """The codes that leave the softmax of a training step; the target's codes never leave.

        Without ``exclude_history_in_training`` none leaves.

        Args:
            history: item ids ``[P, H]`` before each target, 0 = none.
            target: item ids ``[P]``.
            is_target: as in :meth:`excluded_in_training`.
        """
        excluded = self.excluded_in_training(history, target, is_target)
        if excluded is None:
            return ALL_OPEN
        return ClosedCodes.of(self.trie, target, excluded)

    @property
    def label_smoothing(self) -> float:
        """The key of that name in training; 0 in validation and for methods without it."""
        if not self.training:
            return 0.0
        return getattr(self.settings, "label_smoothing", 0.0)

    # --- checkpoints ------------------------------------------------------------------------------

    def other_parameter(self) -> dict:
        """As the base's, with the codes by raw item id and the state of the tokenizer."""
        codes = replace(
            self.item_codes,
            codes=self.codes.cpu(),
            sizes=self.level_sizes,
            tokens=list(self.item_tokens),
        )
        parameter = {**super().other_parameter(), **self.tokenizer.checkpoint(codes)}
        if self._has_equal_codes():
            self.popularity()
        if self._popularity is not None:
            parameter["popularity"] = self.popularity()
        return parameter

    def _has_equal_codes(self) -> bool:
        """Whether two items have the same codes, which only some policies allow."""
        if self.item_codes.policy[-1] in ("nearest_free", "extra_token"):
            return False
        return len(self.codes[1:].unique(dim=0)) < len(self.codes) - 1

    def codes_in_use(self) -> Tensor:
        """Codes ``[n, L]`` that training has seen: those of the dataset's items."""
        return self.codes[1 : self.n_dataset_items]

    def start_unused_codes(self) -> None:
        """Let new items take values of the extra token that no item had in training.

        See :class:`~recbole_genrec.backbone.scored_vocabulary.ScoredVocabulary`. Called when new
        items have come and when weights have been loaded.
        """
        vocabulary = getattr(self, "vocabulary", None)
        if self.n_items == self.n_dataset_items or not isinstance(vocabulary, ScoredVocabulary):
            return
        in_use = self.codes_in_use()
        unused = []
        for level, size in enumerate(self.level_sizes):
            n_items = torch.bincount(in_use[:, level], minlength=size)
            is_free = (n_items == 0) & (level >= self.item_codes.n_learned)
            unused.append(is_free.nonzero().squeeze(1))
        vocabulary.start_codes(unused)
