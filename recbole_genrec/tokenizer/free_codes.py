"""Codes that no item has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from recbole_genrec.errors import ConfigError

NEVER_FULL = 2**40
"""A branch with room for this many ids cannot be full, so nothing is counted there."""


class FreeCodes:
    """Which ids are taken, counted under every prefix, so that a full branch is skipped at once.

    Args:
        codes: int64 ``[n, L]``, the taken ids.
        sizes: alphabet size of each level.
    """

    def __init__(self, codes: Tensor, sizes: Sequence[int]) -> None:
        self.depth = len(sizes)
        self.room = [math.prod(sizes[depth:]) for depth in range(self.depth + 1)]
        self.counted = [depth for depth, room in enumerate(self.room) if room < NEVER_FULL]
        taken = set(map(tuple, codes.tolist()))
        self.used = Counter(row[:depth] for row in taken for depth in self.counted)

    def full(self, prefix: tuple[int, ...]) -> bool:
        """Whether no id below ``prefix`` (a whole id: the id itself) is free."""
        return self.used[prefix] >= self.room[len(prefix)]

    def add(self, codes: tuple[int, ...]) -> None:
        """The free id ``codes`` is taken from now on."""
        self.used.update(codes[:depth] for depth in self.counted)

    def take(
        self, learned: Sequence[int], rank: Callable[[tuple[int, ...]], Sequence[int]]
    ) -> tuple[tuple[int, ...], int]:
        """Take the free id that shares the longest prefix with ``learned``.

        Args:
            learned: the codes that the item would have if they were free.
            rank: gives the codes of the next level, best first, by the prefix before them. After
                the shared prefix the id has the first free one at each level.

        Returns:
            The id, and the length of the shared prefix.

        Raises:
            ConfigError: every id is taken.
        """
        depths = range(len(learned), -1, -1)
        shared = next((depth for depth in depths if not self.full(tuple(learned[:depth]))), None)
        if shared is None:
            raise ConfigError(
                f"All {self.room[0]} ids are taken; raise codebook_sizes or the spare values of "
                "the extra token."
            )
        codes = tuple(learned[:shared])
        while len(codes) < self.depth:
            codes += next((code,) for code in rank(codes) if not self.full((*codes, code)))
        self.add(codes)
        return codes, shared
