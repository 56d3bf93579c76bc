"""RecBole's filters of interactions: the values that filter nothing, and those that cannot be."""

from __future__ import annotations

import re
from typing import Any

from recbole_genrec.errors import ConfigError

NO_FILTER: dict[str, Any] = {
    "rm_dup_inter": None,
    "val_interval": None,
    "user_inter_num_interval": "[0,inf)",
    "item_inter_num_interval": "[0,inf)",
}
"""The keys that filter interactions, and their values that filter nothing."""

NUMBER = r"\s*-?(\d+\.?\d*(e[+-]?\d+)?|inf)\s*"
INTERVAL = re.compile(rf"\s*[\[(]{NUMBER},{NUMBER}[\])]\s*", re.IGNORECASE)


def check_filters(values: dict) -> None:
    """Refuse filters that RecBole would stumble over.

    Args:
        values: all values of a run.

    Raises:
        ConfigError: names the key.
    """
    keep = values.get("rm_dup_inter")
    if keep not in (None, "first", "last"):
        raise ConfigError(
            f"rm_dup_inter is {keep!r}; it must be first or last: which row of a pair stays."
        )
    for name, intervals in _intervals(values).items():
        ranges = str(intervals).split(";")
        if intervals is not None and not all(INTERVAL.fullmatch(part) for part in ranges):
            raise ConfigError(
                f'{name} is {intervals!r}; write an interval, for example "[5,inf)", '
                "or several with semicolons between."
            )


def _intervals(values: dict) -> dict[str, object]:
    """The values of all keys that filter by intervals, named as people write them."""
    names = ("user_inter_num_interval", "item_inter_num_interval")
    intervals = {name: values.get(name) for name in names}
    by_column = values.get("val_interval") or {}
    if not isinstance(by_column, dict):
        raise ConfigError(
            f"val_interval is {by_column!r}; it must give intervals by column: "
            "--val_interval=\"{'rating': '[3,inf)'}\"."
        )
    for column, interval in by_column.items():
        # a list names the values of a column of tokens
        if not isinstance(interval, (list, tuple)) or not interval:
            intervals[f"val_interval: {column}"] = interval
    return intervals
