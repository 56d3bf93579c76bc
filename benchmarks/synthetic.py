"""Data with structure, of any size: items in clusters, users who like some of them.

    python benchmarks/synthetic.py --items=100000 --users=100000 --interactions=2000000 --to=dataset

Items belong to clusters and have eight words, most of them of their cluster; vectors are that of
the cluster and noise. How often an item is chosen falls with its place in its cluster (Zipf). A
user has two clusters and goes on in one of them: to the item that follows the last one there, or to
a popular one. The same seed gives the same files. Nothing is held in memory but columns of numbers,
and files are written in pieces.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv

WORDS_OF_AN_ITEM = 8
CLUSTER_SIZE = 200
"""Items of a cluster on average."""
IN_ORDER = 0.6
"""Share of the events that follow the last item of the same cluster."""
ANYTHING = 0.05
"""Share of the events that are any item."""
VOCABULARY = 20_000
PIECE = 1_000_000
"""Rows that are written at once."""
FIRST_TIME = 1_600_000_000


@dataclass(frozen=True)
class Shop:
    """What the data is drawn from.

    Attributes:
        n_items: number of items.
        n_users: number of users.
        n_interactions: number of events, at least five a user.
        width: numbers of an item vector.
        seed: of everything.
    """

    n_items: int
    n_users: int
    n_interactions: int
    width: int = 64
    seed: int = 0

    @property
    def n_clusters(self) -> int:
        """Number of clusters of items."""
        return max(4, self.n_items // CLUSTER_SIZE)

    @property
    def size(self) -> int:
        """Items of a cluster; the last one may have fewer."""
        return -(-self.n_items // self.n_clusters)

    def lengths(self) -> np.ndarray:
        """Events of each user, int64 ``[n_users]``: five at least, few users with many."""
        generator = np.random.default_rng([self.seed, 1])
        weights = generator.pareto(2.0, self.n_users).clip(max=20) + 0.2
        spare = self.n_interactions - 5 * self.n_users
        if spare < 0:
            raise SystemExit("Give at least five interactions for each user.")
        extra = np.floor(weights / weights.sum() * spare).astype(np.int64)
        extra[: spare - extra.sum()] += 1
        return 5 + extra

    def events(self, lengths: np.ndarray, first_user: int = 0) -> np.ndarray:
        """The items of some users, one user after another, int32 ``[sum of lengths]``.

        Args:
            lengths: events of each user.
            first_user: number of the first of them.
        """
        generator = np.random.default_rng([self.seed, 2, first_user])
        n_events = int(lengths.sum())
        user = np.repeat(np.arange(len(lengths)), lengths)
        liked = generator.integers(self.n_clusters, size=(len(lengths), 2))
        which = generator.random(n_events) < 0.3
        cluster = liked[user, which.astype(np.int64)]

        # A chain goes on by one item with each event in order, and begins anew at a popular one.
        popular = self._popular(generator.random(n_events))
        chain = user * 2 + which
        order = np.argsort(chain, kind="stable")
        starts = generator.random(n_events)[order] >= IN_ORDER
        chain = chain[order]
        starts[0] = True
        starts[1:] |= chain[1:] != chain[:-1]
        first = np.maximum.accumulate(np.where(starts, np.arange(n_events), 0))
        place = np.empty(n_events, dtype=np.int64)
        place[order] = (popular[order][first] + np.arange(n_events) - first) % self.size

        items = np.minimum(cluster * self.size + place, self.n_items - 1)
        anything = generator.random(n_events) < ANYTHING
        items[anything] = generator.integers(self.n_items, size=int(anything.sum()))
        return items.astype(np.int32)

    def _popular(self, draws: np.ndarray) -> np.ndarray:
        """Places in a cluster, of which the first are drawn often (Zipf)."""
        weights = 1 / (np.arange(self.size) + 3.0)
        shares = np.cumsum(weights / weights.sum())
        return np.minimum(np.searchsorted(shares, draws), self.size - 1)

    def titles(self, items: np.ndarray) -> pa.Array:
        """Texts of eight words: six of the words of the cluster, two of all.

        Args:
            items: numbers of items.
        """
        generator = np.random.default_rng([self.seed, 3, int(items[0])])
        cluster = items // self.size
        words = generator.integers(VOCABULARY, size=(len(items), WORDS_OF_AN_ITEM))
        own = generator.integers(12, size=(len(items), 6))
        words[:, :6] = (cluster[:, None] * 7919 + own * 104_729) % VOCABULARY
        names = pa.array([f"w{word}" for word in range(VOCABULARY)])
        columns = [names.take(pa.array(words[:, place])) for place in range(WORDS_OF_AN_ITEM)]
        return compute.binary_join_element_wise(*columns, " ")

    def vectors(self) -> np.ndarray:
        """Content vectors float32 ``[n_items, width]``: that of the cluster and noise."""
        generator = np.random.default_rng([self.seed, 4])
        centres = generator.standard_normal((self.n_clusters, self.width), dtype=np.float32)
        noise = generator.standard_normal((self.n_items, self.width), dtype=np.float32)
        cluster = np.minimum(np.arange(self.n_items) // self.size, self.n_clusters - 1)
        return centres[cluster] + 0.7 * noise

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Users, items and times of the events, for some users at once."""
        lengths = self.lengths()
        ends = lengths.cumsum()
        first = 0
        while first < self.n_users:
            done = ends[first] - lengths[first]
            last = max(first + 1, int(np.searchsorted(ends, done + PIECE)))
            of_piece = lengths[first:last]
            user = np.repeat(np.arange(first, last), of_piece)
            place = np.arange(len(user)) - np.repeat(of_piece.cumsum() - of_piece, of_piece)
            yield user, self.events(of_piece, first), FIRST_TIME + place
            first = last


def named(prefix: str, numbers: np.ndarray) -> pa.Array:
    """Raw ids ``u12`` of numbers."""
    text = compute.cast(pa.array(numbers), pa.string())
    return compute.binary_join_element_wise(prefix, text, "")


def write(shop: Shop, folder: Path, name: str) -> None:
    """Write ``<folder>/<name>/<name>.inter`` and ``.item``, and vectors ``<name>.npy``.

    Args:
        shop: what to draw from.
        folder: of all datasets.
        name: of this one.
    """
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with open(target / f"{name}.inter", "wb") as stream:
        stream.write(b"user_id:token\titem_id:token\ttimestamp:float\n")
        for user, item, time in shop.pieces():
            columns = [named("u", user), named("i", item), pa.array(time)]
            table = pa.table(columns, names=["user", "item", "time"])
            pyarrow.csv.write_csv(table, stream, options)
    with open(target / f"{name}.item", "wb") as stream:
        stream.write(b"item_id:token\ttitle:token_seq\n")
        for start in range(0, shop.n_items, PIECE):
            items = np.arange(start, min(start + PIECE, shop.n_items))
            table = pa.table([named("i", items), shop.titles(items)], names=["item", "title"])
            pyarrow.csv.write_csv(table, stream, options)
    np.save(target / f"{name}.npy", shop.vectors())
    ids = "\n".join(f"i{item}" for item in range(shop.n_items))
    (target / f"{name}.ids.txt").write_text(ids + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--interactions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default=None)
    parser.add_argument("--to", type=Path, default=Path("dataset"))
    options = parser.parse_args()
    shop = Shop(options.items, options.users, options.interactions, seed=options.seed)
    write(shop, options.to, options.name or f"synthetic-{options.items}")


if __name__ == "__main__":
    main()
