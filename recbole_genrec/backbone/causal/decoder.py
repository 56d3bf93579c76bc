"""Stepwise decoding of a decoder-only model whose beams share the prompt.

The beams of a step enter as one block of tokens with explicit positions and a mask that shows each
token the prompt and its own ancestors. Prompt keys and values are computed once per user; the cache
only grows by the block and is never copied or reordered.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_genrec.backbone.beam_cache import BeamCache, visible_paths
from recbole_genrec.backbone.protocol import EmbedCode, LogProbs

if TYPE_CHECKING:
    from recbole_genrec.backbone.causal.backbone import CausalBackbone


class CausalDecoder:
    """Next-code log-probabilities for the search (a ``CodeDecoder``).

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``, right-padded.
        lengths: prompt lengths ``[B]`` in tokens.
        embed_code: ``(codes [B, Q], level) -> [B, Q, d_in]``.
        log_probs: ``(states [B, Q, d_out], level) -> float32 [B, Q, V_level]``.
        reserve: tokens for which the cache has room at once.
    """

    def __init__(
        self,
        backbone: CausalBackbone,
        prompt: Tensor,
        lengths: Tensor,
        embed_code: EmbedCode,
        log_probs: LogProbs,
        reserve: int = 128,
    ):
        self.backbone = backbone
        self.embed_code = embed_code
        self.log_probs = log_probs
        self.lengths = lengths
        self.width = prompt.shape[1]
        self.cache, last = read_prompts(backbone, prompt, lengths, reserve)
        self.root = log_probs(last, 0)  # [B, 1, V_0]
        self._prepare()

    def _prepare(self) -> None:
        self.batch_size = len(self.lengths)
        self.device = self.lengths.device
        self.longest = int(self.lengths.max())
        places = torch.arange(self.width, device=self.device)
        valid = places < self.lengths.unsqueeze(1)  # [B, S]
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


SHORTEST = 4  # tokens; a shorter common beginning does not pay for a pass of its own
FEWEST = 256  # tokens of all prompts; fewer are read with their states (both our choice, measured)


def read_prompts(
    backbone: CausalBackbone, prompt: Tensor, lengths: Tensor, reserve: int
) -> tuple[BeamCache, Tensor]:
    """Read prompts; a beginning that all of them share, an instruction, is read once.

    Of many tokens only keys and values are computed, and the last token of each prompt is then
    read once more for its state.

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``, right-padded.
        lengths: prompt lengths ``[B]`` in tokens.
        reserve: tokens for which the cache has room behind the prompts.

    Returns:
        The cache, and the states of the last tokens ``[B, 1, d_out]``.
    """
    rows, size, _ = prompt.shape
    backbone.check_length(size)
    users = torch.arange(rows, device=prompt.device)
    places = torch.arange(size, device=prompt.device)
    common = common_beginning(prompt, lengths)
    cache = BeamCache(reserve)
    if common < SHORTEST:
        common = 0
        mask, positions = None, None
    else:
        beginning = BeamCache(0)
        backbone.write_keys(prompt[:1, :common], None, None, beginning)
        cache = beginning.repeated(rows, size - common + reserve)
        positions = places[common:].expand(rows, -1)  # [B, S - P]
        mask = (places <= places[common:].unsqueeze(1))[None, None]  # [1, 1, S - P, S]

    rest = prompt[:, common:]
    if rows * (size - common) < FEWEST:
        states = backbone(rest, mask, positions, cache)  # [B, S - P, d_out]
        return cache, states[users, lengths - 1 - common].unsqueeze(1)
    backbone.write_keys(rest, mask, positions, cache)
    ends = (lengths - 1).unsqueeze(1)  # [B, 1]
    sees = torch.cat([places < ends, torch.ones_like(ends, dtype=torch.bool)], dim=1)  # [B, S + 1]
    last = backbone(prompt[users, lengths - 1].unsqueeze(1), sees[:, None, None], ends, cache)
    cache.rewind(size)
    return cache, last


def common_beginning(prompt: Tensor, lengths: Tensor) -> int:
    """Tokens with which all prompts begin; the last token of a prompt is never among them.

    Args:
        prompt: embeddings ``[B, S, d_in]``.
        lengths: ``[B]``.
    """
    if len(prompt) < 2:
        return 0
    same = (prompt == prompt[:1]).all(-1).all(0)  # [S]
    return min(int(same.cumprod(0).sum()), int(lengths.min()) - 1)
