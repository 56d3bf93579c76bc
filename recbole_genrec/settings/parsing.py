"""What a command-line argument and a YAML file mean; neither can run code."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from recbole_genrec.errors import ConfigError

_NUMBERED = re.compile(r"[-+]?(?:0[0-9_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)$")
"""Digits that are no decimal number: with leading zeros, or with colons."""
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$")


class YamlLoader(yaml.SafeLoader):
    """Plain YAML (no Python tags) that reads ``1e-3`` as a number, ``007`` and ``1:30`` as texts.

    YAML 1.1 takes ``010`` for an octal 8 and ``1:30`` for 90; here they are ids. RecBole changes
    ``yaml.FullLoader`` for the whole process instead.
    """


YamlLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
for _first in "-+0123456789":
    _resolvers = YamlLoader.yaml_implicit_resolvers[_first]
    _resolvers.insert(0, ("tag:yaml.org,2002:str", _NUMBERED))


def parse_value(text: str) -> object:
    """The value of a command-line argument.

    A Python literal, ``true``, ``false``, ``null``, or a YAML list or mapping; else the string.
    """
    lowered = text.strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    if lowered in {"none", "null", "~"}:
        return None
    try:
        value = ast.literal_eval(text)
        if isinstance(value, (str, int, float, list, tuple, dict)):
            return value
        return text  # bytes, sets, complex numbers
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            return yaml.load(text, Loader=YamlLoader)
        except (yaml.YAMLError, RecursionError):
            return text
    return text


def parse_arguments(argv: list[str]) -> dict[str, object]:
    """``["--key=value", "--resume"]`` -> ``{"key": value, "resume": True}``.

    Raises:
        ConfigError: an argument without leading ``--``, or a key twice with different values.
    """
    parsed: dict[str, object] = {}
    for argument in argv:
        if not argument.startswith("--") or len(argument) < 3:
            raise ConfigError(f"Argument {argument!r} is not of the form --key=value.")
        key, equals, text = argument[2:].partition("=")
        value = parse_value(text) if equals else True
        if key in parsed and parsed[key] != value:
            raise ConfigError(f"--{key} is given twice, as {parsed[key]!r} and as {value!r}.")
        parsed[key] = value
    return parsed


def config_files(listed: Sequence[str] | None, arguments: dict[str, object]) -> list[str]:
    """The YAML files of ``listed``, then those that ``--config_files`` names.

    Args:
        listed: paths that a program gives.
        arguments: of :func:`parse_arguments`; ``config_files`` is one path, several with spaces or
            commas between (RecBole's way), or a list.
    """
    named = arguments.get("config_files") or []
    if isinstance(named, str) and not Path(named).is_file():
        named = named.replace(",", " ").split()
    if not isinstance(named, (list, tuple)):
        named = [str(named)]
    return [*(listed or []), *map(str, named)]


def read_yaml(file: str | Path) -> dict:
    """Keys and values of a YAML file; ``{}`` for an empty one.

    Raises:
        ConfigError: the file is missing, is not plain YAML (Python tags are not), or holds
            something else than keys and values.
    """
    try:
        content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=YamlLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"The configuration file {file} cannot be read as plain YAML: {error}"
        ) from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            f"The configuration file {file} must hold 'key: value' lines with words as keys."
        )
    return content
