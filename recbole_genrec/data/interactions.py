"""What item content may learn from interactions."""

from __future__ import annotations

from typing import Protocol

import numpy as np


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
