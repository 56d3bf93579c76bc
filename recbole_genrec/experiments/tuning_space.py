"""The parameter file of a hyper-parameter search."""

from __future__ import annotations

import math
import os
from pathlib import Path

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.parsing import parse_value

Space = dict[str, dict[str, list]]  # kind -> key -> values

RANGES = {"uniform": 2, "loguniform": 2, "quniform": 3}  # how many numbers follow


def read_space(file: str | os.PathLike[str]) -> Space:
    """Read a parameter file of RecBole.

    A line is ``key kind values``: ``learning_rate choice [0.01,0.001]``,
    ``dropout uniform 0.1,0.5``, ``learning_rate loguniform -8,0`` (exponents of e),
    ``hidden_size quniform 32,128,32`` (low, high, step). Values are literals; RecBole would run
    them as code.

    Args:
        file: the parameter file.

    Returns:
        ``{kind: {key: values}}``.

    Raises:
        ConfigError: the file is missing or empty, or a line is none of these.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The parameter file {file} cannot be read: {error}") from error
    space: Space = {}
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        key, kind, text = [*words, "", ""][:3]
        values = _values(kind, text)
        repeated = any(key in entries for entries in space.values())
        if values is None or repeated:
            raise ConfigError(
                f"{file}, line {number}: {line.strip()!r} is not 'key choice [a,b,...]', "
                f"'key uniform low,high', 'key loguniform low,high' or "
                f"'key quniform low,high,step', or the key stands there twice."
            )
        space.setdefault(kind, {})[key] = values
    if not space:
        raise ConfigError(
            f"The parameter file {file} holds no parameter. "
            f"Write lines like 'learning_rate choice [0.01,0.001]'."
        )
    return space


def _values(kind: str, text: str) -> list | None:
    """The values in a line; None where they do not fit the kind."""
    if kind == "choice":
        choices = parse_value(text)
        return choices if isinstance(choices, list) and choices else None
    numbers = parse_value(f"[{text}]")
    if not isinstance(numbers, list) or len(numbers) != RANGES.get(kind):
        return None
    if not all(type(number) in (int, float) for number in numbers):
        return None
    return numbers if numbers[0] < numbers[1] else None


def ends(space: Space) -> list[dict[str, object]]:
    """Settings to check before a search.

    Args:
        space: the parameters.

    Returns:
        Settings that reach every listed value and both ends of every range, one key changed at a
        time.
    """
    changes: list[dict[str, object]] = []
    for kind, entries in space.items():
        for key, values in entries.items():
            if kind != "choice":
                values = values[:2]
            if kind == "loguniform":
                values = [math.exp(value) for value in values]
            changes += [{key: setting(kind, value)} for value in values]
    return changes


def setting(kind: str, value: object) -> object:
    """A value as hyperopt gives it, as a setting.

    hyperopt gives 64.0 for ``hidden_size quniform 32,128,32``, and choices come back as text.
    """
    if isinstance(value, str):
        return parse_value(value)
    if kind == "quniform" and isinstance(value, (int, float)) and float(value).is_integer():
        return int(value)
    return value
