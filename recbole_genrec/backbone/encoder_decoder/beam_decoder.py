"""Stepwise decoding of an encoder-decoder whose beams share the encoded source."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from recbole_genrec.backbone.encoder_decoder.backbone import EncoderDecoderBackbone, EncoderMemory
from recbole_genrec.backbone.encoder_decoder.path_cache import PathCache
from recbole_genrec.backbone.live_queries import LiveQueries
from recbole_genrec.backbone.protocol import EmbedCode, LogProbs


class BeamDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``).

    The keys and values of every query are kept, never reordered or copied when beams are; a query
    reads those of the start token, of its ancestors and its own.

    Args:
        backbone: the language model, in evaluation mode.
        memory: of the encoded sources of B users, from ``backbone.read``.
        start: embedding ``[d_model]`` of the token that opens every path.
        embed_code: ``(codes [...], level) -> [..., d_model]``.
        log_probs: ``(states [..., d_model], level) -> float32 [..., V_level]``.
    """

    takes_live = True

    def __init__(
        self,
        backbone: EncoderDecoderBackbone,
        memory: EncoderMemory,
        start: Tensor,
        embed_code: EmbedCode,
        log_probs: LogProbs,
    ):
        self.backbone = backbone
        self.memory = memory
        self.embed_code = embed_code
        self.log_probs = log_probs
        self.batch_size = len(memory.mask)
        self.device = memory.mask.device
        self.cache = PathCache()
        self._reset()
        first = start.expand(self.batch_size, 1, -1)  # [B, 1, d_model]
        states = backbone.extend(first, memory, self.cache, self.paths.flatten(0, 1))
        self.root = log_probs(states, 0)  # [B, 1, V_0]

    def _reset(self) -> None:
        """Back to the start tokens, whose rows in the cache are those of the users."""
        self.level = 0
        self.paths = torch.arange(self.batch_size, device=self.device).view(-1, 1, 1)  # [B, 1, 1]

    def start(self) -> Tensor:
        """Return to the root: log-probabilities of the first code, ``[B, 1, V_0]``."""
        self._reset()
        self.cache.rewind(self.batch_size)
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
        queries = LiveQueries(live)
        embeddings = self.embed_code(queries.take(codes), self.level)
        paths = self._extended_paths(parents, queries)
        states = self.backbone.extend(embeddings, self.memory, self.cache, paths, queries)
        self.level += 1
        return queries.put(self.log_probs(states, self.level))

    def _extended_paths(self, parents: Tensor, queries: LiveQueries) -> Tensor:
        """The rows in the cache along the path of each live query, ``[N, T]``."""
        steps = self.paths.shape[-1]
        index = parents.unsqueeze(-1).expand(-1, -1, steps)
        ancestors = queries.take(self.paths.gather(1, index)).flatten(0, -2)  # [N, T - 1]
        itself = torch.arange(len(ancestors), device=self.device) + self.cache.size
        paths = torch.cat([ancestors, itself.unsqueeze(1)], dim=1)  # [N, T]
        if queries.rows is None:
            self.paths = paths.view(*parents.shape, steps + 1)  # [B, Q, T]
        else:
            self.paths = queries.put(paths)
        return paths

    def select(self, rows: Tensor) -> BeamDecoder:
        """A decoder at the root for some of the users."""
        selected = copy.copy(self)
        selected.memory = self.memory.select(rows)
        selected.root = self.root[rows]
        selected.cache = self.cache.select(rows)
        selected.batch_size = len(rows)
        selected._reset()
        return selected
