"""Stepwise decoding of an encoder-decoder whose beams share the encoded history."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recbole_genrec.backbone.causal.backbone import BeamCache, own_paths
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderDecoderBackbone, Memory
from recbole_genrec.backbone.live_queries import LiveQueries


class BeamDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``): histories of B users, queries that share them.

    Every block of queries adds its keys and values to a cache that is never reordered or copied; a query sees the start token and its own
    ancestors only.

    Args:
        backbone: the language model, in evaluation mode.
        memory: of the encoded histories, from ``backbone.memory``.
        start: embedding ``[d_model]`` of the token that opens every path.
        embed_code: ``(codes [...], level) -> [..., d_model]``.
        log_probs: ``(states [..., d_model], level) -> float32 [..., V_level]``.
        reserve: tokens for which the cache has room at once.
    """

    takes_live = True

    def __init__(
        self,
        backbone: EncoderDecoderBackbone,
        memory: Memory,
        start: Tensor,
        embed_code: Callable[[Tensor, int], Tensor],
        log_probs: Callable[[Tensor, int], Tensor],
        reserve: int = 128,
    ):
        self.backbone, self.memory, self.embed_code, self.log_probs = (
            backbone,
            memory,
            embed_code,
            log_probs,
        )
        self.batch_size, self.device = len(memory.mask), memory.mask.device
        self.cache = BeamCache(reserve)
        self._reset()
        states = backbone.extend(
            start.expand(self.batch_size, 1, -1), memory, self.cache, self.steps, self.sees
        )
        self.root = log_probs(states, 0)

    def _reset(self) -> None:
        self.level = 0
        self.steps = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.sees = torch.ones(self.batch_size, 1, 1, dtype=torch.bool, device=self.device)

    def start(self) -> Tensor:
        """Back to the root: log-probabilities of the first code, ``[B, 1, V_0]``."""
        self._reset()
        self.cache.rewind(1)
        return self.root

    def step(self, codes: Tensor, parents: Tensor, live: Tensor | None = None) -> Tensor:
        """Append a code to the path of a query of the previous block.

        Args:
            codes: ``[B, Q]``. parents: ``[B, Q]``, index of the query in the previous block. live: bool ``[B, Q]``, queries whose answer
                matters.

        Returns:
            Log-probabilities of the following code, ``[B, Q, V_next]``.
        """
        count = codes.shape[1]
        self.sees = own_paths(self.sees, parents)
        some = LiveQueries(live)
        embeddings = self.embed_code(some.take(codes), self.level)
        self.level += 1
        self.steps = torch.cat([self.steps, self.steps.new_full((count,), self.level)])
        states = self.backbone.extend(
            embeddings, self.memory, self.cache, self.steps, self.sees, some
        )
        return some.put(self.log_probs(states, self.level))

    def select(self, rows: Tensor) -> BeamDecoder:
        """A decoder at the root for some of the users."""
        part = object.__new__(BeamDecoder)
        part.backbone, part.embed_code, part.log_probs = (
            self.backbone,
            self.embed_code,
            self.log_probs,
        )
        part.memory, part.root, part.cache = (
            self.memory.select(rows),
            self.root[rows],
            self.cache.select(rows, 1),
        )
        part.batch_size, part.device = len(rows), self.device
        part._reset()
        return part
