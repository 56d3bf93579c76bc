"""The flat head: a softmax over all items, as in SASRec (arXiv 1808.09781) with its full loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding import ItemTrie, cached_cross_entropy
from recbole_genrec.decoding.closed_codes import marked
from recbole_genrec.decoding.whole_catalogue import OUTSIDE


def flat_loss(
    states: Tensor,
    vectors: Tensor,
    items: Tensor,
    excluded: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean over targets of -log p(item), in nats.

    Args:
        states: ``[P, d]``.
        vectors: output vectors of all items ``[n_items, d]``; row 0 is not read.
        items: targets ``[P]``.
        excluded: items that do not compete with each target ``[P, H]``, 0 = none.
        smoothing: share of the probability that is spread evenly over the items that compete.
    """
    mask = None
    if excluded is not None:
        mask = marked(excluded - 1, len(vectors) - 1)
    return cached_cross_entropy(
        states, vectors[1:], items - 1, mask=mask, label_smoothing=smoothing
    )


def flat_log_probs(states: Tensor, vectors: Tensor, trie: ItemTrie) -> Tensor:
    """Log-probabilities of all items.

    Args:
        states: float32 ``[B, d]``.
        vectors: output vectors of all items ``[n_items, d]``; row 0 is not read.
        trie: of the items to choose among; of a subset with ``subset_norm: subset`` only its
            members compete.

    Returns:
        float32 ``[B, n_items]``, finite.
    """
    logits = states @ vectors[1:].float().T  # [B, n_items - 1]
    if trie.subset_norm == "subset":
        logits = logits.masked_fill(trie.leaf_of_item[1:] < 0, OUTSIDE)
    counts = trie.counts(torch.arange(1, len(vectors), device=logits.device))
    competing = logits.masked_fill(~counts, -torch.inf)
    if not (counts & (trie.leaf_of_item[1:] >= 0)).any():
        competing = logits  # added items alone
    scores = logits - competing.logsumexp(-1, keepdim=True)
    return pad(scores, (1, 0), value=OUTSIDE)
