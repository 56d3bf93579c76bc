"""Which items change their codes, and to which: the part of self-improvement that knows tensors only.

Rules of our own, for "diverse generation and collision avoidance" of SIIT (arXiv 2412.17171), which publishes none. *Fit* of a code tuple =
mean log-probability of its codes given the item's content. N real items, L levels, K candidates an item; no padding row anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recbole_genrec.tokenizer.collision import item_groups
from recbole_genrec.tokenizer.free_codes import FreeCodes

FALLBACKS = ("wider_search", "own_codes", "last_level", "shorter_prefix")


def with_current(
    codes: Tensor, fits: Tensor, current: Tensor, fit: Tensor
) -> tuple[Tensor, Tensor]:
    """The best K of candidates ``[N, K, L]`` with ``fits [N, K]`` and the ``current [N, L]`` codes with their ``fit [N]``, before equals.

    Current codes that are worse than all K are left out: better ones that a wider search would find come first.
    """
    fits = fits.masked_fill((codes == current.unsqueeze(1)).all(-1), -torch.inf)
    codes, fits = (
        torch.cat([current.unsqueeze(1), codes], dim=1),
        torch.cat([fit.unsqueeze(1), fits], dim=1),
    )
    order = fits.argsort(dim=1, descending=True, stable=True)[:, :-1]
    return codes.gather(1, order.unsqueeze(-1).expand(-1, -1, codes.shape[2])), fits.gather(
        1, order
    )


def choose_movers(
    codes: Tensor,
    fit: Tensor,
    gain: Tensor,
    scope: str,
    margin: float,
    max_churn: float,
    reserved: Tensor | None = None,
) -> Tensor:
    """Which items give up their codes, bool ``[N]``.

    ``all``: every item. ``outlier``: items whose ``gain`` (fit of the best candidate minus ``fit`` of their own codes) is above ``margin``,
    largest first, at most ``floor(max_churn * N)``. Of items with the same codes all but the best fitting (ties: the first) move in any
    case and are not counted in the cap, as do the owners of ``reserved [R, L]`` codes.
    """
    if scope == "all":
        return torch.ones_like(fit, dtype=torch.bool)
    forced = ~_keepers(codes, fit, codes[:0] if reserved is None else reserved)
    ordered = torch.where(forced, -torch.inf, gain).argsort(descending=True, stable=True)[
        : int(max_churn * len(codes))
    ]
    movers = forced.clone()
    movers[ordered] = (gain[ordered] > margin) & ~forced[ordered]
    return movers | forced


def _keepers(codes: Tensor, fit: Tensor, reserved: Tensor) -> Tensor:
    """One item of each group of equal codes: the best fitting one; none where the codes are ``reserved``."""
    group, count = item_groups(torch.cat([codes, reserved]))
    fit = torch.cat([fit, fit.new_full((len(reserved),), torch.inf)])
    order = fit.argsort(descending=True, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    best = torch.full_like(count, len(order)).scatter_reduce(0, group, place, "amin")
    return (place == best[group])[: len(codes)]


class Assignment:
    """Conflict-free new codes: movers take the first free of their candidates, one mover after another.

    Codes given up by movers are free; those of all other items and the reserved ones are not. Greedy is enough: the few items without a
    free candidate fall back (our choice, unpublished).

    Args:
        codes: int64 ``[N, L]``. movers: bool ``[N]``. sizes: alphabet sizes; their product must exceed N and the reserved codes.
        reserved: int64 ``[R, L]``, codes that no item may take.

    Attributes:
        codes: the table as far as it is assigned. ranks: place in its list of each code taken from a list, 0 = best.
        fallbacks: how many movers took a code of a wider search; kept their own though better ones existed, all of them taken; took a free
            last code below their best candidate's prefix; took one below a shorter prefix.
    """

    def __init__(
        self, codes: Tensor, movers: Tensor, sizes: Sequence[int], reserved: Tensor | None = None
    ):
        locked = codes[~movers]
        self.before, self.codes = codes, codes.clone()
        self.free = FreeCodes(locked if reserved is None else torch.cat([locked, reserved]), sizes)
        self.ranks: list[int] = []
        self.fallbacks = dict.fromkeys(FALLBACKS, 0)

    def take_candidates(
        self, rows: Sequence[int], codes: Tensor, fits: Tensor, wider: bool = False
    ) -> list[int]:
        """The items ``rows [n]`` in this order take the first free of ``codes [n, K, L]``; returns those that found none."""
        left = []
        for row, candidates, n in zip(
            rows, codes.tolist(), (fits > -torch.inf).sum(1).tolist(), strict=True
        ):
            rank = next(
                (
                    rank
                    for rank, taken in enumerate(candidates[:n])
                    if not self.free.full(tuple(taken))
                ),
                None,
            )
            if rank is None:
                left.append(row)
                continue
            self.ranks.append(rank)
            self._take(row, tuple(candidates[rank]))
            if rank and candidates[rank] == self.before[row].tolist():
                self.fallbacks["own_codes"] += 1
            elif wider:
                self.fallbacks["wider_search"] += 1
        return left

    def take_own(self, rows: Sequence[int]) -> list[int]:
        """The items ``rows`` keep their own codes where these are still free; returns the others."""
        left = []
        for row in rows:
            own = tuple(self.before[row].tolist())
            if self.free.full(own):
                left.append(row)
            else:
                self._take(row, own)
                self.fallbacks["own_codes"] += 1
        return left

    def take_nearest(
        self, row: int, best: Sequence[int], rank: Callable[[tuple[int, ...]], Sequence[int]]
    ) -> None:
        """Item ``row`` keeps the longest prefix of its ``best`` candidate that has a free id, then follows ``rank(prefix)``."""
        codes, kept = self.free.take(best, rank)
        self.codes[row] = torch.tensor(codes)
        self.fallbacks["last_level" if kept == len(best) - 1 else "shorter_prefix"] += 1

    def _take(self, row: int, codes: tuple[int, ...]) -> None:
        self.free.add(codes)
        self.codes[row] = torch.tensor(codes)


def shuffled(before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
    """The control: the items that changed pass their new codes on to one another in a random order; the set of codes stays the same."""
    changed = (before != after).any(1).nonzero().flatten()
    order = changed[torch.randperm(len(changed), generator=generator)]
    return after.index_copy(0, order, after[order.roll(1)])
