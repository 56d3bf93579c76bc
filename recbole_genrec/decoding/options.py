"""Settings of a search that do not depend on the users."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchOptions:
    """How a beam search scores and what it keeps.

    Args:
        score_type: ``joint``, ``level`` or ``renormalised``.
        fill: whether to keep what is needed to rank all items.
        count: whether to keep no more beams than some user has. The number is read on the host at
            every step.
    """

    score_type: str
    fill: bool = False
    count: bool = False

    @property
    def forced_codes_are_free(self) -> bool:
        """Whether a code without an alternative costs nothing, so that its prefix is finished."""
        return self.score_type == "renormalised"
