"""Codes of users beside those of items.

What is fitted to, what a fit returns, and its tokenizers.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.data.ids import rows_in_order_of_ids
from recbole_genrec.errors import ArtefactError, DataError
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer.base import Tokenizer
from recbole_genrec.tokenizer.codes import FIT_AGAIN, ItemCodes
from recbole_genrec.tokenizer.collision import item_groups

if TYPE_CHECKING:
    from recbole_genrec.data.items.interaction_content import Interactions

SIDES = ("items", "users")
ENTITIES = "entities.json"
"""File that says how the codes of both sides belong together."""


@dataclass(frozen=True, eq=False)
class EntityCodes:
    """Codes of all items and of all users.

    Attributes:
        items: codes of the items, row 0 = padding.
        users: codes of the users, row 0 = padding.
        shared: whether both are written with the same vocabularies. Then no user has the codes of
            an item or of another user, and no two items have equal codes.

    Raises:
        ArtefactError: ``shared`` codes of different sizes, or equal ones.
    """

    items: ItemCodes
    users: ItemCodes
    shared: bool = False

    def __post_init__(self) -> None:
        if self.shared:
            self._check_shared()

    def _check_shared(self) -> None:
        if self.items.sizes != self.users.sizes:
            raise ArtefactError(
                f"Users and items share their vocabularies, but the sizes are "
                f"{list(self.users.sizes)} and {list(self.items.sizes)}. Fit the tokenizer again."
            )
        group, count = item_groups(torch.cat([self.items.codes[1:], self.users.codes[1:]]))
        if len(count) == len(group):
            return
        names = [f"item {token!r}" for token in self.items.tokens[1:]]
        names += [f"user {token!r}" for token in self.users.tokens[1:]]
        twins = torch.nonzero(group == count.argmax()).flatten()[:2].tolist()
        raise ArtefactError(
            f"{names[twins[0]]} and {names[twins[1]]} have the same codes, although users and "
            "items share their vocabularies. Fit the tokenizer again."
        )

    def side(self, name: str) -> ItemCodes:
        """The codes of the ``items`` or of the ``users``."""
        return {"items": self.items, "users": self.users}[name]

    def stats(self) -> dict[str, dict]:
        """:meth:`ItemCodes.stats` of both sides."""
        return {name: self.side(name).stats() for name in SIDES}

    def report(self) -> str:
        """The statistics of both sides as tables for people."""
        return "\n".join(self.side(name).report(name) for name in SIDES)

    def warnings(self) -> list[str]:
        """One message per learned level that collapsed."""
        return [warning for name in SIDES for warning in self.side(name).warnings(name)]

    def aligned(self, items: list[str], users: list[str]) -> EntityCodes:
        """The same codes with rows in the order of these raw ids, "[PAD]" first.

        Raises:
            ArtefactError: these are other items or users.
        """
        return EntityCodes(self.items.aligned(items), self.users.aligned(users), self.shared)

    def save(self, folder: str | os.PathLike) -> None:
        """Store as artefacts, one for each side."""
        for name in SIDES:
            self.side(name).save(Path(folder) / name)
        write_json(Path(folder) / ENTITIES, {"shared": self.shared})

    @classmethod
    def load(cls, folder: str | os.PathLike) -> EntityCodes:
        """Read what :meth:`save` wrote.

        Raises:
            ArtefactError: it is damaged or something else.
        """
        entities = read_json(Path(folder) / ENTITIES, advice=FIT_AGAIN)
        shared = entities.get("shared") is True
        items, users = (ItemCodes.load(Path(folder) / name) for name in SIDES)
        return cls(items, users, shared)


@dataclass(frozen=True, eq=False)
class EntityContent:
    """What a tokenizer of users and items may look at, all by RecBole id; row 0 is padding.

    Attributes:
        items: raw ids.
        users: raw ids.
        item_vectors: collaborative vectors, float32 ``[n_items, d]``, for tokenizers that read
            them.
        user_vectors: the same of the users, ``[n_users, d]``.
        interactions: the training split, for tokenizers that read it.
    """

    items: list[str]
    users: list[str]
    item_vectors: Tensor | None = None
    user_vectors: Tensor | None = None
    interactions: Interactions | None = None

    def tokens(self, side: str) -> list[str]:
        """Raw ids of the ``items`` or of the ``users``."""
        return {"items": self.items, "users": self.users}[side]

    def vectors(self, side: str) -> Tensor:
        """Collaborative vectors of the ``items`` or of the ``users``, ``[n, d]``.

        Raises:
            DataError: there are none.
        """
        vectors = {"items": self.item_vectors, "users": self.user_vectors}[side]
        if vectors is None:
            raise DataError(f"The tokenizer needs vectors of the {side}, and got none.")
        return vectors

    def by_raw_id(self) -> EntityContent:
        """The same in the order of the raw ids, whatever numbers items and users have."""
        item_rows, user_rows = (rows_in_order_of_ids(self.tokens(side)) for side in SIDES)
        return replace(
            self,
            items=[self.items[row] for row in item_rows],
            users=[self.users[row] for row in user_rows],
            item_vectors=None if self.item_vectors is None else self.item_vectors[item_rows],
            user_vectors=None if self.user_vectors is None else self.user_vectors[user_rows],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the ids and of the vectors, whatever their order."""
        ordered = self.by_raw_id()
        values = [
            None if vectors is None else values_digest(vectors)
            for vectors in (ordered.item_vectors, ordered.user_vectors)
        ]
        return digest(ordered.items, ordered.users, values)

    @property
    def interactions_fingerprint(self) -> str:
        """Digest of the training interactions and of all that is learned from them.

        Raises:
            DataError: there are none.
        """
        if self.interactions is None:
            raise DataError("The tokenizer needs training interactions, and got none.")
        return self.interactions.fingerprint


class EntityTokenizer(Tokenizer[EntityContent, EntityCodes]):
    """Turns users and items into codes.

    A new one writes :meth:`fit`; with :meth:`state` and :meth:`set_state` if it learns something
    that new users and items need.
    """

    def describe(self, content: EntityContent) -> str:
        """The numbers of items and of users."""
        return f"{len(content.items) - 1:,} items and {len(content.users) - 1:,} users"

    def aligned(self, codes: EntityCodes, content: EntityContent) -> EntityCodes:
        """As the base says."""
        return codes.aligned(content.items, content.users)

    def load_codes(self, folder: str | os.PathLike) -> EntityCodes:
        """As the base says."""
        return EntityCodes.load(folder)


def values_digest(vectors: Tensor) -> str:
    """SHA-256 of the values of ``vectors``."""
    return hashlib.sha256(vectors.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
