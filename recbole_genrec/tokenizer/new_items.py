"""Items that appear after a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NewItems:
    """Items that appear after the fit. A tokenizer takes what it can use of them.

    Attributes:
        texts: one text an item.
        vectors: float ``[n, D]``, what the tokenizer quantises, in place of vectors that it would
            make of the texts itself; for example of the collaborative model it was fitted to.
        users: for each item the raw ids of users in training who chose it.
    """

    texts: Sequence[str]
    vectors: Tensor | None = None
    users: Sequence[Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self.texts)
