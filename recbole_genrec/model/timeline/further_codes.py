"""Codes of further trees on one transformer (``tokenizers``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.model.new_items import new_items_for
from recbole_genrec.model.search.item_tries import ItemTries
from recbole_genrec.model.timeline.keys import TimelineSettings
from recbole_genrec.settings.shared_keys import ContentKeys
from recbole_genrec.settings.tokenizer_keys import CollaborativeKeys
from recbole_genrec.tokenizer import ItemTokenizer, fit_or_load, make_tokenizer


class FurtherCodes:
    """A code table beside that of the model, from a tokenizer of its own.

    Args:
        model: the model whose items have these codes.
        tokenizer: gives them.
        stored: what :meth:`stored` gave; then the tokenizer is not fitted.
    """

    def __init__(self, model: Any, tokenizer: ItemTokenizer, stored: dict | None = None):
        self.model = model
        self.tokenizer = tokenizer
        if stored is None:
            folder = model.settings.cache_dir
            self.item_codes = fit_or_load(
                tokenizer, model.content, folder, tokenizer.seed, model.logger.info
            )
        else:
            self.item_codes = tokenizer.restore(stored, model.item_tokens)
        self._tries = ItemTries(model.settings, None)
        self._among: tuple[ItemTrie, ItemTrie] | None = None

    def trie(self) -> ItemTrie:
        """The trie of all items, on the device of the model."""
        codes = self.item_codes.codes
        sizes = self.item_codes.sizes
        device = self.model.codes.device
        return self._tries.of_all_items(
            (len(codes), device),
            lambda: (codes.to(device), sizes),
            self.model.popularity,
            self.model.n_dataset_items,
        )

    def among(self, trie: ItemTrie) -> ItemTrie:
        """The part for the items that another trie may return.

        Args:
            trie: of the model's own codes, of all items or of some.
        """
        if trie.levels[0].allowed is None:
            return self.trie()
        if self._among is None or self._among[0] is not trie:
            self._among = trie, self.trie().subset(trie.leaf_items, trie.subset_norm)
        return self._among[1]

    def place(
        self,
        texts: Sequence[str],
        tokens: Sequence[str],
        vectors: Tensor | None,
        users: Sequence[Sequence[str]] | None,
    ) -> Tensor:
        """Codes ``[n, L]`` of new items; arguments as those of ``add_items``."""
        new, _ = new_items_for(self.model, self.tokenizer, texts, tokens, vectors, users)
        codes = self.item_codes.codes
        return self.tokenizer.place(new, codes[1:], self.item_codes.sizes)[0]

    def append(self, codes: Tensor, tokens: Sequence[str]) -> None:
        """Take over new items that :meth:`place` has placed."""
        self.item_codes = self.item_codes.append(codes, list(tokens))

    def stored(self) -> dict[str, Any]:
        """Codes and tokenizer for a checkpoint, as plain values and tensors."""
        codes = replace(self.item_codes, tokens=list(self.model.item_tokens))
        return self.tokenizer.checkpoint(codes)


def make_further_codes(model: Any) -> list[FurtherCodes]:
    """The code tables of ``tokenizers`` beside the first.

    Args:
        model: of the run, whose own codes are there.
    """
    tokenizers = further_tokenizers(model.config)
    stored = (model.stored or {}).get("further_codes") or [None] * len(tokenizers)
    pairs = zip(tokenizers, stored, strict=True)
    return [FurtherCodes(model, tokenizer, content) for tokenizer, content in pairs]


def further_tokenizers(config: Any) -> list[ItemTokenizer]:
    """What ``tokenizers`` names beside the first; one that is named again has another seed.

    Args:
        config: a ``GenRecConfig``.
    """
    settings = TimelineSettings.of(config)
    names = settings.tokenizers or []
    tokenizers = []
    for place, name in enumerate(names[1:], start=1):
        seed = settings.seed + names[:place].count(name)
        tokenizers.append(make_tokenizer(_config_of(config, name), seed))
    return tokenizers


def _config_of(config: Any, name: str) -> Any:
    """Settings of a further tokenizer: the run's own, or the defaults of another tokenizer."""
    if name == config.settings.tokenizer:
        return config
    names = {*ContentKeys.declared(), *CollaborativeKeys.declared()} - {"tokenizer", "generator"}
    values = {key: config[key] for key in names if config[key] is not None}
    return config.derived(config["model"], **values, tokenizer=name)
