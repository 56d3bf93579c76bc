"""Stepwise decoding of an encoder-decoder whose beams share the encoded source."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.backbone.beam_cache import BeamCache, visible_paths
from recbole_genrec.backbone.live_queries import LiveQueries
from recbole_genrec.backbone.protocol import EmbedCode, LogProbs

if TYPE_CHECKING:
    from recbole_genrec.backbone.encoder_decoder.backbone import (
        EncoderDecoderBackbone,
        EncoderMemory,
    )


class BeamDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``).

    Every block of queries adds its keys and values to a cache that is never reordered or copied; a
    query sees the start token and its own ancestors only.

    Args:
        backbone: the language model, in evaluation mode.
        memory: of the encoded sources of B users, from ``backbone.read``.
        start: embedding ``[d_model]`` of the token that opens every path.
        embed_code: ``(codes [...], level) -> [..., d_model]``.
        log_probs: ``(states [..., d_model], level) -> float32 [..., V_level]``.
        reserve: tokens for which the cache has room at once.
    """

    takes_live = True

    def __init__(
        self,
        backbone: EncoderDecoderBackbone,
        memory: EncoderMemory,
        start: Tensor,
        embed_code: EmbedCode,
        log_probs: LogProbs,
        reserve: int = 128,
    ):
        self.backbone = backbone
        self.memory = memory
        self.embed_code = embed_code
        self.log_probs = log_probs
        self.batch_size = len(memory.mask)
        self.device = memory.mask.device
        self.cache = BeamCache(reserve)
        self._reset()
        first = start.expand(self.batch_size, 1, -1)  # [B, 1, d_model]
        states = backbone.extend(first, memory, self.cache, self.steps, self.sees)
        self.root = log_probs(states, 0)  # [B, 1, V_0]

    def _reset(self) -> None:
        self.level = 0
        self.steps = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.sees = torch.ones(self.batch_size, 1, 1, dtype=torch.bool, device=self.device)

    def start(self) -> Tensor:
        """Return to the root: log-probabilities of the first code, ``[B, 1, V_0]``."""
        self._reset()
        self.cache.rewind(1)
        return self.root

    def step(self, codes: Tensor, parents: Tensor, live: Tensor | None = None) -> Tensor:
        """Append a code to the path of a query of the previous block.

        Args:
            codes: ``[B, Q]``.
            parents: ``[B, Q]``, number of the query in the previous block.
            live: bool ``[B, Q]``, queries whose answer is read.

        Returns:
            Log-probabilities of the following code, ``[B, Q, V_next]``.
        """
        count = codes.shape[1]
        queries = LiveQueries(live)
        self.sees = visible_paths(self.sees, parents)  # [B, Q, M]
        embeddings = self.embed_code(queries.take(codes), self.level)

        self.level += 1
        new_steps = self.steps.new_full((count,), self.level)
        self.steps = torch.cat([self.steps, new_steps])  # [M]
        states = self.backbone.extend(
            embeddings, self.memory, self.cache, self.steps, self.sees, queries
        )
        return queries.put(self.log_probs(states, self.level))

    def select(self, rows: Tensor) -> BeamDecoder:
        """A decoder at the root for some of the users."""
        selected = copy.copy(self)
        selected.memory = self.memory.select(rows)
        selected.root = self.root[rows]
        selected.cache = self.cache.select(rows, 1)
        selected.batch_size = len(rows)
        selected._reset()
        return selected
