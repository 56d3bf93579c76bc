"""A fit to the items with training interactions alone; the others are placed as new items are.

STORE (arXiv 2409.07276 v1), an experiment with cold items: ``tokenizer_fit_items: train_only``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from recbole_genrec.data.ids import rows_in_order_of_ids
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.new_items import NewItems

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent
    from recbole_genrec.tokenizer.base import ItemTokenizer
    from recbole_genrec.tokenizer.codes import ItemCodes


def trained_items(content: ItemContent) -> set[str]:
    """Raw ids of the items that occur in the training split."""
    return {item for items in content.user_sequences().values() for item in items}


def fit_trained_items(
    tokenizer: ItemTokenizer, content: ItemContent, log: Callable[[str], None]
) -> ItemCodes:
    """Codes of all items of ``content``, fitted to those of the training split.

    The others are placed in the order of their raw ids: the numbering changes no item's codes.

    Args:
        tokenizer: of texts, or of vectors that every item has.
        content: of all items.
        log: takes one line of text.

    Raises:
        ConfigError: the tokenizer reads who chose an item, so other items have no codes.
        DataError: no item has a training interaction.
    """
    if tokenizer.uses_interactions and not (tokenizer.uses_text or tokenizer.uses_item_vectors):
        raise ConfigError(
            f"tokenizer_fit_items: train_only: the tokenizer {tokenizer.name} reads interactions "
            "alone, so items without one have nothing that it could encode. Use "
            "tokenizer_input: text, or tokenizer_fit_items: all."
        )
    trained = trained_items(content)
    ordered = rows_in_order_of_ids(content.tokens)[1:]
    rows = [row for row in ordered if content.tokens[row] in trained]
    others = [row for row in ordered if content.tokens[row] not in trained]
    if not rows:
        raise DataError("tokenizer_fit_items: train_only, and no item has a training interaction.")
    if not others:
        return tokenizer.fit(content)

    codes = tokenizer.fit(content.of_rows([0, *rows]))
    placed, moved = tokenizer.place(
        _as_new(tokenizer, content, others), codes.codes[1:], codes.sizes
    )
    note = ""
    if moved:
        note = f", {moved} of them beside their own codes, which were full"
    log(
        f"Tokenizer {tokenizer.name} fitted to {len(rows)} items with training interactions; "
        f"{len(others)} others are placed as new items{note}."
    )
    tokens = [content.tokens[row] for row in others]
    return codes.append(placed.to(torch.long), tokens).aligned(content.tokens)


def _as_new(tokenizer: ItemTokenizer, content: ItemContent, rows: list[int]) -> NewItems:
    vectors = None
    if tokenizer.uses_item_vectors:
        vectors = torch.from_numpy(content.embeddings()[rows])
    return NewItems([content.text[row] for row in rows], vectors)
