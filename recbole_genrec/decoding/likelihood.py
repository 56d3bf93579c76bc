"""What ``score_type: renormalised`` ranks by, as a training loss (our choice, unpublished)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.decoding.trie import ItemTrie


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy with label smoothing over the classes that compete.

    ``smoothing`` of the probability is spread evenly over the classes whose logit is not -inf.

    Args:
        logits: ``[N, V]``.
        labels: ``[N]``.
        smoothing: share of the probability; 0 is the plain cross-entropy.
    """
    if smoothing == 0:
        return cross_entropy(logits, labels)
    log_probs = logits.log_softmax(-1)
    competes = logits > -torch.inf
    of_label = log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)  # [N]
    mean = log_probs.masked_fill(~competes, 0).sum(1) / competes.sum(1)  # [N]
    return -((1 - smoothing) * of_label + smoothing * mean).mean()


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
    nodes = trie.paths(trie.leaf_of_item[items])  # L + 1 tensors [P]
    losses = []
    branching = trie.levels[: trie.forced_from]
    for (depth, level), block in zip(enumerate(branching), logits, strict=False):
        codes, children, _ = trie.children(depth, nodes[depth])  # [P, W]
        values = block.float()
        if codes is not None:
            values = values.gather(-1, codes)  # [P, W]
        values = values.masked_fill(children < 0, -torch.inf)
        slot = level.slot(nodes[depth + 1])
        losses.append(smoothed_cross_entropy(values, slot, smoothing))

    if not losses:  # all items on one leaf, whose probability is one
        return 0.0 * next(iter(logits)).float().sum()
    return torch.stack(losses).sum()
