"""Raw ids that people and programs give: typed, in lists, or one a line in files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from recbole_genrec.data.files.cells import is_quoted, unquoted
from recbole_genrec.errors import ConfigError

_WORD = re.compile(r'\s*("(?:[^"]|"")*"(?=\s*(?:,|\Z))|[^,]*?)\s*(,|\Z)')
"""A word of a list, and the comma after it; between quotes commas are part of the word."""


@dataclass(frozen=True)
class IdText:
    """Raw ids that somebody typed: one id, commas and all, or several with commas between them.

    Args:
        text: ``7,4``, or ``7,"Smith, J."``.
    """

    text: str

    @property
    def words(self) -> list[str]:
        """The ids where they are several: ``7``, and ``Smith, J.``."""
        words, start = [], 0
        while word := _WORD.match(self.text, start):
            cell = word[1]
            words.append(unquoted(cell) if is_quoted(cell) else cell)
            start = word.end()
            if not word[2]:
                break
        return words

    @property
    def possible(self) -> list[str]:
        """Every id that the text may name."""
        return list(dict.fromkeys([self.text, *self.words]))

    def among(self, is_known: Callable[[str], bool]) -> list[str]:
        """The ids that are meant: the whole text where it is one, or else its words."""
        return [self.text] if is_known(self.text) else self.words


def raw_id(value: object) -> str:
    """A raw id as Python's own text: of numpy and pandas too, and of whole numbers.

    Raises:
        ConfigError: the id is neither a text nor a whole number.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    raise ConfigError(
        f"{value!r} is no id: ids are texts or whole numbers. Convert them, for example with "
        "Series.astype(str)."
    )


def check_ids(what: str, ids: Any, kind: Literal["item", "user"] = "item") -> None:
    """Refuse what is no list of raw ids; a text would be read letter by letter.

    Args:
        what: name of the argument, for the message.
        ids: its value.
        kind: what the ids are of.

    Raises:
        ConfigError: it is a text, or no collection at all.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Collection):
        raise ConfigError(f"{what} must be a list of {kind} ids, got {ids!r:.80}.")


def choosers(users: Any) -> list[list[str]]:
    """Raw ids of the users who chose each of some new items.

    Args:
        users: for each item a list of raw user ids, texts or whole numbers.

    Raises:
        ConfigError: it is no list of lists, or an entry is no id.
    """
    is_list = isinstance(users, Collection) and not isinstance(users, str | bytes | Mapping)
    if not is_list or any(isinstance(chosen, str | bytes) for chosen in users):
        raise ConfigError(
            f"users must hold a list of user ids for each new item, got {users!r:.80}. Write for "
            'example users=[["12", "7"]] for one item that two users chose.'
        )
    for chosen in users:
        check_ids("users of a new item", chosen, "user")
    return [[raw_id(user) for user in chosen] for chosen in users]


def read_ids(file: str, kind: Literal["item", "user"] = "item") -> list[str]:
    """Raw ids, one a line, without repetitions; empty lines do not count.

    Args:
        file: a text file.
        kind: what the ids are of, for the messages.

    Raises:
        ConfigError: the file is missing, is no UTF-8 text, or names nothing.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}). Give a text file with one raw {kind} id a line."
        ) from error
    ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise ConfigError(f"{file} names no {kind}. Give one raw {kind} id a line.")
    return ids
