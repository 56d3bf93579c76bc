"""Items of the ``.item`` file that nobody has chosen, and texts of items that a model lacks."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.data.ids import history_column
from recbole_genrec.data.item_table import item_file, item_file_ids
from recbole_genrec.data.item_text import PLACEHOLDER, has_item_texts, read_texts_of
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
    verb = "items of the .item file occur" if len(cold) > 1 else "item of the .item file occurs"
    return (
        f"{len(cold)} {verb} in no interaction of the data and so {_are(cold)} not in the "
        f"catalogue, for example {cold[0]!r}; --catalogue=item_file takes them in."
    )


def _are(items: Sequence[str]) -> str:
    return "are" if len(items) > 1 else "is"


def texts_of(config: Any, items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts and titles of items from the ``.item`` file, empty where an item has none.

    Args:
        config: a ``GenRecConfig``.
        items: raw ids.
    """
    if not has_item_texts(config):
        return [""] * len(items), [""] * len(items)
    read = read_texts_of(config, ["", *items], required=False)
    texts = ["" if text == PLACEHOLDER else text for text in read.texts[1:]]
    return texts, read.titles[1:]


def items_in_training(dataset: Any) -> Tensor:
    """Which items a training interaction names, bool ``[n_items]``.

    Args:
        dataset: RecBole's training dataset of a sequential model, with all its rows.
    """
    rows = dataset.inter_feat
    is_trained = torch.zeros(dataset.item_num, dtype=torch.bool)
    is_trained[rows[dataset.iid_field]] = True
    is_trained[rows[history_column(dataset.config)].flatten()] = True
    is_trained[0] = False  # the padding item
    return is_trained
