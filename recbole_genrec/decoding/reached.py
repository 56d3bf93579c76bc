"""What a beam search has reached, and what it can prove about the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import SearchResult
from recbole_genrec.decoding.ranking import Ranking
from recbole_genrec.decoding.scores import best_items_on_leaves, best_leaves
from recbole_genrec.decoding.trie import ItemTrie

SLACK = 1e-3  # float32 may round the score of the k-th leaf differently in another batch


@dataclass
class Reached:
    """The best leaves of a search and bounds on everything that it pruned.

    Attributes:
        leaves: int64 ``[B, k]``, the k best leaves in any order, -1 = none.
        scores: float32 ``[B, k]``, their scores, -inf = none.
        first: float32 ``[B]``, score of the best first code that was pruned.
        longer: float32 ``[B]``, score of the best longer prefix that was pruned.
        searched: bool ``[B, C]``, the first codes that were followed; no column with a single
            level, where none has to be.
        ranking: what is needed to rank all items, or None.
    """

    leaves: Tensor
    scores: Tensor
    first: Tensor
    longer: Tensor
    searched: Tensor
    ranking: Ranking | None

    @property
    def bound(self) -> Tensor:
        """Best score ``[B]`` that anything pruned could still reach."""
        return torch.maximum(self.first, self.longer)

    def worst(self) -> Tensor:
        """Score of the k-th leaf ``[B]``, -inf with fewer."""
        return self.scores.amin(1)

    def floor(self) -> Tensor:
        """Score ``[B]`` below which no prefix can lead to the k best leaves."""
        return self.worst() - SLACK

    def add(
        self,
        trie: ItemTrie,
        rows: Tensor,
        other: Reached,
        longer: Tensor,
        exclusion: Exclusion | None = None,
    ) -> None:
        """Take over what another search of some users reached.

        Args:
            trie: the trie that was searched.
            rows: int64 ``[R]``, the users of the other search.
            other: what it reached.
            longer: float32 ``[R]``, their new bound on longer prefixes.
            exclusion: what the users of the other search must not get.
        """
        leaves = torch.cat([self.leaves[rows], other.leaves], 1)  # [R, 2 k]
        scores = torch.cat([self.scores[rows], other.scores], 1)  # [R, 2 k]
        k = self.leaves.shape[1]
        leaves, scores = distinct_best_leaves(trie, leaves, scores, k, exclusion)  # [R, k]
        self.leaves[rows] = leaves
        self.scores[rows] = scores
        self.first[rows] = other.first
        self.longer[rows] = longer
        self.searched[rows] = other.searched
        if self.ranking is not None and other.ranking is not None:
            self.ranking.add(rows, other.ranking)

    def result(self, trie: ItemTrie, exclusion: Exclusion | None = None) -> SearchResult:
        """The items on the leaves, without those that users must not get."""
        order = self.leaves.argsort(1)
        leaves = self.leaves.gather(1, order)
        scores = self.scores.gather(1, order)
        items, scores = best_items_on_leaves(trie, scores, leaves, leaves.shape[1], exclusion)
        full = None if self.ranking is None else self.ranking.items(exclusion)
        return SearchResult(items, scores, self.bound, full)


def distinct_best_leaves(
    trie: ItemTrie, leaves: Tensor, scores: Tensor, k: int, exclusion: Exclusion | None = None
) -> tuple[Tensor, Tensor]:
    """The ``k`` best of some leaves, each once.

    Args:
        trie: the trie of the leaves.
        leaves: int64 ``[B, C]`` in any order, also repeated, -1 = none.
        scores: float32 ``[B, C]``.
        k: number of leaves.
        exclusion: items that do not count.

    Returns:
        leaves int64 ``[B, k]`` and their scores float32 ``[B, k]``, padded with -1 and -inf.
    """
    leaves, order = leaves.sort(1)
    scores = scores.gather(1, order)
    repeated = torch.zeros_like(leaves, dtype=torch.bool)
    repeated[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    scores = scores.masked_fill(repeated, -torch.inf)
    leaves = leaves.masked_fill(repeated, -1)

    leaves, scores = best_leaves(trie, scores, leaves, k, exclusion)
    padding = (0, k - leaves.shape[1])
    return pad(leaves, padding, value=-1), pad(scores, padding, value=-torch.inf)
