"""Settings that decide which users and items a test holds, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_genrec.data.idle_keys import BY_FILES, FILTERS

NEUTRAL: dict[str, Any] = {
    "benchmark_filename": None,
    **FILTERS,
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
    values[BY_FILES] = _filters_by_files(config)
    if values["benchmark_filename"] is not None:
        # files that are split already are not filtered
        values |= {**FILTERS, BY_FILES: False}
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


def _filters_by_files(config: Mapping[str, Any]) -> bool:
    """Whether the files of items and users filter.

    The filter is on by default. It was asked for where a file is loaded for its ids alone, see
    :func:`~recbole_genrec.data.idle_keys.load_filtering_files`; a model that reads features of
    items loads their file anyway, and its row may stand beside those of other models.
    """
    load = config.get("load_col")
    if config.get(BY_FILES) is False or not isinstance(load, dict):
        return False
    for ending, key in (("item", "ITEM_ID_FIELD"), ("user", "USER_ID_FIELD")):
        if load.get(ending) == [config.get(key, NEUTRAL[key])]:
            return True
    return False
