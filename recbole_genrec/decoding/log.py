"""What the searches of an evaluation proved and missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recbole_genrec.decoding.protocol import SearchResult


class SearchLog:
    """Counts over all users searched since it was made.

    Args:
        topk: lengths of the evaluated lists.
    """

    def __init__(self, topk: Sequence[int]):
        self.topk, self.users, self.unfilled, self.invalid = list(dict.fromkeys(topk)), 0, 0, 0.0
        self.certified = dict.fromkeys(self.topk, 0)

    def add(self, result: SearchResult) -> None:
        """Count a batch of users."""
        width = result.items.shape[1]
        self.users += len(result.items)
        self.unfilled += int((result.items[:, min(width, max(self.topk)) - 1] == 0).sum())
        if result.invalid is not None:
            self.invalid += float(result.invalid.sum())
        for k in self.topk:
            self.certified[k] += int(result.certified(min(k, width)).sum())

    def add_up(self, summed: Callable[[list[float]], list[float]]) -> None:
        """Count the users of all processes; ``summed`` adds numbers up over them."""
        self.users, self.unfilled, self.invalid, *certified = summed(
            [self.users, self.unfilled, self.invalid, *self.certified.values()]
        )
        self.certified = dict(zip(self.topk, certified, strict=True))

    def __str__(self) -> str:
        proven = (
            ", ".join(
                f"{count / self.users:.2%} of the top {k}" for k, count in self.certified.items()
            )
            if self.users
            else "no search"
        )
        return f"certified lists: {proven} ({self.users} users)"

    def shares(self) -> dict[str, float | None]:
        """Shares of users with a certified top k and an unfilled list, and of beams without an item; ``None`` without a search."""
        counts = {f"certified@{k}": count for k, count in self.certified.items()}
        counts |= {"unfilled": self.unfilled, "invalid_beams": self.invalid}
        return {name: count / self.users if self.users else None for name, count in counts.items()}
