"""Lists that give a share of their places to items without training interactions.

See :mod:`recbole_genrec.decoding.cold_share` for the rule (TIGER, arXiv 2305.05065, section 4.3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_genrec.data.cold_items import items_in_training
from recbole_genrec.decoding import CodeDecoder, ItemTrie, SearchResult
from recbole_genrec.decoding.cold_share import ColdItems, with_cold_share
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.searched import SearchedModel
from recbole_genrec.settings.declaration import Settings, key
from recbole_genrec.settings.recbole_values import ranks_all_items


class ColdShareKeys(Settings):
    """The share of a list that cold items may take."""

    cold_share: float = key(
        "largest share of a list for items without training interactions, which follow items with "
        "the same learned codes; 0 = they stand where their scores put them",
        ge=0,
        le=1,
        affects="search",
        default=0.0,
        neutral=0.0,
    )


class ColdSharing(SearchedModel):
    """A method with codes whose lists may hold a share of cold items: the key ``cold_share``.

    Cold are the items without training interactions, and those that were added since. A checkpoint
    names them, so that its lists are the same where the data of the training is not at hand.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    settings: Any  # those of a method, with ColdShareKeys

    def __init__(self, config: Any, dataset: Any, stored: dict | None = None) -> None:
        super().__init__(config, dataset, stored)
        self._cold: tuple[tuple, ColdItems | None] | None = None
        self._warm: tuple[ItemTrie, ColdItems, ItemTrie | None] | None = None
        self._cold_tokens = self._tokens_of_cold_items(dataset)

    def _tokens_of_cold_items(self, dataset: Any) -> list[str] | None:
        """Raw ids of the dataset's cold items; ``None`` = an older checkpoint does not say."""
        if self.stored is not None:
            tokens = self.stored.get("cold_items")
            return None if tokens is None else list(tokens)
        is_cold = ~items_in_training(dataset)
        is_cold[0] = False
        return [self.item_tokens[item] for item in is_cold.nonzero().squeeze(1).tolist()]

    def without_interactions(self) -> Tensor:
        """Items that no training interaction names, bool ``[n_items]``; not the padding item."""
        is_cold = torch.arange(self.n_items) >= self.n_dataset_items
        if self._cold_tokens is None:
            return is_cold | self._cold_in_the_data()
        cold = set(self._cold_tokens)
        tokens = self.item_tokens[: self.n_dataset_items]
        is_cold[: len(tokens)] = torch.tensor([token in cold for token in tokens])
        is_cold[0] = False
        return is_cold

    def _cold_in_the_data(self) -> Tensor:
        """The same by the training split of the data, for checkpoints of earlier versions."""
        try:
            is_cold = self._counted() == 0
        except DataError:
            self.logger.warning(
                "cold_share: this checkpoint of an earlier version does not say which items had "
                "no training interactions, and its data is not here. Only items that were added "
                "since count as such, so the lists may differ from those of the evaluation."
            )
            return torch.zeros(self.n_items, dtype=torch.bool)
        is_cold[0] = False
        return is_cold

    def _cold_items(self) -> ColdItems | None:
        """The cold items under the present codes; ``None`` = none, or ``cold_share: 0``."""
        if not self.settings.cold_share:
            return None
        version = (int(self.codes_version), self.n_items, self.codes.device)
        if self._cold is None or self._cold[0] != version:
            is_cold = self.without_interactions().to(self.codes.device)
            items = None
            if bool(is_cold.any()):
                learned = self.codes[:, : self.item_codes.n_learned]
                items = ColdItems(learned, is_cold)
            self._cold = (version, items)
        return self._cold[1]

    def _warm_part(self, trie: ItemTrie, cold: ColdItems) -> ItemTrie | None:
        """The trie of the items that are not cold, which keep their scores; ``None`` = none is."""
        if self._warm is None or self._warm[0] is not trie or self._warm[1] is not cold:
            warm = trie.leaf_items[~cold.is_cold[trie.leaf_items]]
            part = trie.subset(warm) if len(warm) else None
            self._warm = (trie, cold, part)
        return self._warm[2]

    # --- lists and scores -------------------------------------------------------------------------

    def _search_result(
        self,
        decoder: CodeDecoder,
        trie: ItemTrie,
        k: int,
        fill: bool,
        excluded: Tensor | None,
    ) -> SearchResult:
        """As the base's; with ``cold_share`` the search finds ``k`` items that are not cold.

        Cold items then come in behind those whose codes they have. Where all items to choose among
        are cold, they stand where their scores put them. With another ``constraint`` than ``trie``
        the search also names cold items, and lists may be shorter.
        """
        cold = self._cold_items()
        warm = None if cold is None else self._warm_part(trie, cold)
        if cold is None or warm is None:
            return super()._search_result(decoder, trie, k, fill, excluded)
        if self.settings.constraint == "trie":
            result = super()._search_result(decoder, warm, k, fill, excluded)
        else:  # beams that name cold items are no invalid ones
            result = super()._search_result(decoder, trie, k, fill, excluded)
        return with_cold_share(result, cold, trie, k, self.settings.cold_share, excluded)

    @torch.no_grad()
    def predict(self, interaction: Any) -> Tensor:
        """As the base's; with ``cold_share`` the scores of :meth:`full_sort_predict`."""
        if self._cold_items() is None:
            return super().predict(interaction)
        return GenRecModel.predict(self, interaction)

    # --- checkpoints and settings -----------------------------------------------------------------

    def other_parameter(self) -> dict:
        """As the base's, with the raw ids of the cold items of the dataset."""
        parameter = super().other_parameter()
        if self._cold_tokens is not None:
            parameter["cold_items"] = self._cold_tokens
        return parameter

    @classmethod
    def check_settings(cls, settings: Any) -> None:
        """Refuse a share of lists where samples are ranked."""
        super().check_settings(settings)
        if settings.cold_share and not ranks_all_items(settings.eval_args):
            raise ConfigError(
                f"cold_share: {settings.cold_share:g} gives items places in a list of all items, "
                "and eval_args ranks samples. Use mode: full in eval_args, or cold_share: 0."
            )
