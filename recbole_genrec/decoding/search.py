"""Beam search through the item trie with a proof of exactness per user."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.protocol import CodeDecoder, SearchResult, check_block, check_search
from recbole_genrec.decoding.scores import (
    Ranking,
    best_items,
    best_leaves,
    child_log_probs,
    decoder_calls,
    top,
)
from recbole_genrec.decoding.trie import ItemTrie

SLACK = 1e-3  # float32 may round the score of the k-th item differently in another batch


@torch.no_grad()
def beam_search(
    decoder: CodeDecoder,
    trie: ItemTrie,
    beam_width: int,
    *,
    score_type: str = "level",
    fill: bool = False,
    count: bool | None = None,
) -> SearchResult:
    """The ``beam_width`` best items per user among those the beams reach.

    Only prefixes of items are followed (TIGER, arXiv 2305.05065, section 3.2, with a trie instead of filtering afterwards). The search
    starts with one beam per user; nothing is pruned after the last code, so every leaf below a live beam has its exact score. Under
    ``renormalised`` a prefix of a single leaf is finished, since all further codes cost 0: it joins the found items and takes no beam (our
    choice, unpublished). Beams stand in lexicographic order, hence equal scores are decided by smaller codes first.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be returned, on the decoder's device.
        beam_width: K, number of unfinished prefixes kept per step and of items returned.
        score_type: ``joint`` or ``level`` (the decoder's log-probabilities), or ``renormalised`` (over the legal codes).
        fill: also return ``full`` ``[B, n_items]`` for full ranking.
        count: under ``renormalised``, keep no more beams than some user has, and stop when nobody has any; the results are the same. The
            number is read on the host at every step, so the default is True on a CPU and False elsewhere, where nothing waits.

    Raises:
        ConfigError: unknown score type or width; BackboneError: the decoder's output does not fit the alphabets.
    """
    check_search(score_type, beam_width)
    count = score_type == "renormalised" and (
        decoder.device.type == "cpu" if count is None else count
    )
    return descend(
        decoder, trie, beam_width, beam_width, score_type=score_type, fill=fill, count=count
    ).result(trie)


@dataclass
class Found:
    """What a search reached: the k best leaves int64 ``[B, k]`` (in any order, -1 = none) and their ``scores`` ``[B, k]``.

    ``first`` and ``longer`` ``[B]``: scores of the best pruned first code and of the best longer prefix that was pruned. ``searched``
    bool ``[B, C]``: the first codes that were followed, None with a single level.
    """

    leaves: Tensor
    scores: Tensor
    first: Tensor
    longer: Tensor
    searched: Tensor | None
    ranking: Ranking | None

    def worst(self) -> Tensor:
        """Score of the k-th leaf ``[B]``, -inf with fewer."""
        return self.scores.amin(1)

    def add(self, trie: ItemTrie, rows: Tensor, more: Found, longer: Tensor) -> None:
        """Take over what another search of some users found; ``longer`` ``[R]`` is their new bound on longer prefixes."""
        leaves, scores = (
            torch.cat([self.leaves[rows], more.leaves], 1),
            torch.cat([self.scores[rows], more.scores], 1),
        )
        self.leaves[rows], self.scores[rows] = best_of(trie, leaves, scores, self.leaves.shape[1])
        self.first[rows], self.longer[rows], self.searched[rows] = more.first, longer, more.searched
        if self.ranking:
            self.ranking.add(rows, more.ranking)

    @property
    def bound(self) -> Tensor:
        """Best score that anything pruned could still reach ``[B]``."""
        return torch.maximum(self.first, self.longer)

    def result(self, trie: ItemTrie) -> SearchResult:
        """The items on the leaves."""
        order = self.leaves.argsort(1)
        items, scores = best_items(
            trie, self.scores.gather(1, order), self.leaves.gather(1, order), self.leaves.shape[1]
        )
        return SearchResult(
            items, scores, self.bound, self.ranking.items() if self.ranking else None
        )


def raised(floor: Tensor, found: list[tuple[Tensor, Tensor]], k: int) -> Tensor:
    """``floor`` ``[B]``, or the score of the k-th leaf found where that is higher: nothing below it can reach the k best."""
    scores = torch.cat([part for _, part in found], 1)
    return (
        torch.maximum(floor, scores.topk(k).values[:, -1] - SLACK)
        if scores.shape[1] >= k
        else floor
    )


def best_of(trie: ItemTrie, leaves: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of ``leaves`` ``[B, C]`` in any order, also repeated, padded to ``k``: leaves and scores ``[B, k]``."""
    leaves, order = leaves.sort(1)
    repeated = pad(leaves[:, 1:] == leaves[:, :-1], (1, 0)) if leaves.shape[1] else leaves < 0
    scores = scores.gather(1, order).masked_fill(repeated, -torch.inf)
    leaves, scores = best_leaves(trie, scores, leaves.masked_fill(repeated, -1), k)
    padding = (0, k - leaves.shape[1])
    return pad(leaves, padding, value=-1), pad(scores, padding, value=-torch.inf)


def descend(
    decoder: CodeDecoder,
    trie: ItemTrie,
    width: int,
    k: int,
    *,
    score_type: str,
    fill: bool,
    count: bool,
    searched: Tensor | None = None,
    floor: Tensor | None = None,
    widest: int | None = None,
) -> Found:
    """One pass from the root to the leaves, see :func:`beam_search`.

    Args:
        width: beams kept per step. k: leaves returned. count: keep no more beams than some user has (reads a number at every step).
        searched: bool ``[B, C]``, first codes that are left out.
        floor: float32 ``[B]``; prefixes below it, and below the k-th leaf found so far, are pruned; None = none are.
        widest: beams kept after the first step, default ``width``.
    """
    calls, users, free = (
        decoder_calls(trie, score_type),
        decoder.batch_size,
        score_type == "renormalised",
    )
    nodes = torch.zeros(users, 1, dtype=torch.int64, device=decoder.device)
    scores = torch.zeros(users, 1, device=decoder.device)
    pruned = (
        [scores.squeeze(1) - torch.inf],
        [scores.squeeze(1) - torch.inf],
    )  # first codes, longer prefixes: the best scores left out
    rising, lowest = (
        floor is not None,
        torch.finfo(scores.dtype).min,
    )  # above -inf, the score of what is illegal
    floor = floor.clamp(min=lowest) if rising else torch.full_like(scores[:, 0], lowest)
    ranking = Ranking(trie, users, decoder.device) if fill else None
    found = [(nodes[:, :0], scores[:, :0])]
    block = decoder.start() if calls else None
    for t, level in enumerate(trie.levels[: max(calls, 1)]):
        if block is not None:
            block = check_block(block, users, nodes.shape[1], level.size, t)
        children = trie.children(t, nodes)
        candidates = (scores.unsqueeze(-1) + child_log_probs(children, block, score_type)).flatten(
            1
        )
        below = children.nodes.flatten(1).long()
        if fill:
            ranking.note(t, below, candidates)
        if free or t + 1 == trie.depth:
            leaves = trie.leaf_below(t + 1, below)
            found.append(
                best_leaves(trie, candidates.masked_fill(leaves < 0, -torch.inf), leaves, k)
            )
            candidates = candidates.masked_fill(leaves >= 0, -torch.inf)
            if fill:
                ranking.reach(leaves)
            if rising:
                floor = raised(floor, found, k)
        if t + 1 == max(calls, 1):
            break
        if not t:
            searched = torch.zeros_like(below, dtype=torch.bool) if searched is None else searched
            candidates = candidates.masked_fill(searched, -torch.inf)
        beams = widest or width if t else width
        if count and users:
            beams = min(beams, int((candidates >= floor.unsqueeze(1)).sum(1).max()))
        if beams < 1:
            pruned[min(t, 1)].append(candidates.amax(1))
            break
        kept, left_out = top(candidates, min(beams, level.n_edges))
        pruned[min(t, 1)].append(left_out)
        kept = kept.sort(-1).values
        if not t:
            searched = searched.scatter(1, kept, True)
        scores, slots = candidates.gather(1, kept), children.nodes.shape[-1]
        dead = scores < floor.unsqueeze(1)
        pruned[min(t, 1)].append(scores.masked_fill(~dead, -torch.inf).amax(1))
        scores = scores.masked_fill(dead, -torch.inf)
        nodes = below.gather(1, kept).masked_fill(dead, -1)
        codes = (
            kept % slots if children.codes is None else children.codes.flatten(1).gather(1, kept)
        )
        skip_dead = count and getattr(decoder, "takes_live", False) and bool(dead.any())
        block = decoder.step(codes, kept // slots, **({"live": ~dead} if skip_dead else {}))
    leaves, scores = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    return Found(
        *best_of(trie, leaves, scores, k),
        *(torch.stack(part).amax(0) for part in pruned),
        searched,
        ranking,
    )
