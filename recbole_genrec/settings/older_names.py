"""Older ways to set keys, and what runs meant that are older than a key.

TokenRec's ``mask_history`` is ``exclude_history``.
"""

from __future__ import annotations

from collections.abc import Mapping

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.declaration import REQUIRED, Key


def follow_older_names(values: dict, user_values: Mapping[str, object]) -> None:
    """Set newer keys as the older ones say.

    Args:
        values: all values of a run; changed in place.
        user_values: what the user has set.

    Raises:
        ConfigError: both names are set and contradict each other.
    """
    if not values.get("mask_history"):
        return
    if user_values.get("exclude_history") is False:
        raise ConfigError(
            "mask_history: True and exclude_history: False contradict each other. "
            "Leave out mask_history, the older name."
        )
    values["exclude_history"] = True


def change_older_names(values: dict, changes: Mapping[str, object]) -> None:
    """Let ``changes`` of one name win over a stored value of the other.

    Args:
        values: stored values with the changes; changed in place.
        changes: what is asked for now.
    """
    if not values.get("mask_history"):
        return
    if "exclude_history" not in changes:
        values.pop("exclude_history", None)
    elif "mask_history" not in changes:
        values["mask_history"] = False


def fill_older_run(values: dict, keys: Mapping[str, Key]) -> None:
    """Give a stored run the keys that are newer than it, with the value that changes nothing.

    The defaults of today may be others.

    Args:
        values: stored values; changed in place.
        keys: the declarations of the method's own keys.
    """
    for name, declared in keys.items():
        if declared.neutral is not REQUIRED:
            values.setdefault(name, declared.neutral)
