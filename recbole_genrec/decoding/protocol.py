"""What the search asks of a generator, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recbole_genrec.errors import BackboneError, ConfigError

SCORE_TYPES = ("joint", "level", "renormalised")


class CodeDecoder(Protocol):
    """Next-code log-probabilities for queries (beams, trie nodes) that share one prompt per user.

    The prompt is computed once per user; queries are extra positions over it, never copies of it. The values must be log-probabilities
    (over the whole output layer for ``joint``, over the level's alphabet for ``level``); raw logits are enough for ``renormalised``.
    """

    batch_size: int
    device: torch.device

    def start(self) -> Tensor:
        """Return to the root: float32 ``[B, 1, V_0]``, values of the first code. Cheap when called again."""

    def step(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Append ``codes[b, q]`` to query ``parents[b, q]`` of the previous block (both int64 ``[B, Q]``).

        Returns float32 ``[B, Q, V_t]``, values of the next level's codes only. ``Q`` may differ from one step to the next.

        A decoder with an attribute ``takes_live = True`` also gets ``live``, bool ``[B, Q]`` or None: only the values of these queries are
        read, and only their children will be asked for.
        """

    def select(self, rows: Tensor) -> CodeDecoder:
        """A decoder for some users only; ``rows`` int64 ``[R]`` indexes the users of this one. Used by the automatic beam width."""


@dataclass
class SearchResult:
    """Best items per user.

    ``items`` int64 ``[B, K]``, best first, 0 where fewer than K were reached; ``scores`` float32 ``[B, K]``, -inf there; ``bound`` float32
    ``[B]``: the best score any pruned prefix could still reach (-inf when nothing was pruned); ``full`` float32 ``[B, n_items]`` or None.
    ``invalid`` float32 ``[B]``: share of the finished beams that name no item; None where the trie constrains the search.
    """

    items: Tensor
    scores: Tensor
    bound: Tensor
    full: Tensor | None = None
    invalid: Tensor | None = None

    def certified(self, k: int) -> Tensor:
        """bool ``[B]``: the first ``k`` items are proven to be the exact ``k`` best, up to ties (our choice, unpublished).

        A step adds a log-probability <= 0, so no item below a pruned prefix can beat that prefix. With fewer than ``k`` reached items the
        proof holds only if nothing was pruned, i.e. the catalogue is exhausted.
        """
        if not 1 <= k <= self.scores.shape[1]:
            raise ConfigError(
                f"The search kept {self.scores.shape[1]} items; it cannot certify the first {k}. Raise beam_width to at least {k}."
            )
        return self.scores[:, k - 1] >= self.bound


def check_search(score_type: str, width: int = 1) -> None:
    """Raise :class:`ConfigError` for an unknown ``score_type`` or a width below 1."""
    if score_type not in SCORE_TYPES:
        raise ConfigError(f"score_type is '{score_type}'. Choose one of {', '.join(SCORE_TYPES)}.")
    if width < 1:
        raise ConfigError(f"beam_width (or chunk_size) is {width}. It must be at least 1.")


def check_block(block: Tensor, batch_size: int, queries: int, size: int, level: int) -> Tensor:
    """``block`` as float32, after checking its shape ``[B, Q, V_t]``."""
    if block.shape != (batch_size, queries, size):
        raise BackboneError(
            f"The decoder returned shape {tuple(block.shape)} for code level {level}; expected {(batch_size, queries, size)} "
            f"(users, queries, alphabet of that level). Check that its output layer fits the code table."
        )
    return block.float()
