"""Methods from outside this package.

Classes that a program registers, entry points, and ``package.module:Class``.
"""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.model.names import MODELS, recbole_model_names
from recbole_genrec.runtime.outside_classes import LOCATION, OutsideClasses
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import shipped

ENTRY_POINTS = "recbole_genrec.models"
PACKAGES = ("recbole", "recbole_genrec")
OLDER_HOOKS = (
    "requires_texts",
    "reads_text",
    "uses_texts",
    "needs_item_texts",
    "reads_new_texts",
)
"""Hooks of earlier versions that ``text_use`` has replaced."""


@cache
def _classes() -> OutsideClasses:
    # the check of the installation, with a clear message, comes before the first import of RecBole
    from recbole.model.abstract_recommender import AbstractRecommender

    return OutsideClasses("model", ENTRY_POINTS, AbstractRecommender)


def register(model_class: type) -> type:
    """Make a class known by its name, for ``--model=Name`` and for its checkpoints.

    May stand above the class as a decorator. A class of the same name that was registered before is
    forgotten, so that a notebook can define its class again.

    Args:
        model_class: a :class:`~recbole_genrec.model.base.GenRecModel`, or a model of RecBole's
            kind.

    Returns:
        The class.

    Raises:
        ConfigError: this is no model, a model of ours or of RecBole has its name, or it has a hook
            of an earlier version.
    """
    name = model_class.__name__
    is_ours = getattr(model_class, "generative", False)  # and not one of RecBole's kind
    for hook in OLDER_HOOKS:
        if is_ours and hasattr(model_class, hook):
            raise older_text_use(model_class, hook)
    if name in MODELS or name in recbole_model_names():
        raise ConfigError(
            f"There is a model {name} already. Give your class {location(model_class)} another "
            "name, which tells its checkpoints and results apart."
        )
    _classes().register(name, model_class)
    return model_class


def older_text_use(model_class: type, older: str) -> ConfigError:
    """The error of a class that says in an older way whether it reads item texts.

    Args:
        model_class: the class.
        older: what says it: a hook, or an argument of the constructor.
    """
    return ConfigError(
        f"{location(model_class)} says by {older} whether it reads item texts, as in an earlier "
        "version. Write the class method text_use(cls, config) instead, which returns 'none', "
        "'optional' or 'required'."
    )


def is_outside(model_class: type) -> bool:
    """Whether a class is neither of this package nor of RecBole."""
    return model_class.__module__.partition(".")[0] not in PACKAGES


def location(model_class: type) -> str:
    """Where a class is, as ``package.module:Class``."""
    return f"{model_class.__module__}:{model_class.__qualname__}"


def outside_names() -> list[str]:
    """Names of the registered classes and of the entry points."""
    return [name for name in _classes().names if not LOCATION.fullmatch(name)]


def find_outside(name: str) -> type | None:
    """The class of a name from outside.

    Args:
        name: the name of a registered class or of an entry point, or ``package.module:Class``,
            whose module is imported; the working folder counts as a place of modules.

    Returns:
        The class, or ``None`` if the name is none of these.

    Raises:
        ConfigError: the module or the class cannot be found, or is no model.
    """
    model_class = _classes().find(name)
    if model_class is None:
        return None
    if not LOCATION.fullmatch(name) and model_class.__name__ != name:
        raise ConfigError(
            f"The entry point {name!r} names the class {model_class.__name__}. Both must have the "
            "same name, which stands in checkpoints and results."
        )
    return register(model_class)


def outside_properties(model_class: type) -> dict:
    """Values of keys that a class from outside brings, over those of its base class.

    They are its ``properties``, or the file ``<Class>.yaml`` beside its module.
    """
    from recbole.model.abstract_recommender import AbstractRecommender

    values: dict = {}
    for base in reversed(model_class.__mro__):
        if not issubclass(base, AbstractRecommender):
            continue
        if is_outside(base):
            values |= _properties_of(base)
        elif base.__name__ in MODELS:
            values = shipped(f"model/{base.__name__}")
    return values


def _properties_of(model_class: type) -> dict:
    values = vars(model_class).get("properties")
    if values is not None:
        return dict(values)
    try:
        file = Path(inspect.getfile(model_class)).with_name(f"{model_class.__name__}.yaml")
    except (TypeError, OSError):  # a class of a notebook has no file
        return {}
    if not file.is_file():
        return {}
    return read_yaml(file)


def check_stored_class(stored: dict, model_class: type | str | None, checkpoint: str) -> None:
    """Make sure that the class of a checkpoint is known, without running code that nobody named.

    Args:
        stored: the settings of the checkpoint. ``model_class`` says where a class from outside is.
        model_class: the class, or ``package.module:Class``, if the caller names one.
        checkpoint: its path, for messages.

    Raises:
        ConfigError: the caller's class has another name than the checkpoint's.
        ArtefactError: the class is from outside, and neither named nor known.
    """
    name = stored["model"]
    if model_class is not None:
        named = named_class(model_class)
        if named.__name__ != name:
            raise ConfigError(
                f"{checkpoint} holds a model of the class {name}, not {named.__name__}."
            )
        return
    place = stored.get("model_class")
    if place is None:
        return
    if name in outside_names():
        known = find_outside(name)
        if known is not None and location(known) == place:
            return
    raise ArtefactError(
        f"{checkpoint} holds a model of the class {place}, which is not part of this package. "
        f"Loading it runs the code of that module, so name it: model_class={name} in a program (or "
        f"register the class), --model={place} on the command line."
    )


def named_class(model_class: type | str) -> type:
    """The class that a caller names, which is registered.

    Args:
        model_class: the class, or ``package.module:Class``.

    Raises:
        ConfigError: there is no such class.
    """
    if isinstance(model_class, type):
        return register(model_class)
    outside_class = find_outside(model_class)
    if outside_class is None:
        raise ConfigError(
            f"There is no class {model_class!r} from outside. Write package.module:Class."
        )
    return outside_class
