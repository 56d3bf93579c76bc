"""What ``score_type: renormalised`` ranks by, as a training loss (our choice, unpublished)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from recbole_genrec.decoding.smoothing import smoothed_cross_entropy
from recbole_genrec.decoding.trie import ItemTrie


def level_logits(
    logits: Callable[[Tensor, int], Tensor], states: Tensor, temperature: float = 1.0
) -> Iterator[Tensor]:
    """The logits of each level from the states that predict its codes, computed when asked for.

    Args:
        logits: ``(states [P, d], level) -> [P, V_level]``.
        states: ``[P, L, d]``.
        temperature: divides the logits.

    Yields:
        ``[P, V_level]``.
    """
    for level, state in enumerate(states.unbind(1)):
        yield logits(state, level) / temperature


def item_cross_entropy(
    trie: ItemTrie, items: Tensor, logits: Iterable[Tensor], smoothing: float = 0.0
) -> Tensor:
    """Mean over items of ``-log p(item)``, in nats.

    Each code competes only with the codes that the trie allows after its prefix. The probabilities
    of all leaves sum to one, so nothing is spent on learning which tuples exist.

    Args:
        trie: the trie of the items.
        items: int64 ``[P]``, ids of items with a code tuple.
        logits: ``[P, V_level]`` of every level in order. Levels at the end where no prefix branches
            cost nothing and are not read.
        smoothing: label smoothing of each code.

    Returns:
        float32 scalar.
    """
    return torch.stack(level_cross_entropies(trie, items, logits, smoothing)).sum()


def level_cross_entropies(
    trie: ItemTrie, items: Tensor, logits: Iterable[Tensor], smoothing: float = 0.0
) -> list[Tensor]:
    """The parts of :func:`item_cross_entropy`, one for each level that branches.

    Args:
        trie: the trie of the items.
        items: int64 ``[P]``, ids of items with a code tuple.
        logits: as in :func:`item_cross_entropy`.
        smoothing: share of the probability that is spread evenly over the codes that compete.

    Returns:
        float32 scalars, at least one.
    """
    nodes = trie.paths(trie.leaf_of_item[items])  # L + 1 tensors [P]
    losses = []
    branching = trie.levels[: trie.forced_from]
    for (depth, level), block in zip(enumerate(branching), logits, strict=False):
        codes, children, _ = trie.children(depth, nodes[depth])  # [P, W]
        values = block.float()
        if codes is not None:
            values = values.gather(-1, codes)  # [P, W]
        values = values.masked_fill(children < 0, -torch.inf)
        target = level.slot(nodes[depth + 1])
        losses.append(smoothed_cross_entropy(values, target, smoothing))

    if not losses:  # all items on one leaf, whose probability is one
        return [0.0 * next(iter(logits)).float().sum()]
    return losses
