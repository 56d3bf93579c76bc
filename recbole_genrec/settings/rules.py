"""What a key may hold, and the check of a value against it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from recbole_genrec.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """What a key may hold.

    Args:
        kind: ``int``, ``float``, ``bool``, ``str``, or ``list`` (a list of ``item`` values).
        help: one line for people.
        choices: allowed values; words of other types may be listed too (``auto`` beside integers).
        low, high: inclusive range of numbers.
        optional: whether ``null`` is allowed.
    """

    kind: type
    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    optional: bool = False
    item: type = str


def nearest(word: str, known: Iterable[str], n: int = 1) -> list[str]:
    """The ``n`` known words most like ``word``, upper and lower case alike; empty when none is like it."""
    by_lower = {name.lower(): name for name in known}
    return [
        by_lower[name]
        for name in difflib.get_close_matches(str(word).lower(), sorted(by_lower), n=n, cutoff=0.5)
    ]


def check_value(key: str, value: object, rule: Rule) -> None:
    """Raise :class:`ConfigError` unless ``value`` fits ``rule``."""
    if value is None:
        if rule.optional:
            return
        raise ConfigError(f"{key} must be set: {rule.help}.")
    if value in rule.choices if not isinstance(value, (list, dict)) else False:
        return
    if rule.kind is list:
        if (
            not isinstance(value, (list, tuple))
            or not value
            or not all(_fits(entry, rule.item) for entry in value)
        ):
            raise ConfigError(
                f"{key} is {value!r}; it must be a list of {rule.item.__name__} ({rule.help})."
            )
        numbers = [entry for entry in value if isinstance(entry, (int, float))]
    else:
        only_words = rule.kind is str and rule.choices
        if not _fits(value, rule.kind) or only_words:
            near = nearest(str(value), map(str, rule.choices))
            allowed = (
                f"one of {', '.join(map(str, rule.choices))}"
                if only_words
                else f"of type {rule.kind.__name__}"
            )
            other = (
                f" or {', '.join(map(str, rule.choices))}"
                if rule.choices and not only_words
                else ""
            )
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{key} is {value!r}; it must be {allowed}{other} ({rule.help}).{hint}"
            )
        numbers = [value] if rule.kind in (int, float) else []
    for number in numbers:
        if (
            not (-math.inf if rule.low is None else rule.low)
            <= number
            <= (math.inf if rule.high is None else rule.high)
        ):  # NaN too
            bounds = (
                f"at least {rule.low}"
                if rule.high is None
                else f"between {rule.low} and {rule.high}"
            )
            raise ConfigError(f"{key} is {value!r}; it must be {bounds} ({rule.help}).")


def _fits(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
