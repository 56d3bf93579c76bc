"""What the searches of an evaluation proved and missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recbole_genrec.decoding.protocol import SearchResult


class SearchLog:
    """Counts over all users searched since it was made.

    Args:
        topk: lengths of the evaluated lists.

    Attributes:
        users: number of users searched.
        unfilled: number of users with fewer items than the longest list.
        invalid: sum over users of the share of beams that name no item.
        certified: number of users with a proven list, by its length.
    """

    def __init__(self, topk: Sequence[int]) -> None:
        self.topk = list(dict.fromkeys(topk))
        self.users = 0
        self.unfilled = 0
        self.invalid = 0.0
        self.certified = dict.fromkeys(self.topk, 0)

    def add(self, result: SearchResult) -> None:
        """Count a batch of users."""
        width = result.items.shape[1]
        longest = min(width, max(self.topk))
        self.users += len(result.items)
        self.unfilled += int((result.items[:, longest - 1] == 0).sum())
        if result.invalid is not None:
            self.invalid += float(result.invalid.sum())
        for k in self.topk:
            self.certified[k] += int(result.certified(min(k, width)).sum())

    def add_up(self, summed: Callable[[list[float]], list[float]]) -> None:
        """Count the users of all processes.

        Args:
            summed: adds numbers up over the processes.
        """
        counts = [self.users, self.unfilled, self.invalid, *self.certified.values()]
        users, unfilled, self.invalid, *certified = summed(counts)
        self.users = round(users)
        self.unfilled = round(unfilled)
        for k, count in zip(self.topk, certified, strict=True):
            self.certified[k] = round(count)

    def __str__(self) -> str:
        if not self.users:
            return "certified lists: no search (0 users)"
        proven = [f"{count / self.users:.2%} of the top {k}" for k, count in self.certified.items()]
        return f"certified lists: {', '.join(proven)} ({self.users} users)"

    def shares(self) -> dict[str, float | None]:
        """Shares of all users, ``None`` without a search.

        Returns:
            ``certified@k``: users with a proven list of k items; ``unfilled``: users with too few
            items; ``invalid_beams``: beams without an item.
        """
        counts: dict[str, float] = {f"certified@{k}": self.certified[k] for k in self.topk}
        counts["unfilled"] = self.unfilled
        counts["invalid_beams"] = self.invalid
        if not self.users:
            return dict.fromkeys(counts)
        return {name: count / self.users for name, count in counts.items()}
