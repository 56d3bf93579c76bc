"""Values as JSON can hold them."""

from __future__ import annotations

import os
from enum import Enum


def plain_value(value: object) -> object:
    """``value`` as JSON can hold it: enums by name, paths and devices as text, tuples as lists."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(name): plain_value(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(entry) for entry in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value)


def as_list(value: object) -> list:
    """``value`` as a list, or a list of the one word or number that it is."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
