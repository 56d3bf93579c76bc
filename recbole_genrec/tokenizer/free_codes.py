"""Codes that no item has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from recbole_genrec.errors import ConfigError


class FreeCodes:
    """Which ids are taken, counted under every prefix, so that a full branch is skipped at once.

    Args:
        codes: int64 ``[n, L]``, the taken ids. sizes: alphabet size of each level.
    """

    def __init__(self, codes: Tensor, sizes: Sequence[int]) -> None:
        self.depth = len(sizes)
        self.used = Counter(
            row[:depth]
            for row in set(map(tuple, codes.tolist()))
            for depth in range(self.depth + 1)
        )
        self.room = [math.prod(sizes[depth:]) for depth in range(self.depth + 1)]

    def full(self, prefix: tuple[int, ...]) -> bool:
        """Whether no id below ``prefix`` (a whole id: the id itself) is free."""
        return self.used[prefix] >= self.room[len(prefix)]

    def add(self, codes: tuple[int, ...]) -> None:
        """The free id ``codes`` is taken from now on."""
        self.used.update(codes[:depth] for depth in range(self.depth + 1))

    def take(
        self, own: Sequence[int], rank: Callable[[tuple[int, ...]], Sequence[int]]
    ) -> tuple[tuple[int, ...], int]:
        """Take the free id that keeps the longest prefix of ``own``.

        After the prefix, it has at each level the first free code of ``rank(prefix)``.

        Also returns how many codes of ``own`` were kept.
        """
        kept = next(
            (depth for depth in range(len(own), -1, -1) if not self.full(tuple(own[:depth]))), None
        )
        if kept is None:
            raise ConfigError(
                f"All {self.room[0]} ids are taken; raise codebook_sizes or the spare values of "
                "the extra token."
            )
        codes = tuple(own[:kept])
        while len(codes) < self.depth:
            codes += next((code,) for code in rank(codes) if not self.full((*codes, code)))
        self.add(codes)
        return codes, kept
