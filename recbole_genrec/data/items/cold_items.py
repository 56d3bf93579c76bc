"""Items of the ``.item`` file that nobody has chosen."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from recbole_genrec.data.items.item_table import item_file, item_file_ids
from recbole_genrec.errors import DataError


def items_without_interactions(config: Any, known: Container[str]) -> list[str]:
    """Raw ids of the ``.item`` file that are no items of the dataset; none without a usable file.

    Args:
        config: a ``GenRecConfig``.
        known: raw ids of the items of the dataset.
    """
    if not item_file(config).is_file():
        return []
    try:
        ids = item_file_ids(config)
    except DataError:
        return []  # whoever needs the file says what is wrong with it
    return [item for item in ids if item not in known]


def sentence_about_cold_items(config: Any, dataset: Any) -> str | None:
    """What the log says about rows of the ``.item`` file that are not in the catalogue."""
    cold = items_without_interactions(config, dataset.field2token_id[dataset.iid_field])
    if not cold:
        return None
    items, occur, are = ("items", "occur", "are") if len(cold) > 1 else ("item", "occurs", "is")
    return (
        f"{len(cold)} {items} of the .item file {occur} in no interaction of the data and so {are} "
        f"not in the catalogue, for example {cold[0]!r}; --catalogue=item_file takes them in."
    )
