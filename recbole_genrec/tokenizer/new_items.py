"""Items that appear after a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from recbole_genrec.data.given_ids import choosers


@dataclass(frozen=True)
class NewItems:
    """Items that appear after the fit. A tokenizer takes what it can use of them.

    Attributes:
        texts: one text an item.
        vectors: float ``[n, D]``, what the tokenizer quantises, in place of vectors that it would
            make of the texts itself; for example of the collaborative model it was fitted to.
        users: for each item the raw ids of users in training who chose it.

    Raises:
        ConfigError: ``users`` is no list of lists of ids.
    """

    texts: Sequence[str]
    vectors: Tensor | None = None
    users: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if self.users is not None:
            object.__setattr__(self, "users", choosers(self.users))

    def __len__(self) -> int:
        return len(self.texts)
