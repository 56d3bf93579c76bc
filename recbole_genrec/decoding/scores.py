"""Scores of codes, leaves and items. All scores are sums of log-probabilities, float32 and <= 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.trie import Children, ItemTrie

FLOOR = -1e4  # least log-probability of a legal code: keeps every legal path finite
TIE = 1e-6  # least score difference between the first and the last item of the fullest leaf
TIE_RELATIVE = 2.0**-23  # a float32 spacing: neighbours stay apart however low the score is


def decoder_calls(trie: ItemTrie, score_type: str) -> int:
    """How many levels need the decoder: under ``renormalised`` a forced code costs 0, so a tail without branches needs none."""
    return trie.forced_from if score_type == "renormalised" else trie.depth


def child_log_probs(children: Children, block: Tensor | None, score_type: str) -> Tensor:
    """Log-probabilities ``[B, Q, W]`` of the children, -inf where illegal.

    ``block`` float32 ``[B, Q, V_t]`` is the decoder's answer, or None where every code is forced. ``renormalised`` subtracts the
    log-sum-exp over the legal children; ``joint`` and ``level`` take the decoder's normalisation. Children may have a batch size of 1.
    """
    illegal = children.nodes < 0
    if block is None:
        return torch.zeros(illegal.shape, device=illegal.device).masked_fill_(illegal, -torch.inf)
    values = (
        block
        if children.codes is None
        else block.gather(-1, children.codes.expand(block.shape[0], -1, -1))
    )
    if score_type == "renormalised":
        values = values.clamp(min=FLOOR)  # children that all have -inf are equally likely
        values = values - values.masked_fill(children.counted < 0, -torch.inf).logsumexp(
            -1, keepdim=True
        )
    return values.clamp(FLOOR, 0).masked_fill_(illegal, -torch.inf)


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Index int64 ``[B, min(k, C)]`` of the best of ``scores`` ``[B, C]`` (all <= 0), best first, and the best score left out ``[B]``.

    Equal scores are ordered by index, on every device: the bits of a non-negative float sort like an integer, so magnitude and index
    together make one unique key.
    """
    n = scores.shape[1]
    keys = (
        scores.abs()
        .view(torch.int32)
        .long()
        .bitwise_left_shift_(32)
        .add_(torch.arange(n, device=scores.device))
    )
    index = keys.topk(min(k + 1, n), largest=False).values & 0xFFFFFFFF
    if n <= k:
        return index, scores.new_full((len(scores),), -torch.inf)
    return index[:, :k], scores.gather(1, index[:, k:]).squeeze(1)


def break_ties(trie: ItemTrie, scores: Tensor, rank: Tensor | float) -> Tensor:
    """Lower the score of a leaf for its item number ``rank`` (0 = first): 1e-6 times its share of the longest leaf, or one float32 spacing
    an item where that is more."""
    return (
        scores - rank * (scores.abs() * TIE_RELATIVE).clamp(TIE / trie.max_rank, 1)
        if trie.max_rank
        else scores
    )


def best_leaves(trie: ItemTrie, scores: Tensor, leaves: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of the candidate ``leaves`` int64 ``[B, C]`` (-1 = none), in their order, and their ``scores`` ``[B, C]``.

    Equal scores: the first of ``leaves`` wins.
    """
    if trie.max_rank:
        adjusted = break_ties(trie, scores, trie.leaf_rank[trie.leaf_ptr[leaves.clamp(min=0)]])
    chosen = top(adjusted if trie.max_rank else scores, k)[0].sort(-1).values
    return leaves.gather(1, chosen), scores.gather(1, chosen)


def best_items(trie: ItemTrie, scores: Tensor, leaves: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best items on the candidate ``leaves`` int64 ``[B, C]`` (in order, -1 = none) with leaf ``scores`` ``[B, C]``.

    Returns items int64 ``[B, k]`` and scores ``[B, k]``, padded with 0 and -inf. Equal scores: smaller codes first, then the tie order.
    """
    leaf, scores = best_leaves(trie, scores, leaves, k)
    leaf = torch.where(leaf < 0, trie.n_leaves, leaf)
    rows = trie.leaf_ptr[leaf].unsqueeze(-1) + torch.arange(
        min(k, trie.leaf_width), device=leaf.device
    )
    valid = rows < trie.leaf_ptr[leaf + 1].unsqueeze(-1)
    rows = torch.where(valid, rows, 0)
    expanded = (
        break_ties(trie, scores.unsqueeze(-1), trie.leaf_rank[rows])
        .masked_fill(~valid, -torch.inf)
        .flatten(1)
    )
    items = torch.where(valid, trie.leaf_items[rows], 0).flatten(1)
    index, _ = top(expanded, k)
    padding = (0, k - index.shape[1])
    items = pad(items.gather(1, index), padding)
    return items, pad(expanded.gather(1, index), padding, value=-torch.inf)


def outside_score(trie: ItemTrie) -> float:
    """Finite score of the padding item and of items outside the trie, below every score or filler of a member."""
    return 2 * (trie.depth + 1) * FLOOR


class Ranking:
    """Scores of all items after a beam search (our choice, unpublished).

    Keeps what the search scored and carries upper bounds of all nodes down level by level at the end; a leaf that was scored keeps its
    exact score.
    """

    def __init__(self, trie: ItemTrie, users: int, device: torch.device):
        self.trie, self.users = trie, torch.arange(users, device=device)
        self.scored: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in trie.levels]
        self.exact: list[tuple[Tensor, Tensor]] = []

    def note(self, t: int, nodes: Tensor, scores: Tensor) -> None:
        """Note the ``scores`` of ``nodes`` ``[B, C]`` of depth t + 1 (-1 = none)."""
        self.scored[t].append((self.users, nodes, scores))

    def reach(self, leaves: Tensor) -> None:
        """Note leaves int64 ``[B, C]`` (-1 = none) whose score is exact."""
        self.exact.append((self.users, leaves))

    def add(self, rows: Tensor, more: Ranking) -> None:
        """Take over what another search of some users reached."""
        for mine, other in zip(self.scored, more.scored, strict=True):
            mine += [(rows[users], nodes, scores) for users, nodes, scores in other]
        self.exact += [(rows[users], leaves) for users, leaves in more.exact]

    def items(self) -> Tensor:
        """float32 ``[B, n_items]``, all finite: exact scores of the reached items, the others strictly below in the order of their bounds
        (up to tie steps), items outside the trie last."""
        bounds = torch.zeros(len(self.users), 1, device=self.users.device)
        for level, scored in zip(self.trie.levels, self.scored, strict=True):
            bounds = pad(bounds.index_select(1, level.parent[:-1]), (0, 1))
            for users, nodes, scores in scored:
                _write(bounds, users, nodes, scores)
            bounds = bounds[:, :-1]
        reached = torch.zeros(
            len(self.users), self.trie.n_leaves + 1, dtype=torch.bool, device=self.users.device
        )
        for users, leaves in self.exact:
            _write(reached, users, leaves, True)
        reached = reached[:, :-1]
        lowest = break_ties(
            self.trie, bounds.masked_fill(~reached, 0).amin(1, keepdim=True), self.trie.max_rank
        )
        highest = bounds.masked_fill(reached, -torch.inf).amax(1, keepdim=True)
        return item_scores(self.trie, torch.where(reached, bounds, lowest - 1 - (highest - bounds)))


def item_scores(trie: ItemTrie, leaf_scores: Tensor) -> Tensor:
    """Leaf scores ``[B, S_L]`` as item scores ``[B, n_items]``, ties on a leaf broken."""
    full = leaf_scores.new_full((len(leaf_scores), trie.n_items), outside_score(trie))
    values = leaf_scores.index_select(1, trie.leaf_of_row)
    full[:, trie.leaf_items] = break_ties(trie, values, trie.leaf_rank)
    return full


def _write(table: Tensor, users: Tensor, columns: Tensor, values: Tensor | bool) -> None:
    """``table[users[r], columns[r, c]] = values[r, c]``; ``users`` ascend, column -1 is the last."""
    columns = torch.where(columns < 0, table.shape[1] - 1, columns)
    if len(users) == len(table):
        table.scatter_(1, columns, values)
    else:
        table[users] = table[users].scatter_(1, columns, values)
