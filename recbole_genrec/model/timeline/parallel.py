"""Parallel codes (RPG, arXiv 2506.05781, sections 2.2 and 2.3): each code given the history alone.

::

    g_m     = h + silu(W_m h + b_m)                        one head a code, ``W_m`` starts at 0
    logit_c = cos(g_m, e_c) / temperature                  among the codes of place m
    p(item) = product of softmax(logit) over its codes

Nothing depends on another code, so the scores of all items are sums of numbers that are there
after one pass: no beam, no trie. The transformer and the items that enter are TimelineRec's; the
released code of RPG has GPT-2 with absolute positions in their place, searches a graph of items
instead of scoring all, and averages the code embeddings of an item where ``item_parts: [code]``
sums them before a layer norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, normalize, silu

from recbole_genrec.decoding.smoothing import smoothed_cross_entropy
from recbole_genrec.model.timeline.depth import StateAlone

USERS_AT_ONCE = 256  # users whose scores are added up together; bounds the memory of scoring


class ParallelHeads(nn.Module):
    """One head for each place of the codes.

    Args:
        sizes: alphabet size of each of the L places.
        d: width.
        temperature: divides the cosines.
        has_table: whether the code embeddings that states are compared to belong to the heads.
            Otherwise they are those with which items enter.
    """

    codes_of_place: Tensor
    is_code: Tensor
    first: Tensor

    def __init__(self, sizes: Sequence[int], d: int, temperature: float, has_table: bool):
        super().__init__()
        self.temperature = temperature
        self.weight = nn.Parameter(torch.zeros(len(sizes), d, d))
        self.bias = nn.Parameter(torch.zeros(len(sizes), 1, d))
        self.code_table = nn.Parameter(torch.randn(sum(sizes), d) * 0.02) if has_table else None

        self.is_filled_up = min(sizes) < max(sizes)
        widest = torch.arange(max(sizes))
        size = torch.tensor(sizes).unsqueeze(1)
        first = torch.tensor([0, *sizes[:-1]]).cumsum(0).unsqueeze(1)
        is_code = widest < size  # [L, V]
        self.register_buffer("first", first.squeeze(1), persistent=False)
        self.register_buffer("is_code", is_code.unsqueeze(1), persistent=False)
        # Alphabets of different sizes are filled up with their first code, which does not count.
        flat = torch.where(is_code, first + widest, first)
        self.register_buffer("codes_of_place", flat, persistent=False)

    def logits(self, states: Tensor, table: Tensor) -> Tensor:
        """Logits of all codes.

        Args:
            states: ``[P, d]``.
            table: code embeddings ``[C, d]``.

        Returns:
            float32 ``[L, P, V]``, -inf beyond the alphabet of a place.
        """
        # Cosines divided by a small temperature need all their digits.
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            vectors = normalize(table.float(), dim=1)
            turned = torch.matmul(states, self.weight.float().transpose(1, 2)) + self.bias.float()
            heads = normalize(states + silu(turned), dim=-1) / self.temperature  # [L, P, d]
            by_place = vectors[self.codes_of_place]  # [L, V, d]
            logits = torch.bmm(heads, by_place.transpose(1, 2))  # [L, P, V]
            if self.is_filled_up:
                logits = logits.masked_fill(~self.is_code, -torch.inf)
            return logits

    def loss(self, states: Tensor, codes: Tensor, table: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean over targets and places of -log p(code), in nats (equation 4).

        Args:
            states: ``[P, d]``.
            codes: of the targets ``[P, L]``.
            table: see :meth:`logits`.
            smoothing: share of the probability that is spread evenly over the codes of a place.
        """
        logits = self.logits(states, table).flatten(0, 1)  # [L * P, V]
        if smoothing and not self.is_filled_up:  # all compete: torch's own smoothing is faster
            return cross_entropy(logits, codes.T.flatten(), label_smoothing=smoothing)
        return smoothed_cross_entropy(logits, codes.T.flatten(), smoothing)

    def item_log_probs(self, states: Tensor, codes: Tensor, table: Tensor) -> Tensor:
        """The sum of the log-probabilities of each item's codes (equation 5).

        Args:
            states: ``[B, d]``.
            codes: of all items ``[n_items, L]``.
            table: see :meth:`logits`.

        Returns:
            float32 ``[B, n_items]``.
        """
        flat = codes + self.first  # [n_items, L]
        item_scores = []
        for users in states.split(USERS_AT_ONCE):
            log_probs = self.log_probs(users, table)  # [B', C]
            by_code = log_probs.T.contiguous()
            item_scores.append(embedding_bag(flat, by_code, mode="sum").T)
        return torch.cat(item_scores)

    def log_probs(self, states: Tensor, table: Tensor) -> Tensor:
        """Log-probabilities of all codes, place after place: ``[B, d]`` -> float32 ``[B, C]``."""
        by_place = self.logits(states, table).log_softmax(-1).transpose(0, 1)  # [B, L, V]
        return by_place[:, self.is_code.squeeze(1)]


class ParallelDepth(StateAlone):
    """The heads as a decoder along the codes, for those who walk through them one by one.

    Args:
        heads: their weights.
        table: see :meth:`ParallelHeads.logits`.
    """

    def __init__(self, heads: ParallelHeads, table: Tensor):
        self.heads = heads
        self.table = table

    def log_probs(self, states: Tensor, level: int, prefixes: Tensor) -> Tensor:
        """Log-probabilities of the codes of a place, whatever the codes before.

        Args:
            states: ``[..., d]``.
            level: number of the place, counted from 0.
            prefixes: not read.

        Returns:
            float32 ``[..., V_level]``.
        """
        logits = self.heads.logits(states.flatten(0, -2), self.table)[level]  # [P, V]
        n_codes = int(self.heads.is_code[level].sum())
        return logits[:, :n_codes].log_softmax(-1).unflatten(0, states.shape[:-1])
