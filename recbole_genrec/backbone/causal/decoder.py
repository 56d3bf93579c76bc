"""Stepwise decoding of a decoder-only model whose beams share the prompt.

The beams of a step enter as one block of tokens with explicit positions and a mask that shows each
token the prompt and its own ancestors. Prompt keys and values are computed once per user; the cache
only grows by the block and is never copied or reordered.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from recbole_genrec.backbone.beam_cache import RESERVE, visible_paths
from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.causal.prompts import read_prompts
from recbole_genrec.backbone.protocol import EmbedCode, LogProbs
from recbole_genrec.backbone.sequences import length_mask


class CausalDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``).

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``, right-padded.
        lengths: prompt lengths ``[B]`` in tokens.
        embed_code: ``(codes [B, Q], level) -> [B, Q, d_in]``.
        log_probs: ``(states [B, Q, d_out], level) -> float32 [B, Q, V_level]``.
    """

    def __init__(
        self,
        backbone: CausalBackbone,
        prompt: Tensor,
        lengths: Tensor,
        embed_code: EmbedCode,
        log_probs: LogProbs,
    ):
        self.backbone = backbone
        self.embed_code = embed_code
        self.log_probs = log_probs
        self.lengths = lengths
        self.width = prompt.shape[1]
        self.cache, last = read_prompts(backbone, prompt, lengths, RESERVE)
        self.root = log_probs(last, 0)  # [B, 1, V_0]
        self._prepare()

    def _prepare(self) -> None:
        self.batch_size = len(self.lengths)
        self.device = self.lengths.device
        self.longest = int(self.lengths.max())
        valid = length_mask(self.lengths, self.width)  # [B, S]
        self.sees_prompt = valid.unsqueeze(1)  # [B, 1, S]
        self.start()

    def start(self) -> Tensor:
        """Return to the root: log-probabilities of the first code, ``[B, 1, V_0]``."""
        self.level = 0
        self.cache.rewind(self.width)
        self.sees = self.sees_prompt.new_zeros(self.batch_size, 1, 0)
        return self.root

    def step(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Append a code to the path of a query of the previous block.

        Args:
            codes: ``[B, Q]``.
            parents: ``[B, Q]``, number of the query in the previous block.

        Returns:
            Log-probabilities of the following code, ``[B, Q, V_next]``.
        """
        count = codes.shape[1]
        self.backbone.check_length(self.longest + self.level + 1)
        self.sees = visible_paths(self.sees, parents)  # [B, Q, M]
        visible = torch.cat([self.sees_prompt.expand(-1, count, -1), self.sees], dim=-1)
        positions = (self.lengths + self.level).unsqueeze(1).expand(-1, count)  # [B, Q]
        embeddings = self.embed_code(codes, self.level)  # [B, Q, d_in]

        self.level += 1
        states = self.backbone(embeddings, visible.unsqueeze(1), positions, self.cache)
        return self.log_probs(states, self.level)

    def select(self, rows: Tensor) -> CausalDecoder:
        """A decoder at the root for some of the users."""
        selected = copy.copy(self)
        selected.lengths = self.lengths[rows]
        selected.root = self.root[rows]
        selected.cache = self.cache.select(rows, self.width)
        selected._prepare()
        return selected
