"""Numbers that change when a user's history does: who must get a new list, whose past is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from recbole_genrec.data.histories.choices import EventHistories

BASE = np.uint64(0x9E3779B97F4A7C15)
"""An odd number: the digest of a history is a polynomial in it, modulo 2**64."""


def digests_of(events: EventHistories) -> dict[str, int]:
    """A number for each history, int64, by raw user id."""
    values = digests(*_columns(events))
    return dict(zip(events, values.tolist(), strict=True))


def _columns(events: EventHistories) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The arguments of :func:`digests`."""
    present, items = np.unique(events.chosen, return_inverse=True)
    tokens = [str(token) for token in events.item_tokens[present]]
    return items, events.counts, tokens


def changed_users(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """Users who are new or whose history is another one.

    Args:
        now: digests by raw user id.
        before: those of an earlier day.
    """
    return [user for user, value in now.items() if before.get(user) != value]


def users_with_another_past(now: EventHistories, before: Mapping[str, int]) -> list[str]:
    """Users whose history of today neither is the one of an earlier day nor begins with it.

    Args:
        now: histories of today.
        before: digests of the earlier day by raw user id; users who are not in it are new.
    """
    users = list(now)
    known = np.array([user in before for user in users], dtype=bool)
    expected = np.array([before.get(user, 0) for user in users], dtype=np.int64)
    same = _digests_of_prefixes(*_columns(now)) == expected.repeat(now.counts)
    owner = np.arange(len(users)).repeat(now.counts)
    continued = np.bincount(owner[same], minlength=len(users)) > 0
    return [users[row] for row in np.flatnonzero(known & ~continued)]


def digests(
    items: np.ndarray, counts: np.ndarray, tokens: Sequence[str] | np.ndarray
) -> np.ndarray:
    """A number for each history; different histories have different ones.

    Args:
        items: numbers of the items of all histories, one history after another.
        counts: how many items each has, int64 ``[n]``.
        tokens: raw ids by number.

    Returns:
        int64 ``[n]``; 1 for a history without items.
    """
    values = np.ones(len(counts), dtype=np.int64)
    ends = counts.cumsum()
    some = counts > 0
    values[some] = _digests_of_prefixes(items, counts, tokens)[ends[some] - 1]
    return values


def _digests_of_prefixes(
    items: np.ndarray, counts: np.ndarray, tokens: Sequence[str] | np.ndarray
) -> np.ndarray:
    """A number for each event: that of the history up to it.

    The arguments are those of :func:`digests`.

    Returns:
        int64 ``[n_events]``.
    """
    hashes = np.array([_hash(token) for token in tokens], dtype=np.uint64)
    longest = int(counts.max(initial=0))
    powers = np.ones(longest + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        np.cumprod(np.full(longest, BASE), out=powers[1:], dtype=np.uint64)
        starts = (counts.cumsum() - counts).repeat(counts)
        places = np.arange(len(items)) - starts
        terms = hashes[items] * powers[places]  # modulo 2**64
        sums = np.concatenate([np.zeros(1, np.uint64), terms.cumsum(dtype=np.uint64)])
        values = sums[1:] - sums[starts] + powers[places + 1]
    return values.view(np.int64)


def _hash(token: str) -> int:
    raw = token.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
