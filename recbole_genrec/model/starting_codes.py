"""The settings of the codes that a training takes over from a checkpoint (``init_from``)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from os.path import normpath
from typing import Any

from recbole_genrec.errors import GenRecError
from recbole_genrec.model.registry import needs_tokenizer
from recbole_genrec.settings.declaration import active
from recbole_genrec.settings.older_names import fill_older_run
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.tokenizer.registry import check_stored_name, tokenizer_class

NAMES = ("tokenizer", "tokenizers")
"""Keys that name what gives the codes."""


def code_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a run that decide the codes of its items, and nothing else.

    Args:
        stored: settings of a run of a method with codes, also of a version that did not have all
            of these keys.

    Returns:
        ``tokenizer`` first, then the keys of the tokenizer that have an effect.

    Raises:
        ArtefactError: the tokenizer is code that only the checkpoint names.
        ConfigError: nobody knows the tokenizer.
    """
    values = dict(stored)
    tokenizer = str(values["tokenizer"])
    check_stored_name(tokenizer)
    keys = tokenizer_class(tokenizer).settings_class.declared()
    fill_older_run(values, keys)
    of_codes = [name for name, declared in keys.items() if declared.affects == ("tokenizer",)]
    names = [*NAMES, *active(keys, values, of_codes)]
    return {name: values[name] for name in names if name in values}


def code_defaults(file: object, model_class: type, tokenizer: object) -> dict[str, Any]:
    """What a training from a checkpoint takes for the keys of its codes that the user leaves out.

    Args:
        file: value of ``init_from``.
        model_class: what is to be trained.
        tokenizer: what the user has chosen, or ``None``.

    Returns:
        :func:`code_settings` of the checkpoint. Nothing where there is none, where it cannot be
        read or holds another model, which the run says, and where the user wants another tokenizer.
    """
    if not isinstance(file, str) or not needs_tokenizer(model_class):
        return {}
    with contextlib.suppress(GenRecError):
        if tokenizer is not None:
            tokenizer_class(str(tokenizer))  # a class from outside is known from here on
        stored = load_checkpoint(file, with_weights=False).get("config", {})
        if stored.get("model") == model_class.__name__:
            settings = code_settings(stored)
            if tokenizer is None or normpath(str(tokenizer)) == normpath(settings["tokenizer"]):
                return settings
    return {}
