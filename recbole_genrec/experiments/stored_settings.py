"""The settings that a checkpoint holds, as a configuration of this version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.file_filter import without_idle_filter
from recbole_genrec.model.registry import get_model_class, is_generative, needs_tokenizer
from recbole_genrec.settings.classification import computed_keys, display_keys
from recbole_genrec.settings.declaration import Key
from recbole_genrec.settings.older_names import change_older_names, fill_older_run
from recbole_genrec.settings.plain import as_list, plain_value
from recbole_genrec.settings.protocol_values import VALIDATION_LOSS, metric_names
from recbole_genrec.settings.shapes import SHAPES
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.tokenizer.registry import check_stored_name, tokenizer_class

MOVABLE = ("backbone",)
"""Keys that name a place whose content, not its name, decides the weights."""


def config_from_plain(stored: dict, **changes: object) -> GenRecConfig:
    """Rebuild a configuration from :meth:`GenRecConfig.plain`; ``changes`` win.

    A change ``Model.key`` is for that model alone. Where other ``metrics`` or ``topk`` leave out
    the figure that the training was validated by, the first of theirs takes its place.

    Raises:
        ConfigError: when the stored settings no longer fit this version.
    """
    computed = computed_keys()
    read = without_idle_filter(stored)
    values = {name: value for name, value in read.items() if name not in computed}
    values.pop("model_class", None)
    if values["train_neg_sample_args"]["distribution"] == "none":
        values["train_neg_sample_args"] = None
    if values.get("tokenizer"):
        check_stored_name(str(values["tokenizer"]))
    values["data_path"] = str(Path(values["data_path"]).parent)
    model = values.pop("model")
    dataset = values.pop("dataset")
    changes = changes_of_model(model, changes)
    fill_older_run(values, _keys_of_method(model, values.get("tokenizer")))
    values |= changes
    change_older_names(values, changes)
    if {"metrics", "topk"} & changes.keys():
        names = metric_names(as_list(values["metrics"]), as_list(values["topk"]))
        if str(values["valid_metric"]).lower() not in (VALIDATION_LOSS, *names):
            values["valid_metric"] = changes.get("valid_metric") or names[0]
    config = GenRecConfig(model, dataset, config_dict=values)
    for name in values.keys() & set(SHAPES) - changes.keys():
        config[name] = values[name]  # all that the model had, also where it names no model_type
    config.is_stored = True
    return config


def _keys_of_method(model: str, tokenizer: object) -> dict[str, Key]:
    """The keys that a method of ours and its tokenizer declare; none for a model of RecBole."""
    model_class: Any = get_model_class(model)
    if not is_generative(model_class):
        return {}
    shared = SharedSettings.declared()
    declared = dict(model_class.settings_class.declared())
    if tokenizer and needs_tokenizer(model_class):
        declared |= tokenizer_class(str(tokenizer)).settings_class.declared()
    return {name: declaration for name, declaration in declared.items() if name not in shared}


def changes_of_model(model: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Some changes with ``Model.key`` resolved for a model; it wins over the plain key.

    Args:
        model: name of the model.
        changes: settings to replace. Those of other models stay as they are.
    """
    start = f"{model}."
    own = {name: value for name, value in changes.items() if name.startswith(start)}
    others = {name: value for name, value in changes.items() if name not in own}
    return {**others, **{name.removeprefix(start): value for name, value in own.items()}}


def changes_of_results(changes: Mapping[str, object]) -> dict[str, object]:
    """Those of some changes that decide what comes out, as JSON can hold them.

    The others say where and how: paths, devices, bars.

    Args:
        changes: settings to replace; ``Model.key`` is for that model alone.
    """
    apart = {*display_keys(), *MOVABLE}
    return {
        name: plain_value(value)
        for name, value in changes.items()
        if name.rpartition(".")[2] not in apart
    }
