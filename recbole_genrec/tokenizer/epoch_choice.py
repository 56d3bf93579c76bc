"""Which of the looked-at epochs of an RQ-VAE is kept."""

from __future__ import annotations

import math
from typing import Any, Literal

Rule = Literal["distinct", "sharing", "loss"]
TRAINED = 0.5
"""Share of the way from the first to the lowest reconstruction loss that a trained epoch has come
(our choice)."""
LOWER = 0.999
"""A loss below this share of the lowest one so far is an improvement (our choice, unpublished)."""


class EpochChoice:
    """What the looks at a network have found, and the best of them.

    The rules:

    * ``distinct``: the lowest collision rate as LC-Rec and LETTER publish it, ``(n - distinct) /
      n``; of equal epochs the first. An epoch that has hardly learned to reconstruct is no
      candidate, however few collisions the start by k-means has left it (our choice);
    * ``sharing``: the fewest items that share their id, of equal epochs the last;
    * ``loss``: the lowest total loss.

    The untrained network is never the best.

    Args:
        rule: see above.
        start: the look at the untrained network, ``epoch`` 0.

    Attributes:
        track: all of it as plain values, for saved progress; ``curve`` and ``best`` are for the
            result file, ``since`` counts the looks in a row without an improvement.
    """

    def __init__(self, rule: Rule, start: dict[str, Any]) -> None:
        self.rule = rule
        self.track: dict[str, Any] = {
            "best": start,
            "curve": [start],
            "since": 0,
            "lowest": math.inf,
            "collapsed": 0,
        }

    def see_epoch(self, means: dict[str, float]) -> None:
        """Take note of the mean losses of an epoch, looked at or not."""
        recon = means.get("recon", math.inf)
        self.track.setdefault("first_recon", recon)
        self.track["lowest_recon"] = min(self.track.get("lowest_recon", math.inf), recon)

    def note(self, look: dict[str, Any]) -> bool:
        """Write ``look`` down; whether it is the best so far."""
        track = self.track
        best = track["best"]
        track["curve"].append(look)

        fewer = self._is_better(look, best, equal=False)
        lower = look["total"] < LOWER * track["lowest"]
        track["since"] = 0 if fewer or lower else track["since"] + 1
        track["lowest"] = min(track["lowest"], look["total"])

        is_best = not self._is_candidate(best)
        if not is_best and self._is_candidate(look):
            is_best = self._is_better(look, best, equal=self.rule == "sharing")
        if is_best:
            track["best"] = look
        return is_best

    def _is_candidate(self, look: dict[str, Any]) -> bool:
        """Whether the network has learned something at this look."""
        if look["epoch"] == 0:
            return False
        if self.rule != "distinct" or "recon" not in look:
            return True
        lowest = self.track.get("lowest_recon", look["recon"])
        first = self.track.get("first_recon", lowest)
        return look["recon"] <= first - TRAINED * (first - lowest)

    def _is_better(self, look: dict[str, Any], than: dict[str, Any], equal: bool) -> bool:
        """Whether ``look`` is better by the rule.

        Args:
            look: one look.
            than: another one.
            equal: the answer where both are the same.
        """
        figure = {"distinct": "excess_rate", "sharing": "collision_rate", "loss": "total"}
        value = look[figure[self.rule]]
        other = than.get(figure[self.rule], math.inf)
        return value < other or (equal and value == other)
