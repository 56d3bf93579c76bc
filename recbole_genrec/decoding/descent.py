"""One pass of a beam search through the item trie, from the root to the leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import CodeDecoder, LiveDecoder, check_block
from recbole_genrec.decoding.ranking import Ranking
from recbole_genrec.decoding.reached import SLACK, Reached, distinct_best_leaves
from recbole_genrec.decoding.scores import (
    best_leaves,
    child_log_probs,
    decoder_calls,
    top,
)
from recbole_genrec.decoding.trie import ItemTrie


@dataclass(frozen=True)
class SearchOptions:
    """How a beam search scores and what it keeps.

    Args:
        score_type: ``joint``, ``level`` or ``renormalised``.
        fill: whether to keep what is needed to rank all items.
        count: whether to keep no more beams than some user has. The number is read on the host at
            every step.
    """

    score_type: str
    fill: bool = False
    count: bool = False


@dataclass(frozen=True)
class Limits:
    """How much one pass searches.

    Args:
        first: most first codes that are followed.
        longer: most longer prefixes that are followed at each later step.
        floor: float32 ``[B]``; prefixes below it, and below the k-th leaf reached so far, are
            pruned. None = a score alone prunes nothing.
        searched: bool ``[B, C]``, first codes that are left out because an earlier pass followed
            them. None = none.
    """

    first: int
    longer: int
    floor: Tensor | None = None
    searched: Tensor | None = None


class Candidates(NamedTuple):
    """All children of all beams of a step: C = Q beams of W slots each.

    Attributes:
        scores: float32 ``[B, C]``, -inf = illegal or already a finished leaf.
        nodes: int64 ``[B, C]``, nodes of the trie, -1 = illegal.
        codes: int64 ``[B, C]``, or None where the slot is the code.
        slots: W.
    """

    scores: Tensor
    nodes: Tensor
    codes: Tensor | None
    slots: int


class Descent:
    """One pass from the root to the leaves, for all users of a decoder at once.

    A step expands the beams, collects the leaves that are finished, prunes the other candidates
    and lets the decoder step to those that are left. These become the next beams.

    Args:
        decoder: the generator for B users, in evaluation mode.
        trie: the items that may be reached, on the decoder's device.
        k: number of leaves returned.
        options: how to score, and what to keep.
        limits: how much to search.
        exclusion: what users must not get; None = they may get all items.
    """

    def __init__(
        self,
        decoder: CodeDecoder,
        trie: ItemTrie,
        k: int,
        options: SearchOptions,
        limits: Limits,
        exclusion: Exclusion | None = None,
    ) -> None:
        self.decoder = decoder
        self.trie = trie
        self.k = k
        self.options = options
        self.limits = limits
        self.exclusion = exclusion
        users = decoder.batch_size
        device = decoder.device

        # The beams: one at the root, with nothing to lose yet.
        self.nodes = torch.zeros(users, 1, dtype=torch.int64, device=device)  # [B, Q]
        self.scores = torch.zeros(users, 1, device=device)  # [B, Q]
        self.block: Tensor | None = None  # [B, Q, V_t], the decoder's answer

        # A candidate is illegal at -inf, so the lowest floor lies just above.
        lowest = torch.finfo(self.scores.dtype).min
        if limits.floor is None:
            self.floor = torch.full((users,), lowest, device=device)
        else:
            self.floor = limits.floor.clamp(min=lowest)

        nothing = torch.full((users,), -torch.inf, device=device)
        self.best_first_pruned = nothing  # [B]
        self.best_longer_pruned = nothing  # [B]
        self.searched = torch.zeros(users, 0, dtype=torch.bool, device=device)
        self.leaves = [self.nodes[:, :0]]
        self.leaf_scores = [self.scores[:, :0]]
        self.ranking = Ranking(trie, users, device) if options.fill else None

    def run(self) -> Reached:
        """Search, and return what was reached."""
        calls = decoder_calls(self.trie, self.options.score_type)
        if calls:
            self.block = self.decoder.start()
        last = max(calls, 1) - 1
        for depth in range(last + 1):
            candidates = self.expand(depth)
            candidates = self.collect(depth, candidates)
            if depth == last:
                break
            chosen = self.prune(depth, candidates)
            if chosen is None:
                break
            self.step(candidates, chosen)
        return self._reached()

    def expand(self, depth: int) -> Candidates:
        """The children of all beams with their scores."""
        block = self.block
        if block is not None:
            size = self.trie.sizes[depth]
            block = check_block(block, len(self.nodes), self.nodes.shape[1], size, depth)
        children = self.trie.children(depth, self.nodes)  # [B, Q, W]
        if self.exclusion is not None:
            children = self.exclusion.children(depth, children)
        log_probs = child_log_probs(children, block, self.options.score_type)  # [B, Q, W]
        scores = (self.scores.unsqueeze(-1) + log_probs).flatten(1)  # [B, Q * W]
        nodes = children.nodes.flatten(1).long()  # [B, Q * W]
        codes = None if children.codes is None else children.codes.flatten(1)  # [B, Q * W]
        if self.ranking is not None:
            self.ranking.note(depth, nodes, scores)
        return Candidates(scores, nodes, codes, children.nodes.shape[-1])

    def collect(self, depth: int, candidates: Candidates) -> Candidates:
        """Note the candidates that are finished, and leave the others."""
        # a code without an alternative costs nothing, so that its prefix is finished
        finished_early = self.options.score_type == "renormalised"
        if not finished_early and depth + 1 < self.trie.depth:
            return candidates
        leaves = self.trie.leaf_below(depth + 1, candidates.nodes)  # [B, C], -1 = unfinished
        finished = leaves >= 0
        scores = candidates.scores.masked_fill(~finished, -torch.inf)
        best, best_scores = best_leaves(
            self.trie, scores, leaves, self.k, self.exclusion
        )  # [B, <= k]
        self.leaves.append(best)
        self.leaf_scores.append(best_scores)
        if self.ranking is not None:
            self.ranking.reach(leaves)
        if self.limits.floor is not None:
            self._raise_floor()
        return candidates._replace(scores=candidates.scores.masked_fill(finished, -torch.inf))

    def _raise_floor(self) -> None:
        """Raise the floor to the k-th leaf reached: nothing below it can reach the k best."""
        scores = torch.cat(self.leaf_scores, 1)
        if scores.shape[1] >= self.k:
            worst = scores.topk(self.k).values[:, -1]
            self.floor = torch.maximum(self.floor, worst - SLACK)

    def prune(self, depth: int, candidates: Candidates) -> Tensor | None:
        """Choose the candidates to follow, and note the best score among the others.

        Returns:
            Index int64 ``[B, Q]`` of the chosen candidates in ascending order, which is the
            lexicographic order of their codes; None where no user has any.
        """
        scores = candidates.scores
        width = self.limits.longer
        if depth == 0:
            width = self.limits.first
            scores = self._leave_out_searched(scores)
        width = min(width, self.trie.levels[depth].n_edges)
        if self.options.count and len(scores):
            alive = (scores >= self.floor.unsqueeze(1)).sum(1)
            width = min(width, int(alive.max()))
        if width < 1:
            self._note_pruned(depth, scores.amax(1))
            return None

        chosen, best_left_out = top(scores, width)
        self._note_pruned(depth, best_left_out)
        chosen = chosen.sort(-1).values
        if depth == 0:
            self.searched = self.searched.scatter(1, chosen, True)

        chosen_scores = scores.gather(1, chosen)
        dead = chosen_scores < self.floor.unsqueeze(1)
        self._note_pruned(depth, chosen_scores.masked_fill(~dead, -torch.inf).amax(1))
        self.scores = chosen_scores.masked_fill(dead, -torch.inf)
        self.nodes = candidates.nodes.gather(1, chosen).masked_fill(dead, -1)
        return chosen

    def _leave_out_searched(self, scores: Tensor) -> Tensor:
        """``scores`` of first codes ``[B, C]`` without those that an earlier pass followed."""
        if self.limits.searched is None:
            self.searched = torch.zeros_like(scores, dtype=torch.bool)
            return scores
        self.searched = self.limits.searched
        return scores.masked_fill(self.searched, -torch.inf)

    def _note_pruned(self, depth: int, scores: Tensor) -> None:
        """Note the best ``scores`` ``[B]`` of what was pruned at a depth."""
        if depth == 0:
            self.best_first_pruned = torch.maximum(self.best_first_pruned, scores)
        else:
            self.best_longer_pruned = torch.maximum(self.best_longer_pruned, scores)

    def step(self, candidates: Candidates, chosen: Tensor) -> None:
        """Let the decoder append the chosen codes to their beams."""
        parents = chosen // candidates.slots  # [B, Q]
        if candidates.codes is None:
            codes = chosen % candidates.slots
        else:
            codes = candidates.codes.gather(1, chosen)

        # A decoder that can leave out dead beams is told which these are.
        if self.options.count and getattr(self.decoder, "takes_live", False):
            live = self.nodes >= 0
            if not bool(live.all()):
                self.block = cast(LiveDecoder, self.decoder).step(codes, parents, live)
                return
        self.block = self.decoder.step(codes, parents)

    def _reached(self) -> Reached:
        leaves = torch.cat(self.leaves, 1)
        scores = torch.cat(self.leaf_scores, 1)
        leaves, scores = distinct_best_leaves(
            self.trie, leaves, scores, self.k, self.exclusion
        )  # [B, k]
        return Reached(
            leaves,
            scores,
            self.best_first_pruned,
            self.best_longer_pruned,
            self.searched,
            self.ranking,
        )
