"""The protocol of a test in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_genrec.settings.recbole_values import evaluation_modes


def protocol_text(config: Mapping[str, Any]) -> str:
    """How a run was tested.

    Args:
        config: its settings; those of the split and of the histories are read.
    """
    eval_args = config.get("eval_args") or {}
    split = eval_args.get("split") or {}
    words = [", ".join(f"{name}: {value}" for name, value in split.items())]
    if "LS" in split:
        words = [f"leave one out ({split['LS']})"]
    mode = evaluation_modes(eval_args)["test"]
    if mode == "full":
        words.append("all items are ranked")
    else:
        words.append(f"mode {mode}")
    words.append(f"order {eval_args.get('order')}")
    words.append(f"histories of up to {config.get('MAX_ITEM_LIST_LENGTH')} items")
    if config.get("candidate_file"):
        words.append("candidates from a file")
    return ", ".join(words)
