"""What methods share that rank items by vectors, without a search.

A method writes three functions: :meth:`VectorRecommender.loss`, :meth:`VectorRecommender.project`
and :meth:`VectorRecommender.item_vectors`. Scores and kept vectors stand here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from recbole_genrec.data.vectors.item_vectors import vectors_replace_text
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.stored import TextUse
from recbole_genrec.model.weights_cache import WeightsCache
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.shared_keys import SharedSettings


class VectorMethodSettings(SharedSettings):
    """Keys of every method that ranks by vectors."""

    mask_history: bool = key("older name of exclude_history: True", default=False, affects="search")


class VectorRecommender(GenRecModel):
    """A sequential recommender that compares one vector for a history with one for each item.

    A method whose items are several vectors (SETRec) joins them to one: the inner product of the
    joined vectors is the sum of the inner products.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint.
    """

    settings_class: ClassVar[type[VectorMethodSettings]] = VectorMethodSettings
    settings: VectorMethodSettings

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._ranked_vectors = WeightsCache()
        if stored is None:
            self._say_unread_vectors()

    @classmethod
    def text_use(cls, config) -> TextUse:
        """As the base's; content vectors are made of texts, unless those of a file replace them."""
        if cls.reads_vectors(config) and not vectors_replace_text(config):
            return "required"
        return super().text_use(config)

    # --- what a method writes ---------------------------------------------------------------------

    def project(self, history: Tensor, length: Tensor, user: Tensor | None = None) -> Tensor:
        """The vectors ``[B, d]`` that the next items should be near to, in evaluation.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            user: with ``uses_users``, user ids ``[B]``; ``None`` for people outside the dataset.
        """
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        """Vectors of all items, ``[n_items, d]``, row 0 = padding.

        Evaluation keeps them until the weights change; in training they carry gradients.
        """
        raise NotImplementedError

    def similarity(self, projected: Tensor, vectors: Tensor) -> Tensor:
        """Scores ``[B, n_items]``, by default inner products; both arguments are float32.

        Args:
            projected: ``[B, d]``.
            vectors: ``[n_items, d]``.
        """
        return projected @ vectors.T

    # --- ranking ----------------------------------------------------------------------------------

    def scores(self, history: Tensor, length: Tensor, user: Tensor | None = None) -> Tensor:
        """:meth:`similarity` to all items, ``[B, n_items]``; one pass, no search."""
        projected = self.project(history, length, user)  # [B, d]
        vectors = self._ranked_vectors.get(self, self.item_vectors)  # [n_items, d]
        # bf16 and fp16 would let many items tie
        with torch.autocast(projected.device.type, enabled=False):
            return self.similarity(projected.float(), vectors.float())  # [B, n_items]

    def append_items(
        self, texts: Sequence[str], tokens: Sequence[str], /, **rows: Tensor
    ) -> list[int]:
        """As the base's; the kept item vectors are stale."""
        self._ranked_vectors.clear()
        return super().append_items(texts, tokens, **rows)

    def train(self, mode: bool = True) -> VectorRecommender:
        """As torch's; training makes the kept item vectors stale."""
        if mode:
            self._ranked_vectors.clear()
        return super().train(mode)
