"""New items of a trained model: which of them have a place, and what its tokenizer sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recbole_genrec.data.items.item_text import PLACEHOLDER
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.model.stored import StoredModel
from recbole_genrec.tokenizer import ItemTokenizer, NewItems


def filled_texts(texts: Sequence[str]) -> list[str]:
    """Texts of new items; an item without one has that of such items in the dataset."""
    return [str(text) if text.strip() else PLACEHOLDER for text in texts]


def new_items_for(
    model: Any,
    tokenizer: ItemTokenizer,
    texts: Sequence[str],
    tokens: Sequence[str],
    vectors: Any,
    users: Sequence[Sequence[str]] | None,
) -> tuple[NewItems, np.ndarray | None]:
    """New items as a tokenizer sees them.

    Vectors that are given are of the kind that the model's own tokenizer reads: collaborative, or
    of the content. A tokenizer of the other kind does not get them.

    Args:
        model: a model with codes.
        tokenizer: its own, or a further one.
        texts: as in ``add_items``.
        tokens: raw ids, as :meth:`Catalogue.new_items` gives them.
        vectors: as in ``add_items``.
        users: as in ``add_items``.

    Returns:
        The items, and their content vectors ``[n, D]`` where ``item_vectors`` is set.

    Raises:
        ConfigError: ``item_vectors`` is set, and an item has no vector.
    """
    are_collaborative = _reads_choices_alone(model.tokenizer)
    of_content = model.content.new_vectors(tokens, None if are_collaborative else vectors)
    texts = filled_texts(texts)
    if of_content is not None and tokenizer.uses_item_vectors:
        vectors = model.content.embed(texts, of_content)
    elif _reads_choices_alone(tokenizer) != are_collaborative:
        vectors = None
    if vectors is not None:
        vectors = torch.as_tensor(vectors)
    return NewItems(texts, vectors, users), of_content


def _reads_choices_alone(tokenizer: ItemTokenizer) -> bool:
    """Whether a tokenizer reads who chose items, and neither texts nor ``item_vectors``."""
    reads_content = tokenizer.uses_text or tokenizer.uses_item_vectors
    return tokenizer.uses_interactions and not reads_content


class TakesNewItems(StoredModel):
    """How items come in after the training.

    A part of :class:`~recbole_genrec.model.base.GenRecModel`.

    Attributes:
        places_by_text: whether :meth:`add_items` needs no more than the texts of new items.
        takes_users_of_items: whether :meth:`add_items` has an argument ``users``, the raw ids of
            those who chose each new item.
    """

    places_by_text: bool = False
    takes_users_of_items: bool = False

    def add_items(self, texts: Sequence[str], tokens: Sequence[str] | None = None) -> list[int]:
        """Make new items recommendable without training.

        A method that can do so makes the rows of its :attr:`tables` and calls :meth:`append_items`.

        Args:
            texts: one text an item.
            tokens: their raw ids; default ``new-<internal id>``.

        Returns:
            Internal ids of the new items.

        Raises:
            ConfigError: this method cannot.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot take in new items without training. Add them to the "
            "dataset and train again."
        )

    def take_in(
        self,
        texts: Sequence[str],
        tokens: Sequence[str],
        titles: Sequence[str],
        users: Sequence[Sequence[str]],
    ) -> list[str]:
        """Add the items that the data of a later day has and the model lacks, where it can.

        Args:
            texts: one text an item, empty for an item that has none.
            tokens: their raw ids.
            titles: the first field of each text.
            users: for each item the raw ids of the users who chose it.

        Returns:
            Raw ids of the items that stay out. The log says why, counts them and names one.
        """
        users = [list(filter(self.has_learned, chosen)) for chosen in users]
        lacks: dict[str, str] = {}
        try:
            lacks = self.lacks_of_new_items(texts, tokens, users)
            rows = [row for row, token in enumerate(tokens) if token not in lacks]
            if rows:
                facts: dict[str, Any] = {}
                if self.takes_users_of_items:
                    facts["users"] = [users[row] for row in rows]
                added = self.add_items(
                    filled_texts([texts[row] for row in rows]),
                    [tokens[row] for row in rows],
                    **facts,
                )
                self.content.set_titles(added, [titles[row] for row in rows])
        except GenRecError as error:
            lacks = {**dict.fromkeys(tokens, str(error)), **lacks}
        self._say_taken_in(tokens, lacks)
        return [token for token in tokens if token in lacks]

    def lacks_of_new_items(
        self, texts: Sequence[str], tokens: Sequence[str], users: Sequence[Sequence[str]]
    ) -> dict[str, str]:
        """Which of some new items have no place, and what they lack, as the end of a sentence.

        Args:
            texts: as in :meth:`take_in`.
            tokens: as in :meth:`take_in`.
            users: for each item the raw ids of those who chose it and :meth:`has_learned` knows.

        Returns:
            What an item lacks, by raw id; nothing for an item that can be placed.
        """
        lacks: dict[str, str] = {}
        vectors = self.content.item_vectors
        if vectors is not None:
            reason = f"{vectors.file} (item_vectors) has no vector of them. Add them to that file."
            lacks |= dict.fromkeys(vectors.missing(tokens), reason)
        if self.text_use(self.config) == "required":
            bare = [token for token, text in zip(tokens, texts, strict=True) if not text.strip()]
            lacks |= dict.fromkeys(bare, "they have no text in the .item file.")
        return lacks

    def has_learned(self, user: str) -> bool:
        """Whether a user, by raw id, can say where a new item belongs."""
        return self.catalogue.has_user(user)

    def _say_taken_in(self, tokens: Sequence[str], lacks: dict[str, str]) -> None:
        """Log how many new items came in, and how many did not and why.

        Args:
            tokens: raw ids of all of them.
            lacks: as :meth:`lacks_of_new_items` gives it.
        """
        n_added = len(tokens) - len(lacks)
        if n_added:
            self.logger.info(f"{n_added} new items of the data were added without training.")
        for reason in dict.fromkeys(lacks.values()):
            items = [token for token, lack in lacks.items() if lack == reason]
            self.logger.warning(
                f"{len(items)} new items of the data stay out of the lists, for example "
                f"{items[0]!r}: {reason}"
            )
