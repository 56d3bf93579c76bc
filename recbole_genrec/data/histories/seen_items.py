"""The items that users have had before a place in the order of events."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class SeenItems:
    """The distinct items of each user, in the order of their first appearance.

    Args:
        users: int64 ``[P]``, users of events.
        items: int64 ``[P]``, their items; 0 is no item.
        places: int64 ``[P]``, when they happened; only the order counts.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, places: np.ndarray):
        real = items > 0
        events = np.stack([users[real], items[real], places[real]])
        by_pair = np.lexsort(events[::-1])
        events = events[:, by_pair]
        first = np.ones(events.shape[1], dtype=bool)
        first[1:] = (events[:2, 1:] != events[:2, :-1]).any(0)
        users, items, places = events[:, first]
        order = np.lexsort([places, users])
        self.users = users[order]
        self.items = items[order]
        self.places = places[order]

        # By user and item, and where each of these pairs stands in the order of events.
        self._pairs = users, items
        self._position = np.argsort(order)

    def ends(self, users: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How many items users have before places in the order of events.

        Args:
            users: int64 ``[n]``.
            places: int64 ``[n]``, one for each of ``users``.

        Returns:
            int64 ``[n]``.
        """
        span = 1 + max(self.places.max(initial=0), places.max(initial=0))
        keys = self.users * span + self.places  # ascending
        place = np.searchsorted(keys, users * span + places)
        return place - np.searchsorted(self.users, users)

    def gather(self, users: np.ndarray, ends: np.ndarray) -> list[Tensor]:
        """The first items of users.

        Args:
            users: int64 ``[n]``.
            ends: int64 ``[n]``, how many items of each.

        Returns:
            Item ids int64 ``[ends]`` of each user, in the order of their first appearance.
        """
        starts = np.searchsorted(self.users, users)
        slices = zip(starts.tolist(), (starts + ends).tolist(), strict=True)
        return [torch.from_numpy(self.items[start:end]) for start, end in slices]

    def contain(self, users: np.ndarray, ends: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether items are among the first ones of users.

        Args:
            users: int64 ``[n]``.
            ends: int64 ``[n]``, how many items of each user count.
            items: int64 ``[n]``, one for each of ``users``.

        Returns:
            bool ``[n]``.
        """
        if not len(self.items):
            return np.zeros(len(users), dtype=bool)
        known_users, known_items = self._pairs
        span = 1 + max(known_items.max(), items.max(initial=0))
        known = known_users * span + known_items  # ascending
        sought = users * span + items
        row = np.searchsorted(known, sought).clip(max=len(known) - 1)
        before = self._position[row] < np.searchsorted(self.users, users) + ends
        return (known[row] == sought) & before
