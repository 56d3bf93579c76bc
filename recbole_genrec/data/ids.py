"""Raw ids: lists of them in files, and rows that follow them from one dataset to another."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import torch

from recbole_genrec.data.cells import is_quoted, unquoted
from recbole_genrec.errors import ArtefactError, ConfigError

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


def raw_ids(dataset) -> dict[str, list[str]]:
    """Raw ids of the ``items`` and ``users`` of a RecBole dataset, by its internal ids."""
    fields = {"items": dataset.iid_field, "users": dataset.uid_field}
    return {name: list(map(str, dataset.field2id_token[field])) for name, field in fields.items()}


def history_column(config) -> str:
    """Name of the column of histories, in files and in RecBole's batches."""
    return f"{config.settings.ITEM_ID_FIELD}{config.settings.LIST_SUFFIX}"


def rows_in_order_of_ids(tokens: Sequence[str]) -> list[int]:
    """Rows of raw ids in the order of these ids, whatever numbers they have; the first stays."""
    return [0, *sorted(range(1, len(tokens)), key=tokens.__getitem__)]


def rows_by_token(
    values: torch.Tensor, tokens: Sequence[str], order: Sequence[str], dim: int = 0
) -> torch.Tensor:
    """Rows of a table in another order of the raw ids.

    Args:
        values: ``[..., n, ...]``, with the n rows along ``dim``.
        tokens: raw id of each of the n rows.
        order: the m raw ids to put them in, the first of them padding.
        dim: where the rows stand.

    Returns:
        ``[..., m, ...]``; zero for padding and for ids that ``tokens`` does not have.
    """
    row = {token: number for number, token in enumerate(tokens)}
    rows = torch.tensor(
        [len(tokens), *(row.get(token, len(tokens)) for token in order[1:])], device=values.device
    )
    return torch.cat([values, torch.zeros_like(values.narrow(dim, 0, 1))], dim).index_select(
        dim, rows
    )


def check_same_ids(stored: dict[str, list[str]], dataset, names: Sequence[str]) -> None:
    """Refuse a dataset whose internal ids are others than those of a checkpoint's vectors.

    Args:
        stored: raw ids of the checkpoint, by name.
        dataset: RecBole's dataset.
        names: ``items``, ``users``, or both.

    Raises:
        ArtefactError: the ids are others, or stand in another order.
    """
    here = raw_ids(dataset)
    for name in names:
        if here[name] != stored[name]:
            kind = (
                "stand in another order in"
                if sorted(here[name]) == sorted(stored[name])
                else "are others than those of"
            )
            raise ArtefactError(
                f"The {name} of {dataset.dataset_name} {kind} the data that the checkpoint was "
                "trained on, and its vectors belong to RecBole's numbers for them. Point "
                "--data_path at the data it was trained on, or train the model again."
            )


def read_ids(file: str, kind: Literal["item", "user"] = "item") -> list[str]:
    """Raw ids, one a line, without repetitions; empty lines do not count.

    Args:
        file: a text file.
        kind: what the ids are of, for the messages.

    Raises:
        ConfigError: the file is missing, is no UTF-8 text, or names nothing.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}). Give a text file with one raw {kind} id a line."
        ) from error
    ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise ConfigError(f"{file} names no {kind}. Give one raw {kind} id a line.")
    return ids
