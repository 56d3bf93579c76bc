"""Lists that give a share of their places to items without training interactions.

See :mod:`recbole_genrec.decoding.cold_share` for the rule (TIGER, arXiv 2305.05065, section 4.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.data.rows.training_counts import items_in_training
from recbole_genrec.decoding import ItemTrie, SearchResult
from recbole_genrec.decoding.cold_share import ColdItems, with_cold_share
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.declaration import Settings, key
from recbole_genrec.settings.protocol_values import ranks_all_items


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


class ColdShare:
    """The share of a model's lists that its cold items may take.

    Cold are the items without training interactions, and those that were added since. A checkpoint
    names them, so that its lists are the same where the data of the training is not at hand.

    Args:
        model: a method with codes, whose settings have :class:`ColdShareKeys`.
        dataset: RecBole's training dataset.
    """

    def __init__(self, model: Any, dataset: Any):
        self.model = model
        self._tokens = self._tokens_of(dataset)
        self._items: tuple[tuple, ColdItems | None] | None = None
        self._warm: tuple[ItemTrie, ColdItems, ItemTrie | None] | None = None

    def _tokens_of(self, dataset: Any) -> list[str] | None:
        """Raw ids of the dataset's cold items; ``None`` = an older checkpoint does not say."""
        stored = self.model.stored
        if stored is not None:
            tokens = stored.get("cold_items")
            return None if tokens is None else list(tokens)
        is_cold = ~items_in_training(dataset)
        is_cold[0] = False
        return [self.model.item_tokens[item] for item in is_cold.nonzero().squeeze(1).tolist()]

    def stored(self) -> dict[str, list[str]]:
        """What a checkpoint holds: the raw ids of the cold items of the dataset."""
        return {} if self._tokens is None else {"cold_items": self._tokens}

    def are_cold(self) -> Tensor:
        """Items that no training interaction names, bool ``[n_items]``; not the padding item."""
        model = self.model
        is_cold = torch.arange(model.n_items) >= model.n_dataset_items
        if self._tokens is None:
            return is_cold | self._cold_in_the_data()
        cold = set(self._tokens)
        tokens = model.item_tokens[: model.n_dataset_items]
        is_cold[: len(tokens)] = torch.tensor([token in cold for token in tokens])
        is_cold[0] = False
        return is_cold

    def _cold_in_the_data(self) -> Tensor:
        """The same by the training split of the data, for checkpoints of earlier versions."""
        try:
            is_cold = self.model.counted() == 0
        except DataError:
            self.model.logger.warning(
                "cold_share: this checkpoint of an earlier version does not say which items had "
                "no training interactions, and its data is not here. Only items that were added "
                "since count as such, so the lists may differ from those of the evaluation."
            )
            return torch.zeros(self.model.n_items, dtype=torch.bool)
        is_cold[0] = False
        return is_cold

    def items(self) -> ColdItems | None:
        """The cold items under the present codes; ``None`` = none, or ``cold_share: 0``."""
        model = self.model
        if not model.settings.cold_share:
            return None
        version = (int(model.codes_version), model.n_items, model.codes.device)
        if self._items is None or self._items[0] != version:
            is_cold = self.are_cold().to(model.codes.device)
            items = None
            if bool(is_cold.any()):
                learned = model.codes[:, : model.item_codes.n_learned]
                items = ColdItems(learned, is_cold)
            self._items = (version, items)
        return self._items[1]

    def _warm_part(self, trie: ItemTrie, cold: ColdItems) -> ItemTrie | None:
        """The trie of the items that are not cold, which keep their scores; ``None`` = none is."""
        if self._warm is None or self._warm[0] is not trie or self._warm[1] is not cold:
            warm = trie.leaf_items[~cold.is_cold[trie.leaf_items]]
            part = trie.subset(warm) if len(warm) else None
            self._warm = (trie, cold, part)
        return self._warm[2]

    def lists(
        self,
        search: Callable[[ItemTrie], SearchResult],
        trie: ItemTrie,
        k: int,
        excluded: Tensor | None,
    ) -> SearchResult:
        """The lists of a search for ``k`` items that are not cold, with cold ones among them.

        Cold items stand behind those whose codes they have. Where all items to choose among are
        cold, they stand where their scores put them. With another ``constraint`` than ``trie`` the
        search also names cold items, and lists may be shorter.

        Args:
            search: finds the best items of a trie.
            trie: of the items to choose among.
            k: how many items.
            excluded: item ids ``[B, H]`` that each user must not get, 0 = none.
        """
        cold = self.items()
        warm = None if cold is None else self._warm_part(trie, cold)
        if cold is None or warm is None:
            return search(trie)
        settings = self.model.settings
        # beams of another constraint that name cold items are no invalid ones
        result = search(warm if settings.constraint == "trie" else trie)
        return with_cold_share(result, cold, trie, k, settings.cold_share, excluded)


def check_cold_share(settings: Any) -> None:
    """Refuse a share of lists where samples are ranked.

    Args:
        settings: of a method, with :class:`ColdShareKeys`.

    Raises:
        ConfigError: names the keys and what to change.
    """
    if settings.cold_share and not ranks_all_items(settings.eval_args):
        raise ConfigError(
            f"cold_share: {settings.cold_share:g} gives items places in a list of all items, "
            "and eval_args ranks samples. Use mode: full in eval_args, or cold_share: 0."
        )
