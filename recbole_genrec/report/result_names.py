"""What results are called in a table: by their model, their tokenizer and what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_genrec.report.comparable import free_keys
from recbole_genrec.settings.classification import named_values, shared_keys
from recbole_genrec.storage.digests import digest

TWINS = {("id",): "SASRec", ("text",): "SASRec-T", ("id", "text"): "SASRec-ID+T"}
"""What others call a softmax over items whose vectors are the sum of these parts."""


def distinct_names(results: Sequence[dict[str, Any]]) -> list[str]:
    """Names for results: model and tokenizer, and settings where these are not enough.

    Args:
        results: contents of result files.

    Returns:
        A name for each. Runs of one model and tokenizer on one dataset are told apart by the
        settings in which they differ.
    """
    groups = [(result["dataset"], _model_and_tokenizer(result)) for result in results]
    settings = [_named_settings(result) for result in results]
    names = []
    for group, own_settings in zip(groups, settings, strict=True):
        same_group = [
            others for other, others in zip(groups, settings, strict=True) if other == group
        ]
        words = [group[1]]
        for key, value in own_settings.items():
            if any(digest(others.get(key)) != digest(value) for others in same_group):
                words.append(f"{key}={value}")
        names.append(" ".join(words))
    return names


def _twin(item_parts: Sequence[str] | None) -> str:
    """The name of a flat twin by its item parts, in brackets."""
    twin = TWINS.get(tuple(sorted(item_parts or ())))
    return f" ({twin})" if twin else ""


def tokenizer_of(result: dict[str, Any]) -> str | None:
    """The tokenizer of a result; ``None`` where no codes decide anything.

    That is so for models without, and for a softmax over items that are not made of codes.
    """
    report = result["report"] or {}
    is_flat = report.get("heads") == ["flat"]
    item_parts = result["config"].get("item_parts") or ["code"]
    if not report or (is_flat and "code" not in item_parts):
        return None
    return result["config"].get("tokenizer")


def _model_and_tokenizer(result: dict[str, Any]) -> str:
    name = result["model"]
    heads = result["report"].get("heads") if result["report"] else None
    if heads == ["flat"]:
        return f"{name} flat{_twin(result['config'].get('item_parts'))}"
    if heads and "parallel" in heads:
        name = f"{name} parallel"
    if heads and len(heads) > 1:
        name = f"{name} hybrid"
    tokenizer = tokenizer_of(result)
    return f"{name}-{tokenizer}" if tokenizer else name


def _named_settings(result: dict[str, Any]) -> dict[str, Any]:
    """Settings that may name a result.

    A key of today at the value that changes nothing is as if a result from before the key had it.
    """
    named = named_values(shared_keys(), result["config"])
    return {key: value for key, value in named.items() if key not in free_keys()}
