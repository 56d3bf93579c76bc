"""Numbers that change when a user's history does: who must get a new list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_genrec.data.choices import EventHistories, histories

BASE = np.uint64(0x9E3779B97F4A7C15)
"""An odd number: the digest of a history is a polynomial in it, modulo 2**64."""


def digests_of(histories_of_users: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """A number for each history.

    Args:
        histories_of_users: raw item ids by raw user id.

    Returns:
        int64 numbers by raw user id.
    """
    if isinstance(histories_of_users, EventHistories):
        return _digests_of_events(histories_of_users)
    numbers: dict[str, int] = {}
    tokens: list[str] = []
    counts = []
    for items in histories_of_users.values():
        counts.append(len(items))
        for item in items:
            tokens.append(item)
            numbers.setdefault(item, len(numbers))
    items = np.array([numbers[token] for token in tokens], dtype=np.int64)
    values = _digests(items, np.array(counts, dtype=np.int64), list(numbers))
    return dict(zip(histories_of_users, values.tolist(), strict=True))


def digests_of_dataset(dataset: Any) -> dict[str, int]:
    """:func:`digests_of` the histories of RecBole's dataset before its loaders are made."""
    return digests_of(histories(dataset))


def _digests_of_events(events: EventHistories) -> dict[str, int]:
    """:func:`digests_of` histories that are columns of numbers."""
    present, items = np.unique(events.chosen, return_inverse=True)
    tokens = [str(token) for token in events.item_tokens[present]]
    values = _digests(items, events.counts, tokens)
    return dict(zip(events, values.tolist(), strict=True))


def changed_users(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """Users who are new or whose history is another one.

    Args:
        now: digests by raw user id.
        before: those of an earlier day.
    """
    return [user for user, value in now.items() if before.get(user) != value]


def _digests(items: np.ndarray, counts: np.ndarray, tokens: list[str]) -> np.ndarray:
    """A number for each user.

    Args:
        items: numbers of the items of all users, user after user, oldest first.
        counts: how many items each user has.
        tokens: raw ids by number.

    Returns:
        int64 ``[n_users]``.
    """
    hashes = np.array([_hash(token) for token in tokens], dtype=np.uint64)
    longest = int(counts.max(initial=0))
    powers = np.ones(longest + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        np.cumprod(np.full(longest, BASE), out=powers[1:], dtype=np.uint64)
        ends = counts.cumsum()
        starts = ends - counts
        places = np.arange(len(items)) - starts.repeat(counts)
        terms = hashes[items] * powers[places]  # modulo 2**64
        sums = np.concatenate([np.zeros(1, np.uint64), terms.cumsum(dtype=np.uint64)])
        values = sums[ends] - sums[starts] + powers[counts]
    return values.view(np.int64)


def _hash(token: str) -> int:
    raw = token.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
