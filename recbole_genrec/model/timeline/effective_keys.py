"""What keys of TimelineRec mean beside others, before they are checked.

The older keys ``input_id``, ``output_id`` and ``input_text`` say what ``item_parts`` says now.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

OLDER_PARTS = ("input_id", "output_id", "input_text")


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
