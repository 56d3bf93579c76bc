"""The class of a model's name: ours, RecBole's, or one from outside (:mod:`.outside`)."""

from __future__ import annotations

import importlib

from recbole_genrec.data.rows.training_rows import MASKED, training_rows
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.names import GENERATORS, MODELS, recbole_model_names
from recbole_genrec.model.outside import (
    find_outside,
    is_outside,
    outside_names,
    outside_properties,
    register,
)
from recbole_genrec.runtime.recbole_repairs import (
    check_installation,
    check_model_runs,
    quiet_anomaly_detection,
)
from recbole_genrec.settings.property_files import shipped
from recbole_genrec.settings.rules import nearest

__all__ = [
    "GENERATORS",
    "MODELS",
    "build_model",
    "get_model_class",
    "is_generative",
    "model_name",
    "model_names",
    "model_properties",
    "needs_tokenizer",
    "reads_codes",
    "recbole_model_names",
    "register",
]


def model_names() -> list[str]:
    """Every name that ``--model`` takes beside ``package.module:Class``."""
    return sorted({*MODELS, *recbole_model_names(), *outside_names()})


def get_model_class(name: str) -> type:
    """The class for ``--model=name``: ours, then RecBole's, then those from outside.

    Raises:
        ConfigError: unknown name; the message carries the nearest known ones.
    """
    check_installation()
    check_model_runs(name)
    if name in MODELS:
        module, _, attribute = MODELS[name].location.partition(":")
        model_class = getattr(importlib.import_module(module), attribute)
    elif name in recbole_model_names():
        model_class = _recbole_class(name)
    else:
        model_class = find_outside(name)
        if model_class is None:
            near = nearest(name, model_names(), n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"There is no model {name!r}.{hint} Ours: {', '.join(MODELS)}.")
    quiet_anomaly_detection()
    return model_class


def _recbole_class(name: str) -> type:
    """A model of RecBole's that runs on users, items and times alone."""
    from recbole.utils import ModelType, get_model

    try:
        model_class = get_model(name)
    except ImportError as error:
        raise ConfigError(
            f"RecBole's {name} needs the package {error.name}, which is not installed."
        ) from error
    if model_class.type in (ModelType.CONTEXT, ModelType.KNOWLEDGE, ModelType.DECISIONTREE):
        raise ConfigError(
            f"RecBole's {name} is a {model_class.type.name.lower()} model and needs other data "
            "than user, item and time; general, traditional and sequential models run here."
        )
    return model_class


def model_properties(model_class: type) -> dict:
    """Values of keys that a model brings: our file for it, or what a class from outside has."""
    if is_outside(model_class):
        return outside_properties(model_class)
    return shipped(f"model/{model_class.__name__}")


def model_name(model: str) -> str:
    """The name of a model in results: ``Class`` for ``package.module:Class``."""
    if ":" not in model:
        return model
    return model.rpartition(":")[2].rpartition(".")[2]


def build_model(config, dataset):
    """The model of a run, untrained.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
    """
    model_class = config.model_class
    if is_generative(model_class):
        return model_class.build(config, dataset)
    if training_rows(config) == "all" or config.settings.model in MASKED:
        return model_class(config, dataset)
    # The other models do without what it imports.
    from recbole_genrec.model.baselines.all_positions import with_all_positions

    return with_all_positions(model_class, config, dataset)


def is_generative(model_class: type) -> bool:
    """Whether a class is a method of this package's kind (a ``GenRecModel``)."""
    return getattr(model_class, "generative", False)


def needs_tokenizer(model_class: type) -> bool:
    """Whether the items of a class have codes, which a ``tokenizer`` gives them."""
    return getattr(model_class, "needs_tokenizer", False)


def reads_codes(config) -> bool:
    """Whether the codes of items decide anything in a run with these settings."""
    return is_generative(config.model_class) and config.model_class.reads_codes(config)
