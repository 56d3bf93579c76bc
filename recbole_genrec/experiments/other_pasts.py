"""Whether a checkpoint may have been trained on interactions that its data of today hold out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import EventHistories
from recbole_genrec.data.histories.history_digests import (
    changed_users,
    digests_of,
    users_with_another_past,
)


def held_out_is_drawn(config: Mapping[str, Any]) -> bool:
    """Whether chance decides which interactions are held out.

    Args:
        config: settings of a run.
    """
    return bool(config.get("cold_users")) or config["eval_args"].get("order") == "RO"


def sentence_about_other_pasts(
    config: GenRecConfig, state: Mapping[str, Any], bought: EventHistories
) -> str | None:
    """What speaks against a test of weights on the data of today.

    Purchases that came after the training do no harm: of a longer history more is held out at its
    end. Where chance decides what is held out, any other data changes it.

    Args:
        config: settings of today.
        state: content of a checkpoint.
        bought: what the users of the data have chosen.

    Returns:
        A sentence with the number of users, or ``None`` where the weights know nothing that is held
        out, where an old checkpoint does not say what it knew, and for another dataset, with which
        ids alone may be shared.
    """
    before = state.get("histories")
    is_other_data = state["config"]["dataset"] != config.settings.dataset
    if not before or is_other_data or not config.settings.hold_out:
        return None
    if held_out_is_drawn(config.final_config_dict):
        users = changed_users(digests_of(bought), before)
    else:
        users = users_with_another_past(bought, before)
    if not users:
        return None
    return (
        f"The histories of {len(users):,} users, for example {users[0]!r}, are not those of its "
        "training with new interactions at the end. So its weights may know interactions that are "
        "held out to test them."
    )
