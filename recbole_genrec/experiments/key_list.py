"""The keys of methods and tokenizers with their values for a run, for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.outside import outside_names
from recbole_genrec.model.registry import MODELS, get_model_class, is_generative, model_properties
from recbole_genrec.settings.classification import RECBOLE_ARGUMENTS
from recbole_genrec.settings.declaration import Effect, Key
from recbole_genrec.settings.listing import listed
from recbole_genrec.settings.parsing import parse_arguments
from recbole_genrec.settings.property_files import shipped
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.tokenizer.registry import tokenizer_class, tokenizer_names

NO_DATASET = "no-dataset"
"""Stands for the dataset where none is named; no property file has this name."""
WITHOUT_KEYS = "Pop"
"""A method without keys of its own: its values are those that all methods share."""
HEADINGS: dict[Effect, str] = {
    "data": "Data and protocol",
    "tokenizer": "Codes",
    "training": "Training",
    "search": "Search and lists",
    "display": "Files, processes, and what is shown",
}


def key_list(method: str | None, argv: list[str]) -> str:
    """The keys that a method takes, or without one those of every method and tokenizer.

    Args:
        method: a name that ``--model`` takes.
        argv: ``--key=value`` arguments of a run, which change the values. Without ``method`` they
            change those of the keys that all methods share.

    Raises:
        ConfigError: there is no such method, or the arguments cannot work.
    """
    if "model" in parse_arguments(argv):
        raise ConfigError("Name the method without --model: recbole-genrec keys LETTER.")
    settled = settled_keys(method or WITHOUT_KEYS, argv)
    config = settled.config
    values = settled.values
    places = settled.places
    if method is None:
        values["model"] = None
    else:
        places["model"] = "an argument"
    declared = [key for key in config.declarations.values() if not key.computed]
    shared = [key for key in declared if _is_shared(key)]
    shared_table = listed("Keys that all methods share", shared, values, places)
    if method is None:
        return "\n\n".join([shared_table, *_methods(settled.dataset), *_tokenizers()])

    title = f"Keys of {config.model} and its tokenizer"
    further = _further(config.declarations.values())
    if not is_generative(config.model_class):
        title = f"Keys of RecBole's {config.model}"
        further = _recbole_keys(config)
    if not further:
        return shared_table
    return "\n\n".join([listed(title, further, values, places), shared_table])


def keys_by_effect(method: str, argv: list[str]) -> str:
    """The keys that a method takes, by what they affect first.

    Args:
        method: a name that ``--model`` takes.
        argv: ``--key=value`` arguments of a run, which change the values.

    Raises:
        ConfigError: there is no such method, or the arguments cannot work.
    """
    settled = settled_keys(method, argv)
    settled.places["model"] = "an argument"
    declared = [key for key in settled.config.declarations.values() if not key.computed]
    tables = []
    for effect, heading in HEADINGS.items():
        keys = [key for key in declared if key.affects[0] == effect]
        if keys:
            tables.append(listed(heading, keys, settled.values, settled.places))
    further = _recbole_keys(settled.config)
    if further and not is_generative(settled.config.model_class):
        title = f"Of RecBole's {settled.config.model}"
        tables.insert(0, listed(title, further, settled.values, settled.places))
    return "\n\n".join(tables)


class SettledKeys(NamedTuple):
    """The values that the keys of a method have.

    Attributes:
        config: the settings of its run.
        dataset: its name, or :data:`NO_DATASET`.
        values: by key.
        places: where each value stands, by key.
    """

    config: GenRecConfig
    dataset: str
    values: dict[str, Any]
    places: dict[str, str]


def settled_keys(method: str, argv: list[str]) -> SettledKeys:
    """Read the settings of a method, with or without a dataset.

    Args:
        method: a name that ``--model`` takes.
        argv: ``--key=value`` arguments of a run.
    """
    arguments = parse_arguments(argv)
    dataset = str(arguments.get("dataset", NO_DATASET))
    unnamed: dict[str, Any] = {}
    if dataset == NO_DATASET:
        # some methods refuse a dataset that does not say what describes an item
        unnamed = {"item_text_fields": arguments.get("item_text_fields", [NO_DATASET])}
    config = GenRecConfig(method, dataset, config_dict=unnamed, argv=argv)
    values = {**config.plain(), "data_path": str(Path(config.settings.data_path).parent)}
    if dataset == NO_DATASET:
        values |= {"dataset": None, "item_text_fields": arguments.get("item_text_fields")}
    places = config.places | dict.fromkeys(arguments, "an argument")
    return SettledKeys(config, dataset, values, places)


def _is_shared(declared: Key) -> bool:
    return declared.name in SharedSettings.declared()


def _further(keys: Iterable[Key]) -> list[Key]:
    """Those of ``keys`` that not all methods share."""
    return [key for key in keys if not _is_shared(key) and not key.computed]


def _methods(dataset: str) -> list[str]:
    """A table for each method of this package's kind: the keys that it declares."""
    tables = []
    for name in sorted({*MODELS, *outside_names()}):
        model_class: Any = get_model_class(name)
        if not is_generative(model_class):
            continue
        keys = _further(model_class.settings_class.declared().values())
        if keys:
            values, places = _values_of(name, model_class, dataset)
            tables.append(listed(f"Keys of {name}", keys, values, places))
    return tables


def _values_of(
    name: str, model_class: type, dataset: str
) -> tuple[dict[str, object], dict[str, str]]:
    """What files set for a method, and the file of each key; a later layer wins.

    A ``GenRecConfig`` would refuse some methods where no dataset says what items are described by.
    """
    properties = model_properties(model_class)
    section = shipped(f"dataset/{dataset}").get(name) or {}
    tokenizer = section.get("tokenizer", properties.get("tokenizer"))
    layers = {f"model/{name}.yaml": properties, f"dataset/{dataset}.yaml, {name}": section}
    if tokenizer is not None:
        chosen = tokenizer_class(tokenizer)
        file = f"tokenizer/{chosen.name}"
        layers = {f"{file}.yaml": {**chosen.defaults, **shipped(file)}, **layers}

    values: dict[str, object] = {}
    places: dict[str, str] = {}
    for place, content in layers.items():
        values |= content
        places |= dict.fromkeys(content, place)
    return values, places


def _tokenizers() -> list[str]:
    """A table for each tokenizer: the keys that it declares, shared ones where it sets a value."""
    tables = []
    for name in tokenizer_names():
        chosen = tokenizer_class(name)
        file = f"tokenizer/{chosen.name}"
        values = {**chosen.defaults, **shipped(file)}
        places = dict.fromkeys(values, f"{file}.yaml")
        declared = chosen.settings_class.declared()
        keys = _further(declared.values())
        keys += [key for key in declared.values() if _is_shared(key) and key.name in values]
        if keys:
            tables.append(listed(f"Keys of tokenizer: {name}", keys, values, places))
    return tables


def _recbole_keys(config: GenRecConfig) -> list[Key]:
    """The keys of a model of RecBole, which has no declarations: names without help."""
    names = [
        name
        for name, place in config.places.items()
        if place == "RecBole" and name not in config.declarations and name not in RECBOLE_ARGUMENTS
    ]
    return [Key(name, Any, "RecBole explains it", ("training",)) for name in names]
