"""New items of a trained model: which of them have a place, and which stay out of the lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_genrec.data.item_text import PLACEHOLDER
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.model.stored import StoredModel


class TakesNewItems(StoredModel):
    """How items come in after the training.

    A part of :class:`~recbole_genrec.model.base.GenRecModel`.

    Attributes:
        places_by_text: whether :meth:`add_items` needs no more than the texts of new items.
    """

    places_by_text: bool = False

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
                added = self.add_items(
                    [texts[row] or PLACEHOLDER for row in rows],
                    [tokens[row] for row in rows],
                    **self._facts_of_new_items([users[row] for row in rows]),
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
        if self.reads_new_texts:
            bare = [token for token, text in zip(tokens, texts, strict=True) if not text.strip()]
            lacks |= dict.fromkeys(bare, "they have no text in the .item file.")
        return lacks

    @property
    def reads_new_texts(self) -> bool:
        """Whether the place of a new item comes from its text."""
        return self.requires_texts(self.config)

    def has_learned(self, user: str) -> bool:
        """Whether a user, by raw id, can say where a new item belongs."""
        return self.catalogue.has_user(user)

    def _facts_of_new_items(self, users: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Further arguments of :meth:`add_items`.

        Args:
            users: as in :meth:`lacks_of_new_items`.
        """
        return {}

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
