"""Which items change codes, and to which: the part of self-improvement that knows only tensors.

Rules of our own for "diverse generation and collision avoidance" of SIIT (arXiv 2412.17171), which
publishes none. The *fit* of a code tuple is the mean log-probability of its codes, given the
content of the item.

Shapes: N real items without a padding row, L levels, K candidates per item.
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
    """The best K of the candidates and the present codes; the latter come first among equals.

    Present codes that are worse than all K candidates are left out: a wider search would find
    better ones, and these come first.

    Args:
        codes: candidates ``[N, K, L]``.
        fits: fit of each candidate ``[N, K]``.
        current: present codes ``[N, L]``.
        fit: fit of the present codes ``[N]``.

    Returns:
        Codes ``[N, K, L]`` and fits ``[N, K]``, best first.
    """
    is_current = (codes == current.unsqueeze(1)).all(-1)  # [N, K]
    fits = fits.masked_fill(is_current, -torch.inf)
    codes = torch.cat([current.unsqueeze(1), codes], dim=1)  # [N, K + 1, L]
    fits = torch.cat([fit.unsqueeze(1), fits], dim=1)  # [N, K + 1]

    order = fits.argsort(dim=1, descending=True, stable=True)[:, :-1]  # [N, K]
    order_of_codes = order.unsqueeze(-1).expand(-1, -1, codes.shape[2])
    return codes.gather(1, order_of_codes), fits.gather(1, order)


def choose_movers(
    codes: Tensor,
    fit: Tensor,
    gain: Tensor,
    scope: str,
    margin: float,
    max_churn: float,
    reserved: Tensor | None = None,
) -> Tensor:
    """Which items give up their codes.

    With ``scope: all`` every item does. With ``scope: outlier`` those with a ``gain`` above
    ``margin`` do, largest first, at most ``floor(max_churn * N)``.

    Of items with the same codes all but the best fitting one move in any case, and so do items
    with reserved codes. They do not count towards the limit.

    Args:
        codes: present codes ``[N, L]``.
        fit: fit of the present codes ``[N]``.
        gain: fit of the best candidate minus ``fit`` ``[N]``, in nats per code.
        scope: ``all`` or ``outlier``.
        margin: gain from which an item moves.
        max_churn: largest share of the items that moves.
        reserved: codes that no item may have ``[R, L]``.

    Returns:
        bool ``[N]``.
    """
    if scope == "all":
        return torch.ones_like(fit, dtype=torch.bool)
    if reserved is None:
        reserved = codes[:0]
    must_move = ~_keepers(codes, fit, reserved)

    limit = int(max_churn * len(codes))
    free_gain = torch.where(must_move, -torch.inf, gain)
    first = free_gain.argsort(descending=True, stable=True)[:limit]

    movers = must_move.clone()
    movers[first] = (gain[first] > margin) & ~must_move[first]
    return movers | must_move


def _keepers(codes: Tensor, fit: Tensor, reserved: Tensor) -> Tensor:
    """One item of each group of equal codes: the best fitting one, the first among equals.

    A group whose codes are reserved has none.

    Args:
        codes: present codes ``[N, L]``.
        fit: fit of the present codes ``[N]``.
        reserved: codes that no item may have ``[R, L]``.

    Returns:
        bool ``[N]``.
    """
    group, count = item_groups(torch.cat([codes, reserved]))
    # A reserved row fits better than any item, so no item is the best of its group.
    fit = torch.cat([fit, fit.new_full((len(reserved),), torch.inf)])  # [N + R]
    order = fit.argsort(descending=True, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    best = torch.full_like(count, len(order)).scatter_reduce(0, group, place, "amin")
    return (place == best[group])[: len(codes)]


class Assignment:
    """New codes without conflicts: one mover after another takes its first free candidate.

    Codes that movers gave up are free. Those of all other items and the reserved ones are not.
    The few items without a free candidate fall back (our choice, unpublished).

    Args:
        codes: present codes int64 ``[N, L]``.
        movers: items that give up their codes, bool ``[N]``.
        sizes: alphabet sizes; their product must exceed N and the number of reserved codes.
        reserved: codes that no item may take, int64 ``[R, L]``.

    Attributes:
        codes: the table as far as it is assigned ``[N, L]``.
        ranks: for each code taken from a list its place there, 0 = best.
        fallbacks: how many movers fell back, by kind. ``wider_search``: took a code of a wider
            search. ``own_codes``: kept their own codes, because all better ones were taken.
            ``last_level``: took a free last code below the prefix of their best candidate.
            ``shorter_prefix``: took one below a shorter prefix.
    """

    def __init__(
        self, codes: Tensor, movers: Tensor, sizes: Sequence[int], reserved: Tensor | None = None
    ):
        taken = codes[~movers]
        if reserved is not None:
            taken = torch.cat([taken, reserved])
        self.before = codes
        self.codes = codes.clone()
        self.free = FreeCodes(taken, sizes)
        self.ranks: list[int] = []
        self.fallbacks = dict.fromkeys(FALLBACKS, 0)

    def take_candidates(
        self, items: Sequence[int], codes: Tensor, fits: Tensor, wider: bool = False
    ) -> list[int]:
        """Each item takes the first free one of its candidates, one item after another.

        Args:
            items: rows of the table ``[n]``, in the order in which they choose.
            codes: candidates ``[n, K, L]``, best first.
            fits: their fits ``[n, K]``; -inf = no candidate.
            wider: whether the candidates come from a wider search.

        Returns:
            The items that found no free one.
        """
        left = []
        counts = (fits > -torch.inf).sum(1).tolist()
        for item, candidates, count in zip(items, codes.tolist(), counts, strict=True):
            rank = self._first_free(candidates[:count])
            if rank is None:
                left.append(item)
                continue
            self.ranks.append(rank)
            self._take(item, tuple(candidates[rank]))
            if rank > 0 and candidates[rank] == self.before[item].tolist():
                self.fallbacks["own_codes"] += 1
            elif wider:
                self.fallbacks["wider_search"] += 1
        return left

    def take_own(self, items: Sequence[int]) -> list[int]:
        """Each item keeps its own codes where these are still free.

        Args:
            items: rows of the table.

        Returns:
            The items whose codes are taken.
        """
        left = []
        for item in items:
            codes = tuple(self.before[item].tolist())
            if self.free.full(codes):
                left.append(item)
            else:
                self._take(item, codes)
                self.fallbacks["own_codes"] += 1
        return left

    def take_nearest(
        self, item: int, best: Sequence[int], rank: Callable[[tuple[int, ...]], Sequence[int]]
    ) -> None:
        """An item keeps the longest prefix of its best candidate that has a free id below it.

        Args:
            item: row of the table.
            best: codes of its best candidate.
            rank: codes of the next level after a prefix, in the order in which they are tried.
        """
        codes, prefix_length = self.free.take(best, rank)
        self.codes[item] = torch.tensor(codes)
        if prefix_length == len(best) - 1:
            self.fallbacks["last_level"] += 1
        else:
            self.fallbacks["shorter_prefix"] += 1

    def _first_free(self, candidates: Sequence[Sequence[int]]) -> int | None:
        """The place of the first free candidate; ``None`` if all are taken."""
        for rank, codes in enumerate(candidates):
            if not self.free.full(tuple(codes)):
                return rank
        return None

    def _take(self, item: int, codes: tuple[int, ...]) -> None:
        self.free.add(codes)
        self.codes[item] = torch.tensor(codes)


def shuffled(before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
    """The control of an ablation: items that changed get one another's new codes.

    The set of codes stays the same.

    Args:
        before: codes ``[N, L]`` before the refresh.
        after: codes ``[N, L]`` after it.
        generator: draws the order in which the codes are passed on.
    """
    changed = (before != after).any(1).nonzero().flatten()  # [n]
    order = changed[torch.randperm(len(changed), generator=generator)]
    return after.index_copy(0, order, after[order.roll(1)])
