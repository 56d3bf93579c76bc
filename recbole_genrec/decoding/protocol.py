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

    The prompt is computed once per user; queries are extra positions over it, never copies of it.
    The values must be log-probabilities: over the whole output layer for ``joint``, over the
    level's alphabet for ``level``. Raw logits are enough for ``renormalised``.

    A decoder with an attribute ``takes_live = True`` is a :class:`LiveDecoder`.

    Attributes:
        batch_size: number of users B.
        device: where the values are.
    """

    @property
    def batch_size(self) -> int:
        """Number of users B."""

    @property
    def device(self) -> torch.device:
        """Where the values are."""

    def start(self) -> Tensor:
        """Return to the root; cheap when called again.

        Returns:
            float32 ``[B, 1, V_0]``, values of the first code.
        """

    def step(self, codes: Tensor, parents: Tensor) -> Tensor:
        """Append codes to queries of the previous block.

        Args:
            codes: int64 ``[B, Q]``; ``codes[b, q]`` is appended to query ``parents[b, q]``.
            parents: int64 ``[B, Q]``. Q may differ from one step to the next.

        Returns:
            float32 ``[B, Q, V_t]``, values of the next level's codes only.
        """

    def select(self, rows: Tensor) -> CodeDecoder:
        """A decoder for some users only; ``rows`` int64 ``[R]`` indexes the users of this one."""


class LiveDecoder(CodeDecoder, Protocol):
    """A decoder that need not answer every query.

    Attributes:
        takes_live: True.
    """

    takes_live: bool

    def step(self, codes: Tensor, parents: Tensor, live: Tensor | None = None) -> Tensor:
        """Append codes to queries of the previous block.

        Args:
            codes: as in :meth:`CodeDecoder.step`.
            parents: as in :meth:`CodeDecoder.step`.
            live: bool ``[B, Q]``. Only the values of these queries are read, and only their
                children will be asked for; None = all.

        Returns:
            float32 ``[B, Q, V_t]``.
        """


@dataclass
class SearchResult:
    """Best items per user.

    Attributes:
        items: int64 ``[B, K]``, best first, 0 where fewer than K were reached.
        scores: float32 ``[B, K]``, -inf where fewer than K were reached.
        bound: float32 ``[B]``, the best score that any pruned prefix could still reach; -inf when
            nothing was pruned.
        full: float32 ``[B, n_items]``, scores of all items, or None.
        invalid: float32 ``[B]``, share of the finished beams that name no item; None where the
            trie constrains the search.
    """

    items: Tensor
    scores: Tensor
    bound: Tensor
    full: Tensor | None = None
    invalid: Tensor | None = None

    @property
    def proven(self) -> Tensor:
        """Whether the list up to each place is proven to be the exact best, up to ties.

        A step adds a log-probability <= 0, so no item below a pruned prefix can beat that prefix.
        At a place without an item the proof holds only if nothing was pruned, that is, if the
        catalogue is exhausted (our choice, unpublished). Bool ``[B, K]``.
        """
        return self.scores >= self.bound.unsqueeze(1)

    def certified(self, k: int) -> Tensor:
        """Whether the first ``k`` items are proven to be the exact ``k`` best; see :attr:`proven`.

        Args:
            k: length of the list.

        Returns:
            bool ``[B]``.

        Raises:
            ConfigError: the search kept fewer than ``k`` items.
        """
        width = self.scores.shape[1]
        if not 1 <= k <= width:
            raise ConfigError(
                f"The search kept {width} items; it cannot certify the first {k}. "
                f"Raise beam_width to at least {k}."
            )
        return self.proven[:, k - 1]


def check_search(score_type: str, width: int = 1) -> None:
    """Check the settings of a search.

    Args:
        score_type: one of :data:`SCORE_TYPES`.
        width: at least 1.

    Raises:
        ConfigError: an unknown score type, or a width below 1.
    """
    if score_type not in SCORE_TYPES:
        raise ConfigError(f"score_type is '{score_type}'. Choose one of {', '.join(SCORE_TYPES)}.")
    if width < 1:
        raise ConfigError(f"beam_width (or chunk_size) is {width}. It must be at least 1.")


def check_block(block: Tensor, batch_size: int, queries: int, size: int, level: int) -> Tensor:
    """Check the answer of a decoder.

    Args:
        block: the answer.
        batch_size: number of users B.
        queries: number of queries Q per user.
        size: alphabet size V_t of the level.
        level: number of the level t, for the message.

    Returns:
        ``block`` as float32 ``[B, Q, V_t]``.

    Raises:
        BackboneError: it has another shape.
    """
    expected = (batch_size, queries, size)
    if block.shape != expected:
        raise BackboneError(
            f"The decoder returned shape {tuple(block.shape)} for code level {level}; "
            f"expected {expected} (users, queries, alphabet of that level). "
            f"Check that its output layer fits the code table."
        )
    return block.float()
