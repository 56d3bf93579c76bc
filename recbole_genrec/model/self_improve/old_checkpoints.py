"""Names of the stored state before :class:`SelfImprovement` was an object of its own."""

from __future__ import annotations

NEW_NAMES = {
    "si_epoch": "epoch",
    "si_step": "step",
    "si_round": "round",
    "item_prefix.marker": "item_prefix.marker",
    "item_prefix.projection.weight": "item_prefix.projection.weight",
    "item_prefix.projection.bias": "item_prefix.projection.bias",
}


def rename_old_state(model, state: dict, prefix: str, *_) -> None:
    """Rename the entries of an older checkpoint; torch calls this before it loads a state.

    Args:
        model: the model that is loaded.
        state: the ``state_dict``; changed in place.
        prefix: what stands before the names of the model's entries.
    """
    if f"{prefix}si_epoch" not in state:
        return
    target = f"{prefix}self_improvement."
    for old, new in NEW_NAMES.items():
        if prefix + old in state:
            state[target + new] = state.pop(prefix + old)

    # The log and the method's own extra state were one entry.
    extra_state = state.pop(f"{prefix}_extra_state")
    state[f"{target}_extra_state"] = {"log": extra_state["log"]}
    if "method" in extra_state:
        state[f"{prefix}_extra_state"] = extra_state["method"]
