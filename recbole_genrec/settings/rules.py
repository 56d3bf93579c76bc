"""The check of a value against the declaration of its key, and the sentences for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.declaration import Key

NEAR = 0.7
"""How much of two words must agree for a hint, as ``difflib`` measures it."""


def nearest(word: str, known: Iterable[str], n: int = 1) -> list[str]:
    """The ``n`` known words most like ``word``, upper and lower case alike; empty when none is."""
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(str(word).lower(), sorted(by_lower), n=n, cutoff=NEAR)
    return [by_lower[name] for name in matches]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean ...?`` with the known word most like ``word``; empty when none is."""
    near = nearest(word, known)
    return f" Did you mean {near[0]}?" if near else ""


def check_value(declared: Key, value: object) -> None:
    """Check a value against the declaration of its key.

    Raises:
        ConfigError: the value has another type, lies out of range, or is none of the choices.
    """
    if value is None and not declared.optional:
        raise ConfigError(f"{declared.name} must be set: {declared.help}.")
    if declared.fits(value):
        return
    start = f"{declared.name} is {value!r}; it must be"
    if declared.kind is list and not declared.fits_type(value):
        raise ConfigError(f"{start} a list of {declared.item.__name__} ({declared.help}).")
    if not declared.fits_type(value):
        hint = did_you_mean(str(value), map(str, declared.choices))
        raise ConfigError(f"{start} {_allowed(declared)} ({declared.help}).{hint}")
    bounds = f"between {declared.low} and {declared.high}"
    if declared.high is None:
        bounds = f"at least {declared.low}"
    raise ConfigError(f"{start} {bounds} ({declared.help}).")


def check_values(keys: Mapping[str, Key], values: Mapping[str, object]) -> None:
    """Check all ``values`` that have a declaration; what RecBole computes is its own affair.

    Raises:
        ConfigError: see :func:`check_value`.
    """
    for name, declared in keys.items():
        if name in values and not declared.computed:
            check_value(declared, values[name])


def _allowed(declared: Key) -> str:
    words = ", ".join(map(str, declared.choices))
    if declared.only_words:
        return f"one of {words}"
    other = f" or {words}" if words else ""
    return f"of type {declared.kind.__name__}{other}"
