"""How many codes a level gets: as many as asked for, where there are items enough to fill them."""

from __future__ import annotations

from collections.abc import Sequence

AUTO = "auto"
LARGE = 10_000
"""More users or items than these have TokenRec's larger codebooks."""


def sizes_asked(sizes: Sequence[int] | str, *counts: int) -> list[int]:
    """The sizes that ``codebook_sizes`` asks for.

    ``auto`` is TokenRec's rule (arXiv 2406.10450): 3 of 256, and of 512 for large data.

    Args:
        sizes: value of the key.
        *counts: numbers of what is named, such as users and items; the largest decides.
    """
    if sizes != AUTO:
        return [int(size) for size in sizes]
    size = 512 if max(counts) > LARGE else 256
    return [size] * 3


def effective_sizes(n: int, sizes: Sequence[int], items_a_code: int = 4) -> tuple[int, ...]:
    """Codes per level that ``n`` items can fill.

    At most ``n // 4`` and at least 2 of the wanted ``sizes`` (our choice, unpublished). The same
    for every tokenizer, so that a comparison compares codes and not sizes.

    Args:
        n: number of items.
        sizes: codes of each level that were asked for.
        items_a_code: fewest items of a code, on average.
    """
    return tuple(min(size, max(2, n // items_a_code)) for size in sizes)


def sizes_notice(n: int, asked: Sequence[int], used: Sequence[int]) -> str:
    """What to say where levels have fewer codes than were asked for; empty where none has.

    Args:
        n: number of items.
        asked: codes of each level that were asked for.
        used: codes that the learned levels have.
    """
    asked, used = list(asked), list(used)
    if len(used) != len(asked):
        return ""
    if all(size >= size_asked for size, size_asked in zip(used, asked, strict=True)):
        return ""
    reason = f"because of {n} items"
    if tuple(used) != effective_sizes(n, asked):
        reason += ", or because too few of their vectors differ"
    return f"codebook_sizes {asked} -> {used} {reason}"
