"""Scores of codes, leaves and items. All scores are sums of log-probabilities, float32 and <= 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.trie import ItemTrie
from recbole_genrec.decoding.trie_level import Children

FLOOR = -1e4  # least log-probability of a legal code: keeps every legal path finite
TIE = 1e-6  # least score difference between the first and the last item of the fullest leaf
TIE_RELATIVE = 2.0**-23  # a float32 spacing: neighbours stay apart however low the score is


def decoder_calls(trie: ItemTrie, score_type: str) -> int:
    """How many levels need the decoder.

    Under ``renormalised`` a forced code costs 0, so levels at the end without branches need none.
    """
    if score_type == "renormalised":
        return trie.forced_from
    return trie.depth


def child_log_probs(children: Children, block: Tensor | None, score_type: str) -> Tensor:
    """Log-probabilities of the children of a block of nodes.

    ``renormalised`` subtracts the log-sum-exp over the legal children; ``joint`` and ``level`` take
    the decoder's normalisation.

    Args:
        children: the children of Q nodes per user, W slots each; the batch size may be 1.
        block: float32 ``[B, Q, V_t]``, the decoder's answer, or None where every code is forced.
        score_type: ``joint``, ``level`` or ``renormalised``.

    Returns:
        float32 ``[B, Q, W]``, -inf where illegal.
    """
    illegal = children.nodes < 0
    if block is None:
        free = torch.zeros(illegal.shape, device=illegal.device)
        return free.masked_fill_(illegal, -torch.inf)

    values = block
    if children.codes is not None:
        codes = children.codes.expand(block.shape[0], -1, -1)
        values = block.gather(-1, codes)  # [B, Q, W]
    if score_type == "renormalised":
        is_counted = children.counted >= 0
        values = values.maximum(_lowest(values, is_counted))
        counted = values.masked_fill(~is_counted, -torch.inf)
        values = values - counted.logsumexp(-1, keepdim=True)
    return values.clamp(FLOOR, 0).masked_fill_(illegal, -torch.inf)


def _lowest(values: Tensor, is_counted: Tensor) -> Tensor:
    """The floor of raw values, below the largest of those that count, ``[B, Q, 1]``.

    Children that all have -inf are equally likely.
    """
    largest = values.masked_fill(~is_counted, -torch.inf).amax(-1, keepdim=True)
    return largest.masked_fill(largest == -torch.inf, 0) + FLOOR


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best of some scores; equal ones are ordered by index, on every device.

    The bits of a non-negative float sort like an integer, so magnitude and index together make one
    unique key.

    Args:
        scores: float32 ``[B, C]``, all <= 0.
        k: how many.

    Returns:
        Index int64 ``[B, min(k, C)]`` of the best, best first, and the best score left out ``[B]``.
    """
    n = scores.shape[1]
    keys = scores.abs().view(torch.int32).long()
    keys.bitwise_left_shift_(32).add_(torch.arange(n, device=scores.device))
    index = keys.topk(min(k + 1, n), largest=False).values & 0xFFFFFFFF
    if n <= k:
        return index, scores.new_full((len(scores),), -torch.inf)
    return index[:, :k], scores.gather(1, index[:, k:]).squeeze(1)


def break_ties(trie: ItemTrie, scores: Tensor, rank: Tensor | float) -> Tensor:
    """Lower the scores of items that share a leaf, so that they differ.

    A step is 1e-6 divided by the number of steps on the longest leaf, or one float32 spacing where
    that is more.

    Args:
        trie: the trie of the leaves.
        scores: float32 ``[...]``, the scores of leaves.
        rank: place of the item on its leaf, 0 = first; of a shape that broadcasts with that of
            ``scores``, or one for all.

    Returns:
        float32, the scores of the items, of the shape of both together.
    """
    if not trie.max_rank:
        return scores
    step = (scores.abs() * TIE_RELATIVE).clamp(TIE / trie.max_rank, 1)
    return scores - rank * step


def break_item_ties(trie: ItemTrie, scores: Tensor) -> Tensor:
    """:func:`break_ties` for scores of all items.

    Args:
        trie: the trie of the items.
        scores: float32 ``[B, n_items]``.

    Returns:
        float32 ``[B, n_items]``.
    """
    if not trie.max_rank:
        return scores
    return break_ties(trie, scores, item_ranks(trie))


def item_ranks(trie: ItemTrie) -> Tensor:
    """Place of each item on its leaf, float32 ``[n_items]``; 0 for items outside the trie."""
    ranks = torch.zeros(trie.n_items, device=trie.device)
    ranks[trie.leaf_items] = trie.leaf_rank
    return ranks


def best_leaves(
    trie: ItemTrie, scores: Tensor, leaves: Tensor, k: int, exclusion: Exclusion | None = None
) -> tuple[Tensor, Tensor]:
    """The best of some leaves; of equal ones the first.

    Args:
        trie: the trie of the leaves.
        scores: float32 ``[B, C]``.
        leaves: int64 ``[B, C]``, -1 = none.
        k: number of leaves.
        exclusion: items that do not count; their closed leaves are not among ``leaves``.

    Returns:
        leaves int64 ``[B, min(k, C)]``, in the order in which they were given, and their scores.
    """
    first_item_scores = scores
    if trie.max_rank:  # in a subset the first item of a leaf may have a rank above 0
        known = leaves.clamp(min=0)
        rows = trie.leaf_ptr[known] if exclusion is None else exclusion.first_rows(known)
        rank = trie.leaf_rank[rows]
        first_item_scores = break_ties(trie, scores, rank)
    chosen = top(first_item_scores, k)[0].sort(-1).values
    return leaves.gather(1, chosen), scores.gather(1, chosen)


def best_items_on_leaves(
    trie: ItemTrie, scores: Tensor, leaves: Tensor, k: int, exclusion: Exclusion | None = None
) -> tuple[Tensor, Tensor]:
    """The best items on some leaves. Equal scores: smaller codes first, then the tie order.

    Args:
        trie: the trie of the leaves.
        scores: float32 ``[B, C]``.
        leaves: int64 ``[B, C]`` in ascending order, -1 = none.
        k: number of items.
        exclusion: items that are left out; their closed leaves are not among ``leaves``.

    Returns:
        items int64 ``[B, k]`` and scores float32 ``[B, k]``, best first, padded with 0 and -inf.
    """
    leaves, scores = best_leaves(trie, scores, leaves, k, exclusion)  # [B, k]
    leaves = torch.where(leaves < 0, trie.n_leaves, leaves)

    # No more than k items of a leaf, and the excluded before them, can be among the k best.
    n_places = k if exclusion is None else k + exclusion.rows.shape[1]
    places = torch.arange(min(n_places, trie.leaf_width), device=leaves.device)  # [P]
    rows = trie.leaf_ptr[leaves].unsqueeze(-1) + places  # [B, k, P]
    valid = rows < trie.leaf_ptr[leaves + 1].unsqueeze(-1)
    rows = torch.where(valid, rows, 0)
    if exclusion is not None:
        valid = valid & ~exclusion.is_excluded(rows)
    values = break_ties(trie, scores.unsqueeze(-1), trie.leaf_rank[rows])
    values = values.masked_fill(~valid, -torch.inf).flatten(1)  # [B, k * P]
    items = torch.where(valid, trie.leaf_items[rows], 0).flatten(1)

    index, _ = top(values, k)
    padding = (0, k - index.shape[1])
    items = pad(items.gather(1, index), padding)
    return items, pad(values.gather(1, index), padding, value=-torch.inf)


def outside_score(trie: ItemTrie) -> float:
    """Finite score of the padding item and of items outside the trie, below that of any member."""
    return 2 * (trie.depth + 1) * FLOOR


def unreached_score(trie: ItemTrie) -> float:
    """Finite score of members that a search has no bound for: below the reached, above outside."""
    return outside_score(trie) / 2


def item_scores(trie: ItemTrie, leaf_scores: Tensor, exclusion: Exclusion | None = None) -> Tensor:
    """Scores of leaves as scores of items, ties on a leaf broken.

    Args:
        trie: the trie of the leaves.
        leaf_scores: float32 ``[B, S_L]``, or ``[B, S_L + 1]`` with a last column that is
            overwritten, which saves a copy.
        exclusion: items that get the lowest value.

    Returns:
        float32 ``[B, n_items]``.
    """
    if leaf_scores.shape[1] == trie.n_leaves:
        leaf_scores = pad(leaf_scores, (0, 1))
    leaf_scores[:, -1] = outside_score(trie)
    leaves = trie.leaf_of_item
    leaves = torch.where(leaves < 0, trie.n_leaves, leaves)
    full = break_item_ties(trie, leaf_scores.index_select(1, leaves))  # [B, n_items]
    if exclusion is None:
        return full
    return full.scatter(1, exclusion.items, 2 * outside_score(trie))
