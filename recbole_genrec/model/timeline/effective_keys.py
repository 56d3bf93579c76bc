"""What keys of TimelineRec mean beside others, before they are checked.

The older keys ``input_id``, ``output_id`` and ``input_text`` say what ``item_parts`` says now.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from recbole_genrec.model.timeline.keys import head_names

OLDER_PARTS = ("input_id", "output_id", "input_text")
UNREAD_CODES = {"tokenizer": "random", "codebook_sizes": [1]}
"""Codes of a model that reads none: one group of all items, without a fit."""


def codes_by_heads(values: Mapping, user_values: Mapping[str, object]) -> dict[str, object]:
    """Defaults of the codes where no head and no item is made of codes; else empty.

    Args:
        values: all values of a run, of any model.
        user_values: what the user has set.
    """
    if "item_parts" not in values or "tokenizer" in user_values:
        return {}
    heads = head_names(values["heads"], values["output"], values["generator"])
    has_older_parts = "item_parts" not in user_values and set(OLDER_PARTS) & set(user_values)
    item_parts = values["item_parts"]
    if heads != ("flat",) or has_older_parts or item_parts is None or "code" in item_parts:
        return {}
    return dict(UNREAD_CODES)


def settle_keys(values: dict, user_values: Mapping[str, object]) -> None:
    """Set ``item_parts`` as older keys and the data say, and ``depth`` as a command line means it.

    Args:
        values: all values of a run, of any model; changed in place.
        user_values: what the user has set.
    """
    if "item_parts" not in values:
        return
    if "item_parts" not in user_values:
        if set(OLDER_PARTS) & set(user_values):
            values["item_parts"] = None
        _leave_out_missing_texts(values)
    if values.get("depth", "") is None:
        values["depth"] = "none"  # the word, which a command line reads as no value


def _leave_out_missing_texts(values: dict) -> None:
    """Let items be made of their ids alone where the data has neither texts nor vectors."""
    item_parts = values["item_parts"]
    has_content = values.get("item_text_fields") or values.get("item_vectors")
    if item_parts is None or "text" not in item_parts or has_content:
        return
    values["item_parts"] = [part for part in item_parts if part != "text"]
    logging.getLogger().warning(
        "The dataset has no item_text_fields and there are no item_vectors, so item_parts is "
        f"{values['item_parts']}, without text."
    )
