"""The epochs that begin with a refresh of the codes.

The schedule is our choice; the paper publishes none.
"""

from __future__ import annotations

import math

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.shared_keys import SharedSettings


def refresh_epochs(settings: SharedSettings) -> list[int]:
    """The epochs that begin with a refresh, counted from 0.

    Args:
        settings: the settings of the run.

    Raises:
        ConfigError: the refreshes do not fit into the epochs of the run.
    """
    epochs = settings.epochs
    rounds = settings.si_rounds
    start = settings.si_start_epoch
    interval = settings.si_interval
    refreshes = [start + number * interval for number in range(rounds)]

    freeze = max(interval, math.ceil(epochs / 5))
    if settings.si_freeze_epochs != "auto":
        freeze = settings.si_freeze_epochs
    last = epochs - freeze - 1
    if refreshes and refreshes[-1] > last:
        limit = f"the last one may come before epoch {last}" if last > 0 else "none fits"
        listed = ", ".join(map(str, refreshes))
        raise ConfigError(
            f"si_rounds: {rounds} would refresh the codes before epochs {listed} (counted from "
            f"0), but with epochs: {epochs} and si_freeze_epochs: {freeze} {limit}. Use more "
            "epochs, fewer si_rounds, or a smaller si_start_epoch, si_interval or "
            "si_freeze_epochs."
        )
    return refreshes
