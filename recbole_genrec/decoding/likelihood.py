"""What ``score_type: renormalised`` ranks by, as a training loss (our choice, unpublished)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.decoding.trie import ItemTrie


def item_cross_entropy(trie: ItemTrie, items: Tensor, logits: Iterable[Tensor]) -> Tensor:
    """Mean over items of ``-log p(item)``, in nats: each code competes only with the codes that the trie allows after its prefix.

    The probabilities of all leaves sum to one, so nothing is spent on learning which tuples exist.

    Args:
        items: ``[P]`` ids of items with a code tuple.
        logits: ``[P, V_level]`` of every level in order; levels at the end where no prefix branches cost nothing and are not read.
    """
    nodes, total = trie.paths(trie.leaf_of_item[items]), []
    for (level, at), block in zip(enumerate(trie.levels[: trie.forced_from]), logits, strict=False):
        codes, children, _ = trie.children(level, nodes[level])
        values = block.float() if codes is None else block.float().gather(-1, codes)
        total.append(
            cross_entropy(values.masked_fill(children < 0, -torch.inf), at.slot(nodes[level + 1]))
        )
    if not total:  # all items on one leaf, whose probability is one
        return 0.0 * next(iter(logits)).float().sum()
    return torch.stack(total).sum()
