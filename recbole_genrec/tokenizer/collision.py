"""What to do when items get the same codes.

Every function here takes the codes of real items only, one row an item, no padding row. Policies,
applied in order:

* ``sinkhorn``: rounds of balanced re-assignment of the last level inside each group (LC-Rec, arXiv
  2311.09049, uniform semantic mapping); what still collides stays;
* ``nearest_free``: all items but one of a group move to the nearest free code (``reassign``; our
  choice, unpublished);
* ``extra_token``: one more level that counts the items with the same codes (TIGER, arXiv
  2305.05065, section 3.1); after another policy only when collisions remain;
* ``none``: equal codes are allowed.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.tokenizer_keys import ALIASES, POLICIES
from recbole_genrec.tokenizer.free_codes import FreeCodes
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn_codes

Distances = Callable[[Tensor], Sequence[Tensor]]
"""Gives squared distances of the items in rows ``[r]`` to the codes, M tensors ``[r, K_l]``."""


def parse_policies(value: str | Sequence[str]) -> list[str]:
    """The policies that a value of the key ``collision`` names, aliases replaced.

    Args:
        value: one name, or several in order.

    Raises:
        ConfigError: an unknown name, no name, or names that exclude each other.
    """
    policies: list[str] = []
    for name in [value] if isinstance(value, str) or value is None else value:
        if name not in POLICIES and name not in ALIASES:
            close = difflib.get_close_matches(str(name), [*POLICIES, *ALIASES], n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"collision: unknown policy {name!r}; did you mean {close!r}? Known: "
                f"{', '.join(POLICIES)}."
            )
        policies += ALIASES.get(name, [name])
    if not policies:
        raise ConfigError("collision: the list is empty; write 'none' to allow equal codes.")
    if len(policies) > 1 and ("none" in policies or "extra_token" in policies[:-1]):
        raise ConfigError(
            f"collision: in {policies} 'none' must stand alone and 'extra_token' must come last."
        )
    return policies


def item_groups(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Group rows by equality.

    Args:
        codes: int64 ``[n, M]``.

    Returns:
        The group of each row int64 ``[n]`` and the sizes of the groups ``[G]``, which are in
        lexicographic order of their codes.

    Raises:
        DataError: no rows.
    """
    if not len(codes):
        raise DataError("There are no codes: the catalogue has no item.")
    group = codes.new_zeros(len(codes))
    for column in codes.unbind(1):
        _, column = torch.unique(column, return_inverse=True)
        _, group, count = torch.unique(
            group * len(codes) + column, return_inverse=True, return_counts=True
        )
    return group, count


def collision_stats(codes: Tensor) -> dict:
    """Figures of the codes of a catalogue.

    Levels, items, unique ids, items that share their id, their share (``collision_rate``), the
    largest group, and the share of items that some papers count, all but one of each group
    (``excess_rate``: LETTER's and LC-Rec's ``(n - distinct) / n``).

    Args:
        codes: int64 ``[n, M]``.

    Raises:
        DataError: no rows.
    """
    _, count = item_groups(codes)
    colliding = int(count[count > 1].sum())
    return {
        "levels": codes.shape[1],
        "items": len(codes),
        "unique_ids": len(count),
        "colliding_items": colliding,
        "collision_rate": colliding / len(codes),
        "largest_group": int(count.max()),
        "excess_rate": (len(codes) - len(count)) / len(codes),
    }


def check_capacity(n_items: int, sizes: Sequence[int], policies: str | Sequence[str]) -> None:
    """Refuse sizes that cannot name all items.

    Args:
        n_items: number of items.
        sizes: alphabet size of each level.
        policies: value of the key ``collision``.

    Raises:
        ConfigError: ``policies`` end with ``nearest_free`` and ``sizes`` cannot name ``n_items``
            items.
    """
    if parse_policies(policies)[-1] == "nearest_free" and math.prod(sizes) < n_items:
        raise ConfigError(
            f"collision: {n_items} items, but levels of {list(sizes)} codes can name "
            f"{math.prod(sizes)} only. Add 'extra_token' to collision, or more levels to "
            "codebook_sizes. Larger levels help up to a quarter as many codes as there are items, "
            "and no more codes than there are different vectors."
        )


def resolve_collisions(
    codes: Tensor,
    sizes: Sequence[int],
    policies: str | Sequence[str],
    *,
    distances: Distances | None = None,
    spare: int = 0,
    size: int | None = None,
    epsilon: float = 0.003,
    iterations: int = 50,
    max_rounds: int = 20,
) -> tuple[Tensor, tuple[int, ...]]:
    """Apply policies in order.

    Args:
        codes: learned codes int64 ``[n, M]``.
        sizes: alphabet size of each level.
        policies: value of the key ``collision``.
        distances: of the items to the codes, for ``nearest_free`` and ``sinkhorn``.
        spare: as of :func:`add_extra_token`.
        size: as of :func:`add_extra_token`.
        epsilon: as of :func:`repair_collisions`.
        iterations: as of :func:`repair_collisions`.
        max_rounds: as of :func:`repair_collisions`.

    Returns:
        Codes ``[n, M]``, or ``[n, M + 1]`` with an extra token, and the size of each level.

    Raises:
        ConfigError: an unknown policy, a policy without the distances that it needs, or the codes
            cannot name all items.
        DataError: no items.
    """
    policies = parse_policies(policies)
    sizes = tuple(int(size) for size in sizes)
    check_capacity(len(codes), sizes, policies)
    for policy in policies:
        if policy == "sinkhorn":
            last_level = partial(_last_level, _needed(distances, policy))
            codes = repair_collisions(codes, last_level, epsilon, iterations, max_rounds)
        elif policy == "nearest_free":
            codes = nearest_free(codes, sizes, _needed(distances, policy))
        elif policy == "extra_token" and (
            len(policies) == 1 or int(item_groups(codes)[1].max()) > 1
        ):
            codes, extra = add_extra_token(codes, spare, size)
            sizes = (*sizes, extra)
    return codes, sizes


def _needed(distances: Distances | None, policy: str) -> Distances:
    if distances is None:
        raise ConfigError(
            f"collision: {policy!r} needs distances to the codes, which this tokenizer has not; "
            "use 'extra_token'."
        )
    return distances


def _last_level(distances: Distances, rows: Tensor) -> Tensor:
    """Distances ``[r, K]`` of ``rows [r]`` to the codes of the last level."""
    return distances(rows)[-1]


def _rank_after(ranked: Sequence[Sequence[int]], prefix: tuple[int, ...]) -> Sequence[int]:
    """The codes of the level after ``prefix``, best first."""
    return ranked[len(prefix)]


def add_extra_token(codes: Tensor, spare: int = 0, size: int | None = None) -> tuple[Tensor, int]:
    """Append a level that counts the items with the same codes, 0, 1, 2, ... in row order.

    Args:
        codes: int64 ``[n, M]``.
        spare: values beside those of the largest group, for new items.
        size: values of the level (TIGER: 256); ``None`` = the largest group and ``spare``.

    Returns:
        Codes ``[n, M + 1]``, and the number of values of the new level.

    Raises:
        ConfigError: more items share their codes than ``size``.
        DataError: no items.
    """
    group, count = item_groups(codes)
    largest = int(count.max())
    if size is not None and largest > size:
        raise ConfigError(
            f"extra_token_size is {size}, but {largest} items share the codes "
            f"{codes[group == count.argmax()][0].tolist()}. Raise it or codebook_sizes; a group "
            "this large often means that the tokenizer collapsed."
        )
    order = torch.argsort(group, stable=True)
    index = torch.empty_like(group)
    index[order] = torch.arange(len(codes)) - (count.cumsum(0) - count)[group[order]]
    if size is None:
        size = largest + spare
    return torch.cat([codes, index[:, None]], dim=1), size


def nearest_free(codes: Tensor, sizes: Sequence[int], distances: Distances) -> Tensor:
    """Make codes unique: the item of a group that is nearest to its centroid stays, others move.

    The nearest of them moves first. A moving item takes the nearest centroid of the last level that
    makes its codes unique; when none is free the level before gives way to its next-nearest
    centroid, and so on. "Nearest" item is by the last level's distance, ties by row; groups go by
    their first row (our choice, unpublished).

    Args:
        codes: int64 ``[n, M]``.
        sizes: alphabet size of each level.
        distances: of the items to the codes.

    Returns:
        int64 ``[n, M]``.

    Raises:
        ConfigError: there are more items than ids.
        DataError: no items.
    """
    group, count = item_groups(codes)
    rows = torch.nonzero(count[group] > 1).flatten()
    if not len(rows):
        return codes
    levels = distances(rows)
    ranks = [level.argsort(dim=1, stable=True) for level in levels]
    to_centroid = levels[-1].gather(1, codes[rows, -1:]).flatten()
    first = torch.full_like(count, len(codes)).scatter_reduce(
        0, group, torch.arange(len(codes)), "amin"
    )[group[rows]]
    queue = sorted(zip(first.tolist(), to_centroid.tolist(), range(len(rows)), strict=True))
    codes, table = codes.clone(), FreeCodes(codes, sizes)
    for (before, *_), (now, _, place) in itertools.pairwise(queue):
        if now == before:  # not the first of its group
            row = rows[place]
            ranked = [rank[place].tolist() for rank in ranks]
            free, _ = table.take(codes[row].tolist(), partial(_rank_after, ranked))
            codes[row] = torch.tensor(free)
    return codes


def codes_for_new_items(
    existing: Tensor, sizes: Sequence[int], new: Tensor, distances: Distances | None = None
) -> tuple[Tensor, int]:
    """Codes of new items beside those that are there (our choice, unpublished).

    With L = M + 1 the extra level takes its next free value. An item whose codes have no free value
    left falls back to the rule of :func:`nearest_free`. Where equal codes are allowed (``none``)
    there is nothing to do: append ``new`` as it is.

    Args:
        existing: codes ``[n, L]``, which do not change.
        sizes: alphabet size of each of the L levels.
        new: learned codes int64 ``[m, M]`` of the new items.
        distances: of the new items to the codes; ``None`` = there are none.

    Returns:
        Codes int64 ``[m, L]``, and how many items fell back.

    Raises:
        ConfigError: an item must fall back and there are no distances, or no codes are free.
    """
    n_learned, sizes, fallbacks, result = new.shape[1], tuple(sizes), 0, []
    table = FreeCodes(existing, sizes)
    extra = [list(range(size)) for size in sizes[n_learned:]]
    for row, learned in enumerate(new.tolist()):
        if table.full(tuple(learned)):
            if distances is None:
                raise ConfigError(
                    f"New item {row}: no free value is left under the codes {learned} and the "
                    "tokenizer has no distances."
                )
            levels = distances(torch.tensor([row]))
            ranks = [level[0].argsort(stable=True).tolist() for level in levels]
        else:
            ranks = [[code] for code in learned]
        ranked = ranks + extra
        codes, shared = table.take(learned, partial(_rank_after, ranked))
        result.append(codes)
        fallbacks += shared < len(learned)
    return torch.tensor(result, dtype=torch.long).reshape(-1, len(sizes)), fallbacks


def sinkhorn_round(
    codes: Tensor, distances: Callable[[Tensor], Tensor], epsilon: float, iterations: int
) -> Tensor:
    """One round of repair: each group of equal codes gets new last codes by Sinkhorn on its rows.

    Args:
        codes: int64 ``[n, M]``.
        distances: gives those of the items in rows ``[r]`` to the codes of the last level,
            ``[r, K]``.
        epsilon: as of :func:`~recbole_genrec.tokenizer.quantiser.sinkhorn.sinkhorn`.
        iterations: as there.

    Returns:
        int64 ``[n, M]``.
    """
    group, count = item_groups(codes)
    order = torch.argsort(group, stable=True)
    codes = codes.clone()
    for size in count[count > 1].unique().tolist():
        rows = order[count[group[order]] == size]
        groups = distances(rows).unflatten(0, (-1, size))
        codes[rows, -1] = sinkhorn_codes(groups, epsilon, iterations).flatten()
    return codes


def repair_collisions(
    codes: Tensor,
    last_level_distances: Callable[[Tensor], Tensor],
    epsilon: float,
    iterations: int,
    max_rounds: int,
) -> Tensor:
    """Rounds of :func:`sinkhorn_round` until the codes are unique; only the last level changes.

    Args:
        codes: int64 ``[n, M]``.
        last_level_distances: as ``distances`` of :func:`sinkhorn_round`, squared.
        epsilon: as of :func:`sinkhorn_round`.
        iterations: as of :func:`sinkhorn_round`.
        max_rounds: rounds, at most.

    Returns:
        Codes int64 ``[n, M]`` of the round with most unique ids, the latest of equal ones (the
        released implementation returns the last round; our choice).
    """
    best, most = codes, len(item_groups(codes)[1])
    for _ in range(max_rounds):
        if most == len(codes):
            break
        codes = sinkhorn_round(codes, last_level_distances, epsilon, iterations)
        unique = len(item_groups(codes)[1])
        if unique >= most:
            best, most = codes, unique
    return best
