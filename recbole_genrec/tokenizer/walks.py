"""Random walks on the graph of users and items: the meta-path user-item-user-item-..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    """Users and items as nodes, their interactions as edges.

    The items are nodes 0 .. n_items - 1, the users follow; both in the order of their raw ids.

    Attributes:
        items: raw ids of the items that have an edge.
        users: raw ids of the users that have an edge.
        first: int64 ``[N + 1]``, where the neighbours of each node begin in ``neighbours``.
        neighbours: int64 ``[2 * edges]``.
    """

    items: list[str]
    users: list[str]
    first: np.ndarray
    neighbours: np.ndarray

    @classmethod
    def of(cls, sequences: Mapping[str, Sequence[str]]) -> BipartiteGraph:
        """The graph of some interactions; an edge that occurs twice counts once.

        Args:
            sequences: raw item ids by raw user id.
        """
        users = sorted(user for user, sequence in sequences.items() if len(sequence))
        items = sorted({item for user in users for item in sequences[user]})
        number = {item: row for row, item in enumerate(items)}

        counts = [len(sequences[user]) for user in users]
        user_nodes = len(items) + np.repeat(np.arange(len(users)), counts)
        item_nodes = np.array(
            [number[item] for user in users for item in sequences[user]], dtype=np.int64
        )
        one_way = np.stack([user_nodes, item_nodes])  # [2, edges]
        edges = np.unique(np.concatenate([one_way, one_way[::-1]], axis=1), axis=1)
        degree = np.bincount(edges[0], minlength=len(items) + len(users))
        first = np.concatenate([[0], degree.cumsum()])
        return cls(items, users, first, edges[1])

    @property
    def n_nodes(self) -> int:
        """N, the number of users and items."""
        return len(self.first) - 1

    def walks(self, per_node: int, length: int, seed: int) -> np.ndarray:
        """Walks that go on to a neighbour chosen uniformly; users and items take turns.

        Args:
            per_node: walks that start at each node.
            length: nodes of a walk.
            seed: of the choices.

        Returns:
            Nodes int32 ``[N * per_node, length]``.
        """
        draw = np.random.default_rng(seed)
        degree = np.diff(self.first)
        node = np.repeat(np.arange(self.n_nodes), per_node)
        walks = np.empty((len(node), length), dtype=np.int32)
        for step in range(length):
            walks[:, step] = node
            place = (draw.random(len(node)) * degree[node]).astype(np.int64)
            node = self.neighbours[self.first[node] + place]
        return walks
