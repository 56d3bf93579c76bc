"""Lists that give a share of their places to items without training interactions.

See :mod:`recbole_genrec.decoding.cold_share` for the rule (TIGER, arXiv 2305.05065, section 4.3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_genrec.data.cold_items import items_in_training
from recbole_genrec.decoding import ItemTrie, SearchResult
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

    # --- lists and scores -------------------------------------------------------------------------

    @torch.no_grad()
    def search(
        self,
        history: Tensor,
        length: Tensor,
        k: int | None = None,
        fill: bool = False,
        trie: ItemTrie | None = None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> SearchResult:
        """As the base's; with ``cold_share`` cold items get places in the lists."""
        result = super().search(history, length, k, fill, trie, excluded, **user)
        cold = self._cold_items()
        if cold is None:
            return result
        trie = trie or self.search_trie
        k = k or max(self.settings.topk)
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
