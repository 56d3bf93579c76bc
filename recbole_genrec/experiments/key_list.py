"""The keys of a method with their values for a run, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.registry import is_generative
from recbole_genrec.settings.classification import RECBOLE_ARGUMENTS
from recbole_genrec.settings.declaration import Key
from recbole_genrec.settings.listing import listed
from recbole_genrec.settings.parsing import parse_arguments
from recbole_genrec.settings.shared_keys import SharedSettings

NO_DATASET = "no-dataset"
"""Stands for the dataset where none is named; no property file has this name."""
WITHOUT_KEYS = "Pop"
"""A method without keys of its own: its values are those that all methods share."""


def key_list(method: str | None, argv: list[str]) -> str:
    """The keys that a method takes, or without one those that all methods share.

    Args:
        method: a name that ``--model`` takes.
        argv: ``--key=value`` arguments of a run, which change the values.

    Raises:
        ConfigError: there is no such method, or the arguments cannot work.
    """
    arguments = parse_arguments(argv)
    if "model" in arguments:
        raise ConfigError("Name the method without --model: recbole-genrec keys LETTER.")
    dataset = str(arguments.get("dataset", NO_DATASET))
    config = GenRecConfig(method or WITHOUT_KEYS, dataset, argv=argv)
    values = {**config.plain(), "data_path": str(Path(config.settings.data_path).parent)}
    if dataset == NO_DATASET:
        values["dataset"] = None
    places = config.places | dict.fromkeys(arguments, "an argument")

    shared = SharedSettings.declared()
    declared = [key for key in config.declarations.values() if not key.computed]
    own = [key for key in declared if key.name not in shared]
    title = f"Keys of {config.model} and its tokenizer"
    if not is_generative(config.model_class):
        title, own = f"Keys of RecBole's {config.model}", _recbole_keys(config)
    if method is None:
        own = []
    tables = [
        (title, own),
        ("Keys that all methods share", [key for key in declared if key.name in shared]),
    ]
    filled = [(title, keys) for title, keys in tables if keys]
    return "\n\n".join(listed(title, keys, values, places) for title, keys in filled)


def _recbole_keys(config: GenRecConfig) -> list[Key]:
    """The keys of a model of RecBole, which has no declarations: names without help."""
    names = [
        name
        for name, place in config.places.items()
        if place == "RecBole" and name not in config.declarations and name not in RECBOLE_ARGUMENTS
    ]
    return [Key(name, Any, "RecBole explains it", ("training",)) for name in names]
