"""Keys of self-improvement, and the epochs that begin with a refresh of the codes.

The schedule is our choice; the paper publishes none.
"""

from __future__ import annotations

import math

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.rules import Rule

RULES = {
    "si_align_weight": Rule(float, "weight of the alignment task", low=0),
    "si_align_ratio": Rule(
        float, "items of the alignment task per row of a training batch", low=0, high=1
    ),
    "si_start_epoch": Rule(int, "epoch before which the first refresh comes", low=1),
    "si_interval": Rule(int, "epochs between two refreshes", low=1),
    "si_rounds": Rule(int, "refreshes; 0 = alignment only", low=0),
    "si_freeze_epochs": Rule(int, "last epochs without a refresh", choices=("auto",), low=1),
    "si_num_candidates": Rule(int, "code tuples proposed for an item", low=1),
    "si_max_candidates": Rule(int, "the most that are proposed when all are taken", low=1),
    "si_scope": Rule(str, "which items may change", choices=("outlier", "all")),
    "si_margin": Rule(float, "gain from which an item changes, nats per code", low=0),
    "si_max_churn": Rule(float, "largest share of items that change", low=0, high=1),
    "si_decode": Rule(str, "how candidates are found", choices=("beam", "diverse_beam", "sample")),
    "si_diversity_penalty": Rule(float, "penalty of diverse_beam", low=0),
    "si_temperature": Rule(float, "temperature of sample", low=1e-6),
    "si_fixed_levels": Rule(int, "first levels that never change", low=0),
    "si_balance": Rule(float, "weight of the penalty on codes in use", low=0),
    "si_batch_size": Rule(int, "items decoded at once", low=1),
    "si_control": Rule(str, "what the items that change get", choices=("shuffled",), optional=True),
}


def refresh_epochs(values) -> list[int]:
    """The epochs that begin with a refresh, counted from 0.

    Args:
        values: the settings of the run.

    Raises:
        ConfigError: the refreshes do not fit into the epochs of the run.
    """
    epochs = values["epochs"]
    rounds = values["si_rounds"]
    start, interval = values["si_start_epoch"], values["si_interval"]
    refreshes = [start + number * interval for number in range(rounds)]

    freeze = values["si_freeze_epochs"]
    if freeze == "auto":
        freeze = max(interval, math.ceil(epochs / 5))
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
