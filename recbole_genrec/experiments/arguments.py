"""Values as arguments of the command line."""

from __future__ import annotations

import json
import os

from recbole_genrec.settings.parsing import parse_value


def argument(value: object) -> str:
    """A value as text, which :func:`~recbole_genrec.settings.parsing.parse_value` reads back."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    text = str(value)
    if isinstance(value, (list, dict)):
        text = json.dumps(value, ensure_ascii=False)
    return text if parse_value(text) == value else repr(value)
