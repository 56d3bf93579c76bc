"""What follows from all declarations together: names, cache keys, what stages inherit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_genrec.settings.declaration import REQUIRED, Key, Settings, active
from recbole_genrec.settings.search_keys import CompiledSearchKeys
from recbole_genrec.settings.shared_keys import SharedSettings

RECBOLE_ARGUMENTS = frozenset(
    [*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments]
)
"""Every key that RecBole itself knows whatever the model."""


def merged(*classes: type[Settings]) -> dict[str, Key]:
    """The declarations of several classes by name; of two of one key the later class wins."""
    keys: dict[str, Key] = {}
    for settings in classes:
        keys |= settings.declared()
    return keys


@cache
def shared_keys() -> dict[str, Key]:
    """The keys that are known without a method or tokenizer."""
    return merged(CompiledSearchKeys, SharedSettings)


@cache
def display_keys() -> frozenset[str]:
    """Keys that say where or how a run is shown, not what it computes."""
    return frozenset(name for name, declared in shared_keys().items() if declared.display_only)


@cache
def benchmark_keys() -> frozenset[str]:
    """Keys that a benchmark sets itself."""
    keys = shared_keys().items()
    return frozenset(name for name, declared in keys if declared.set_by_benchmark)


@cache
def computed_keys() -> frozenset[str]:
    """Keys that RecBole computes from others: never the input of a later run."""
    return frozenset(name for name, declared in shared_keys().items() if declared.computed)


def evaluation_keys(keys: Mapping[str, Key]) -> list[str]:
    """Those of ``keys`` that the weights do not depend on, so that ``evaluate`` may change them."""
    return [name for name, declared in keys.items() if declared.evaluate]


@cache
def inherited_keys() -> frozenset[str]:
    """Keys that a model which a stage trains takes over from the run: data, split, seed and device.

    Not the length of histories, so that generators with different ones share the codes.
    """
    names = {*general_arguments, *evaluation_arguments, *dataset_arguments} - computed_keys()
    for name, declared in shared_keys().items():
        if declared.inherited is True:
            names.add(name)
        if declared.inherited is False:
            names.discard(name)
    return frozenset(names)


@cache
def split_keys() -> frozenset[str]:
    """Keys of data, split and evaluation, which act on vectors through the interactions alone."""
    names = {"cold_users", "dataset", *dataset_arguments, *evaluation_arguments}
    return frozenset(names - {"MAX_ITEM_LIST_LENGTH"})


def named_values(
    keys: Mapping[str, Key], values: Mapping[str, object], switches: bool = True
) -> dict[str, object]:
    """The values that make the name of a run.

    Args:
        keys: the declarations; a key without one counts.
        values: all values of the run.
        switches: whether keys are left out whose switch is off.
    """
    if reads_collaborative_vectors(values):
        values = {"cf_rows": keys["cf_rows"].default, **values}
    names = [name for name in values if not _unnamed(keys.get(name), values[name])]
    if switches:
        names = active(keys, values, names)
    return {name: values[name] for name in names}


def reads_collaborative_vectors(values: Mapping[str, object]) -> bool:
    """Whether a run reads vectors of SASRec although no file of its method sets ``cf_rows``.

    Args:
        values: all values of the run.
    """
    others = values.get("tokenizers")
    if values.get("tokenizer_input") == "cf":
        return True
    if isinstance(others, list) and "letter" in others:
        return True
    has_content = values.get("item_text_fields") or values.get("item_vectors")
    return bool(values.get("self_improve")) and not has_content


def _unnamed(declared: Key | None, value: object) -> bool:
    if declared is None:
        return False
    return declared.display_only or (declared.neutral is not REQUIRED and value == declared.neutral)
