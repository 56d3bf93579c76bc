"""What the search over TimelineRec's codes steps through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from recbole_genrec.backbone.live_queries import LiveQueries


class CodeStates(Protocol):
    """The states along the codes of an item; what a query carries is up to the implementation."""

    def begin(self, states: Tensor) -> Tensor:
        """What queries carry at the root, of states ``[..., d]``."""

    def read(self, carried: Tensor, level: int) -> Tensor:
        """The states that give the logits of a level, ``[..., d]``."""

    def advance(self, carried: Tensor, codes: Tensor, level: int) -> Tensor:
        """What queries carry after one more code, codes of the level ``[...]``."""


class TimelineDecoder:
    """Next-code log-probabilities, a ``CodeDecoder``.

    A query carries one vector, or a sequence of at most L vectors, so there is no cache.

    Args:
        depth: the decoder along the codes, in evaluation mode.
        states: one state per user ``[B, d]``.
        log_probs: ``(states [..., d], level, prefixes [...]) -> float32 [..., V_level]``.
        child: ``(prefixes [...], codes [...], level) -> [...]``: numbers of the prefixes with one
            more code; the empty prefix is 0.
        root: what :meth:`start` returns, where it is known.
    """

    takes_live = True
    carried: Tensor
    prefixes: Tensor

    def __init__(
        self,
        depth: CodeStates,
        states: Tensor,
        log_probs: Callable[[Tensor, int, Tensor], Tensor],
        child: Callable[[Tensor, Tensor, int], Tensor],
        root: Tensor | None = None,
    ):
        self.depth = depth
        self.states = states
        self.log_probs = log_probs
        self.child = child
        self.batch_size = len(states)
        self.device = states.device
        self._return()
        if root is None:
            root = self._next_log_probs(self.carried, self.prefixes)
        self.root = root

    def start(self) -> Tensor:
        """Return to the root.

        Returns:
            Log-probabilities of the first code ``[B, 1, V_0]``.
        """
        self._return()
        return self.root

    def step(self, codes: Tensor, parents: Tensor, live: Tensor | None = None) -> Tensor:
        """Append a code to queries of the previous block.

        Args:
            codes: codes to append ``[B, Q]``.
            parents: number of the query that each code is appended to ``[B, Q]``.
            live: queries whose result matters, bool ``[B, Q]``; default all.

        Returns:
            Log-probabilities of the next code ``[B, Q, V]``.
        """
        live_queries = LiveQueries(live)
        users = torch.arange(self.batch_size, device=self.device).unsqueeze(1).expand_as(parents)
        codes = live_queries.take(codes)
        parents = live_queries.take(parents)
        users = live_queries.take(users)

        carried = self.depth.advance(self.carried[users, parents], codes, self.level)
        prefixes = self.child(self.prefixes[users, parents], codes, self.level)
        self.level += 1
        self.carried = live_queries.put(carried)
        self.prefixes = live_queries.put(prefixes)
        return live_queries.put(self._next_log_probs(carried, prefixes))

    def select(self, rows: Tensor) -> TimelineDecoder:
        """A decoder at the root for some of the users.

        Args:
            rows: rows of the users ``[n]``.
        """
        return TimelineDecoder(
            self.depth, self.states[rows], self.log_probs, self.child, self.root[rows]
        )

    def _return(self) -> None:
        self.level = 0
        self.carried = self.depth.begin(self.states.unsqueeze(1))  # [B, 1, ...]
        self.prefixes = torch.zeros(self.batch_size, 1, dtype=torch.long, device=self.device)

    def _next_log_probs(self, carried: Tensor, prefixes: Tensor) -> Tensor:
        state = self.depth.read(carried, self.level)
        return self.log_probs(state, self.level, prefixes)
