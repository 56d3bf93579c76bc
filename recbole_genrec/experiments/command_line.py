"""Values as arguments of the command line, and the command that repeats a run or a test."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_genrec.model.outside import is_outside, location
from recbole_genrec.settings.parsing import parse_arguments, parse_value


def argument(value: object) -> str:
    """A value as text, which :func:`~recbole_genrec.settings.parsing.parse_value` reads back."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    text = str(value)
    if isinstance(value, (list, dict)):
        text = json.dumps(value, ensure_ascii=False)
    return text if parse_value(text) == value else repr(value)


def command_of(
    model: str | type | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    config_dict: dict[str, Any] | None,
    argv: Sequence[str] | None,
) -> str:
    """One line for a shell.

    Args:
        model: name or class, where it was given apart.
        dataset: name, where it was given apart.
        config_file_list: YAML files; those that ``argv`` names are not said twice.
        config_dict: settings of a program.
        argv: arguments, which win over the dictionary.
    """
    words = list(argv or [])
    arguments = parse_arguments(words)
    before = []
    if model is not None and "model" not in arguments:
        before.append(f"--model={_name(model)}")
    if dataset is not None and "dataset" not in arguments:
        before.append(f"--dataset={dataset}")
    if config_file_list and "config_files" not in arguments:
        before.append(f"--config_files={argument(list(map(str, config_file_list)))}")
    taken = {"model"} if model is not None else set()
    if dataset is not None:
        taken.add("dataset")
    for name, value in (config_dict or {}).items():
        if name not in arguments and name not in taken:
            before.append(f"--{name}={argument(value)}")
    return shlex.join(["recbole-genrec", "run", *before, *words])


def command_of_test(checkpoint: object, changes: Mapping[str, Any]) -> str:
    """The command that tests a checkpoint again, as one line for a shell.

    Args:
        checkpoint: of a model or of an ensemble.
        changes: settings that differ from those of the training.
    """
    words = [f"--{name}={argument(value)}" for name, value in changes.items()]
    return shlex.join(["recbole-genrec", "evaluate", f"--checkpoint={checkpoint}", *words])


def _name(model: str | type) -> str:
    if isinstance(model, str):
        return model
    return location(model) if is_outside(model) else model.__name__
