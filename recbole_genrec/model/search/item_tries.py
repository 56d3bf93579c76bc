"""The tries of a generative method's search: of all items, and of an evaluation's candidates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial

import torch
from torch import Tensor

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.settings.shared_keys import SharedSettings


class ItemTries:
    """Tries of a code table, built when they are first asked for and again when the table changes.

    Args:
        settings: of the run; reads ``trie_budget_mb`` and ``subset_norm``.
        candidates: item ids that evaluations rank; ``None`` = all items.
    """

    def __init__(self, settings: SharedSettings, candidates: Tensor | None):
        self.settings = settings
        self.candidates = candidates
        self._version: Hashable = None
        self._all: ItemTrie | None = None
        self._evaluated: ItemTrie | None = None
        self._among: tuple[ItemTrie, Tensor, ItemTrie] | None = None

    def of_all_items(
        self,
        version: Hashable,
        table: Callable[[], tuple[Tensor, tuple[int, ...]]],
        popularity: Callable[[], Tensor],
        n_counted: int,
    ) -> ItemTrie:
        """The trie of all items.

        Args:
            version: differs whenever the code table does.
            table: gives codes ``[n_items, L]`` and the alphabet size of each level.
            popularity: gives the training interactions of each item, ``[n_items]``; they order
                items that have the same codes.
            n_counted: items from this id on were added after training.
        """
        if self._all is None or version != self._version:
            codes, sizes = table()
            self._all = self._built(codes, sizes, popularity, n_counted).to(codes.device)
            self._evaluated = None
            self._version = version
        return self._all

    def _built(
        self,
        codes: Tensor,
        sizes: tuple[int, ...],
        popularity: Callable[[], Tensor],
        n_counted: int,
    ) -> ItemTrie:
        budget = self.settings.trie_budget_mb
        build = partial(ItemTrie, codes.cpu(), sizes, budget_mb=budget, n_counted=n_counted)
        trie = build()
        if trie.leaf_width == 1:
            return trie
        logging.getLogger().info(
            "Items with the same codes have the same score; those with more training interactions "
            "go first."
        )
        return build(tie_order=-popularity())

    def of_candidates(self, trie: ItemTrie) -> ItemTrie:
        """The part of :meth:`of_all_items` that evaluations rank; all of it without candidates."""
        if self.candidates is None:
            return trie
        if self._evaluated is None:
            self._evaluated = self.among(trie, self.candidates)
        return self._evaluated

    def among(self, trie: ItemTrie, items: Tensor) -> ItemTrie:
        """The part of a trie for some items; the last one is kept for the next batch.

        Args:
            trie: of all items.
            items: ids of the members, int64 ``[n]``.
        """
        items = items.to(trie.device)
        if self._among is not None:
            before, chosen, part = self._among
            if before is trie and torch.equal(chosen, items):
                return part
        part = trie.subset(items, self.settings.subset_norm)
        self._among = (trie, items, part)
        return part
