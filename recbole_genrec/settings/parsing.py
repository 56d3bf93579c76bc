"""What a command-line argument and a YAML file mean; neither can run code."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_genrec.errors import ConfigError

_NUMBERED = re.compile(r"[-+]?(?:0[0-9_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)$")
"""Digits that are no decimal number: with leading zeros, or with colons."""
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$")


_MERGE = "tag:yaml.org,2002:merge"  # <<, which may stand several times


class YamlLoader(yaml.SafeLoader):
    """Plain YAML (no Python tags) that reads ``1e-3`` as a number, ``007`` and ``1:30`` as texts.

    YAML 1.1 takes ``010`` for an octal 8 and ``1:30`` for 90; here they are ids. A date such as
    ``2024-01-01`` is a text too. RecBole changes ``yaml.FullLoader`` for the whole process instead.

    Raises:
        RepeatedKey: a mapping has a key twice, of which PyYAML would take the last.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """PyYAML's, which refuses a repeated key."""
        mapping = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for name, _ in mapping.value:
            if not isinstance(name, yaml.ScalarNode) or name.tag == _MERGE:
                continue
            line = name.start_mark.line + 1
            key = name.tag, name.value
            if key in lines:
                raise RepeatedKey(name.value, lines[key], line)
            lines[key] = line
        return mapping


class RepeatedKey(yaml.YAMLError):
    """A key that stands twice in one mapping.

    Args:
        key: the key.
        first: number of the line where it stands first.
        second: number of the line where it stands again.
    """

    def __init__(self, key: str, first: int, second: int) -> None:
        place = f"on lines {first} and {second}"
        if first == second:
            place = f"on line {first}"
        super().__init__(f"{key} is given twice, {place}. Remove one of the two.")


YamlLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
YamlLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
for _first in "-+0123456789":
    _resolvers = YamlLoader.yaml_implicit_resolvers[_first]
    _resolvers.insert(0, ("tag:yaml.org,2002:str", _NUMBERED))


def parse_value(text: str) -> object:
    """The value of a command-line argument.

    A Python literal, ``true``, ``false``, ``null``, or a YAML list or mapping; else the string.

    Raises:
        ConfigError: a mapping has a key twice.
    """
    lowered = text.strip().lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    if lowered in {"none", "null", "~"}:
        return None
    try:
        literal = ast.parse(text.strip(), mode="eval")
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _yaml_value(text)
    _refuse_repeated_keys(text, literal)
    if isinstance(value, (str, int, float, list, tuple, dict)):
        return value
    return text  # bytes, sets, complex numbers


def _yaml_value(text: str) -> object:
    """A YAML list or mapping; else the string.

    Raises:
        ConfigError: a mapping has a key twice.
    """
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            return yaml.load(text, Loader=YamlLoader)
        except RepeatedKey as error:
            raise ConfigError(f"{text}: {error}") from error
        except (yaml.YAMLError, RecursionError):
            return text
    return text


def _refuse_repeated_keys(text: str, literal: ast.Expression) -> None:
    """Check that no dictionary of a Python literal has a key twice.

    Raises:
        ConfigError: one has.
    """
    for node in ast.walk(literal):
        if isinstance(node, ast.Dict):
            keys = [ast.literal_eval(key) for key in node.keys if key is not None]
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    raise ConfigError(
                        f"{text}: {key} is given twice, in one mapping. Remove one of the two."
                    )


def parse_arguments(argv: list[str], texts: Container[str] = ()) -> dict[str, object]:
    """``["--key=value", "--resume"]`` -> ``{"key": value, "resume": True}``.

    Args:
        argv: the arguments.
        texts: keys of paths and names, whose values are texts: ``2024`` stays as it is typed.

    Raises:
        ConfigError: an argument without leading ``--``, one of ``texts`` without a value, or a key
            twice with different values.
    """
    parsed: dict[str, object] = {}
    for argument in argv:
        if not argument.startswith("--") or len(argument) < 3:
            raise ConfigError(f"Argument {argument!r} is not of the form --key=value.")
        key, equals, text = argument[2:].partition("=")
        value = parse_value(text) if equals else True
        if key in texts:
            value = _text_value(key, text, value)
        if key in parsed and parsed[key] != value:
            raise ConfigError(f"--{key} is given twice, as {parsed[key]!r} and as {value!r}.")
        parsed[key] = value
    return parsed


def _text_value(key: str, typed: str, value: object) -> str | None:
    """The value of an argument that is a path or a name.

    Args:
        key: its key.
        typed: what stands after ``=``.
        value: what that means elsewhere.

    Raises:
        ConfigError: nothing is typed.
    """
    if not typed:
        raise ConfigError(f"--{key} needs a value: --{key}=...")
    return value if value is None or isinstance(value, str) else typed


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
        ConfigError: the file is missing, is not plain YAML (Python tags are not), gives a key
            twice, or holds something else than keys and values.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
        content = yaml.load(text, Loader=YamlLoader)
    except RepeatedKey as error:
        raise ConfigError(f"{file}: {error}") from error
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
