"""Codes of further trees on one transformer (``tokenizers``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.data.item_text import PLACEHOLDER
from recbole_genrec.decoding import ItemTrie
from recbole_genrec.model.item_tries import ItemTries
from recbole_genrec.settings.shared_keys import ContentKeys
from recbole_genrec.settings.tokenizer_keys import CollaborativeKeys
from recbole_genrec.tokenizer import NewItems, fit_or_load, make_tokenizer


class FurtherCodes:
    """A code table beside that of the model, from a tokenizer of its own.

    Args:
        model: the model whose items have these codes.
        name: of the tokenizer.
        repeats: how often the tokenizer was named before; it moves the seed.
        stored: what :meth:`stored` gave; then no tokenizer is fitted.
    """

    def __init__(self, model: Any, name: str, repeats: int, stored: dict | None = None):
        self.model = model
        seed = model.settings.seed + repeats
        self.tokenizer = make_tokenizer(_config_of(model, name), seed)
        if stored is None:
            self.item_codes = fit_or_load(
                self.tokenizer, model.content, model.settings.cache_dir, seed, model.logger.info
            )
        else:
            self.item_codes = self.tokenizer.restore(stored, model.item_tokens)
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
        content = self.model.content
        texts = [text if text.strip() else PLACEHOLDER for text in texts]
        if vectors is not None:
            vectors = torch.as_tensor(vectors)
        if self.tokenizer.uses_item_vectors:
            of_content = content.new_vectors(tokens, vectors)
            if of_content is not None:
                vectors = torch.from_numpy(content.embed(texts, of_content))
        new = NewItems(texts, vectors, users)
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
    names = model.settings.tokenizers or []
    stored = (model.stored or {}).get("further_codes") or [None] * len(names[1:])
    tables = []
    for place, (name, content) in enumerate(zip(names[1:], stored, strict=True), start=1):
        tables.append(FurtherCodes(model, name, names[:place].count(name), content))
    return tables


def _config_of(model: Any, name: str) -> Any:
    """Settings of a further tokenizer: the run's own, or the defaults of another tokenizer."""
    config = model.config
    if name == model.settings.tokenizer:
        return config
    names = {*ContentKeys.declared(), *CollaborativeKeys.declared()} - {"tokenizer", "generator"}
    values = {key: config[key] for key in names if config[key] is not None}
    return config.derived(config["model"], **values, tokenizer=name)
