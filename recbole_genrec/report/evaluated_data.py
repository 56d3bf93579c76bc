"""Settings that decide which users and items a test holds, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_genrec.data.file_filter import BY_FILES, filters_by_files
from recbole_genrec.settings.filters import NO_FILTER

NEUTRAL: dict[str, Any] = {
    "benchmark_filename": None,
    **NO_FILTER,
    BY_FILES: False,
    "catalogue": "interactions",
    "cold_users": 0,
    "alias_of_item_id": None,
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
}
"""The keys, and their values that act as if the key was not given."""


def evaluated_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the keys that decide which users and items a test holds.

    Args:
        config: settings of a run, also of a version that did not have all of these keys.

    Returns:
        A value for each of :data:`NEUTRAL`; the same data have the same values, however the
        settings write them.
    """
    values = {key: _form(config.get(key), neutral) for key, neutral in NEUTRAL.items()}
    values[BY_FILES] = filters_by_files(config)
    if values["benchmark_filename"] is not None:
        # files that are split already are not filtered
        values |= {**NO_FILTER, BY_FILES: False}
    return values


def different_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys by which the tests of two runs hold other users or items.

    Args:
        one: settings of a run.
        other: settings of another.
    """
    values = evaluated_data(one)
    others = evaluated_data(other)
    return [key for key in NEUTRAL if values[key] != others[key]]


def data_text(config: Mapping[str, Any]) -> str:
    """What was filtered or added before a test: ``catalogue: item_file``; empty if nothing was.

    Args:
        config: settings of a run.
    """
    values = evaluated_data(config)
    words = [f"{key}: {values[key]}" for key in NEUTRAL if values[key] != NEUTRAL[key]]
    return ", ".join(words)


def _form(value: Any, neutral: Any) -> Any:
    """A value as all ways to write it have it: no blanks in intervals."""
    if value in (None, "", [], {}):
        return neutral
    if isinstance(value, str):
        return value.replace(" ", "")
    if isinstance(value, dict):
        return {name: _form(part, None) for name, part in value.items()}
    return value
