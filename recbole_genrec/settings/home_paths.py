"""Paths of settings that begin in the folder of the user, which a shell leaves as typed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from recbole_genrec.settings.classification import display_keys


def at_home(values: Mapping[str, object]) -> dict[str, object]:
    """The settings with the folder of the user in place of ``~`` in ``--checkpoint_dir=~/runs``.

    Keys that count in the name of a run stay as they are typed.

    Args:
        values: keys and values.
    """
    homes = {
        name: os.path.expanduser(value)
        for name, value in values.items()
        if name in display_keys() and isinstance(value, str) and value.startswith("~/")
    }
    return {**values, **homes}
