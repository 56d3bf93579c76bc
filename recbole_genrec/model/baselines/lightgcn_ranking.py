"""LightGCN's vectors, as TokenRec gets them, rank items: what its quantiser must beat."""

from __future__ import annotations

import logging
from dataclasses import fields

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn.functional import normalize

from recbole_genrec.collaborative.lightgcn_vectors import GraphVectors, graph_vectors


class LightGCNDot(SequentialRecommender):
    """Items by the dot product of LightGCN's propagated vectors (keys ``graph_*``).

    Nothing is trained besides these vectors. Users without training interactions get their vector
    from their history, as in TokenRec.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        graph = graph_vectors(config, dataset, logging.getLogger().info)
        for field in fields(GraphVectors):
            self.register_buffer(field.name, getattr(graph, field.name))
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's trainer needs a parameter

    def calculate_loss(self, interaction) -> Tensor:
        """Zero: the constructor has fitted the vectors.

        Args:
            interaction: RecBole's batch.
        """
        return 0 * self.nothing.sum()

    def full_sort_predict(self, interaction) -> Tensor:
        """Scores of all items.

        Args:
            interaction: RecBole's batch of B users.

        Returns:
            float32 ``[B, n_items]``; the padding item has -inf.
        """
        users, items = self._vectors(interaction)
        scores = users @ items.T
        scores[:, 0] = -torch.inf
        return scores

    def predict(self, interaction) -> Tensor:
        """Score of the candidate item of each row.

        Args:
            interaction: RecBole's batch of B users.

        Returns:
            float32 ``[B]``.
        """
        users, items = self._vectors(interaction)
        candidates = items[interaction[self.ITEM_ID]]  # [B, d]
        return (users * candidates).sum(1)

    def _vectors(self, interaction) -> tuple[Tensor, Tensor]:
        """Vectors of the users in the batch ``[B, d]`` and of all items ``[n_items, d]``."""
        graph = GraphVectors(self.user_layers, self.item_layers, self.user_degree, self.item_degree)
        user = interaction[self.USER_ID]
        is_known = self.user_degree[user] > 0
        users = graph.users[user]
        if not bool(is_known.all()):
            users[~is_known] = graph.new_users(interaction[self.ITEM_SEQ][~is_known])
        return users, graph.items


class LightGCNCosine(LightGCNDot):
    """Items by the cosine of the same vectors, as TokenRec compares its vectors."""

    def _vectors(self, interaction) -> tuple[Tensor, Tensor]:
        users, items = super()._vectors(interaction)
        return normalize(users), normalize(items)
