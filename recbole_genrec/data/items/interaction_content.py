"""What the training split says about the items, for tokenizers that look at it."""

from __future__ import annotations

from itertools import chain
from logging import getLogger
from typing import Protocol

import numpy as np

from recbole_genrec.data.ids import places_of
from recbole_genrec.errors import DataError

logger = getLogger(__name__)


class Interactions(Protocol):
    """What may be learned from interactions.

    :class:`~recbole_genrec.collaborative.training_interactions.TrainingInteractions` reads the
    training split alone.
    """

    @property
    def fingerprint(self) -> str:
        """Digest of all that :meth:`vectors` and :attr:`sequences` depend on."""

    @property
    def sequences(self) -> dict[str, list[str]]:
        """Raw item ids of each user in the order of time."""

    def vectors(self) -> tuple[list[str], np.ndarray]:
        """Raw ids of n items and their collaborative vectors, float32 ``[n, d]``."""

    @property
    def graph_fingerprint(self) -> str:
        """Digest of all that :meth:`graph` depends on."""

    def graph(self) -> tuple[list[str], np.ndarray]:
        """The same as :meth:`vectors` from the graph of users and items."""


class InteractionContent:
    """Vectors and sequences of items that come from the training interactions.

    Attributes:
        tokens: raw item ids by RecBole item id; entry 0 is the padding item.
        interactions: of the training split, or ``None``.
    """

    tokens: list[str]
    interactions: Interactions | None
    _collaborative: tuple[np.ndarray, np.ndarray] | None

    @property
    def n_items(self) -> int:
        """Number of items, the padding item included."""
        return len(self.tokens)

    @property
    def interactions_fingerprint(self) -> str:
        """Digest of the training interactions and of the settings of the collaborative vectors.

        Part of the key of what uses them.
        """
        return self._source().fingerprint

    def collaborative(self) -> np.ndarray:
        """Collaborative vectors, float32 ``[n_items, d]``, made on first use and kept.

        Zero in row 0 and where :attr:`trained` is False.

        Raises:
            DataError: ``interactions`` is not set, or no item of this content has a vector.
        """
        return self._aligned_vectors()[0]

    @property
    def graph_fingerprint(self) -> str:
        """Digest of all that :meth:`graph` depends on."""
        return self._source().graph_fingerprint

    def graph(self) -> np.ndarray:
        """LightGCN's propagated vectors, float32 ``[n_items, d]``.

        Zero in row 0 and for items without training interactions.

        Raises:
            DataError: ``interactions`` is not set, or no item of this content has a vector.
        """
        return self._aligned(*self._source().graph())[0]

    @property
    def trained(self) -> np.ndarray:
        """Which items have a collaborative vector, bool ``[n_items]``.

        Those of the training split, or of ``cf_file``.
        """
        return self._aligned_vectors()[1]

    def item_sequences(self) -> list[np.ndarray]:
        """Item ids of each user's training interactions, oldest first, int64.

        Users in the order of their raw ids.

        Raises:
            DataError: ``interactions`` is not set, or an interaction names an item that this
                content lacks.
        """
        sequences = list(self._source().sequences.values())
        tokens = list(chain.from_iterable(sequences))
        rows = places_of(tokens, self.tokens)
        if (rows < 0).any():
            raise DataError(
                f"Item {tokens[rows.argmin()]!r} of the training split is not in this item "
                "content; take both from one dataset."
            )
        ends = np.cumsum([len(items) for items in sequences])
        return np.split(rows, ends)[:-1]

    def user_sequences(self) -> dict[str, list[str]]:
        """Raw item ids of each user's training interactions, oldest first, by raw user id.

        Raises:
            DataError: ``interactions`` is not set.
        """
        return self._source().sequences

    def _source(self) -> Interactions:
        if self.interactions is None:
            raise DataError(
                "This item content knows no interactions. Set content.interactions = "
                "TrainingInteractions(config) "
                "(recbole_genrec.collaborative.training_interactions), or use a tokenizer that "
                "needs item text only."
            )
        return self.interactions

    def _aligned_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        if self._collaborative is None:
            self._collaborative = self._aligned(*self._source().vectors())
        return self._collaborative

    def _say_without_vector(self, known: np.ndarray) -> None:
        missing = [self.tokens[row] for row in np.flatnonzero(~known) if row > 0]
        if missing:
            logger.warning(
                "%d of %d items have no collaborative vector, because they occur in no training "
                "interaction or their file lacks them (%s). They take the zero vector.",
                len(missing),
                self.n_items - 1,
                ", ".join(missing[:5]),
            )

    def _aligned(self, tokens: list[str], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = places_of(self.tokens, tokens)
        rows[0] = -1  # padding
        known = rows >= 0
        self._say_without_vector(known)
        if not known.any():
            raise DataError(
                f"None of the {self.n_items - 1} items has a collaborative vector (they exist for "
                f"{tokens[:3]}, ...)."
            )
        return np.where(known[:, None], vectors[rows], np.float32(0)), known
