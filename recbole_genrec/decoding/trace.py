"""Which prefixes a beam search kept at each level, for people who want to see it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_genrec.decoding.descent import Candidates, Descent, Limits, SearchOptions
from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.protocol import CodeDecoder, check_search
from recbole_genrec.decoding.trie import ItemTrie


class KeptPrefixes(NamedTuple):
    """The prefixes that one user's beams followed below one level.

    Attributes:
        nodes: int64 ``[Q]``, nodes of the trie at the depth below the level.
        scores: float32 ``[Q]``, their log-probabilities.
    """

    nodes: Tensor
    scores: Tensor


class TracedDescent(Descent):
    """A descent of one user that remembers the beams of each level.

    Attributes:
        beams_by_level: the beams after each level that was pruned.
    """

    beams_by_level: list[KeptPrefixes]

    def prune(self, depth: int, candidates: Candidates) -> Tensor | None:
        """As the base's; the chosen candidates are remembered."""
        chosen = super().prune(depth, candidates)
        if chosen is not None:
            alive = self.nodes[0] >= 0
            self.beams_by_level.append(KeptPrefixes(self.nodes[0][alive], self.scores[0][alive]))
        return chosen


@torch.no_grad()
def traced_search(
    decoder: CodeDecoder,
    trie: ItemTrie,
    beam_width: int,
    *,
    score_type: str = "level",
    excluded: Tensor | None = None,
) -> list[KeptPrefixes]:
    """The prefixes that :func:`beam_search` keeps, level by level.

    The last level, where nothing is pruned, is not among them.

    Args:
        decoder: the generator for one user, in evaluation mode.
        trie: as in :func:`beam_search`.
        beam_width: as in :func:`beam_search`.
        score_type: as in :func:`beam_search`.
        excluded: as in :func:`beam_search`.
    """
    check_search(score_type, beam_width)
    limits = Limits(first=beam_width, longer=beam_width)
    exclusion = Exclusion.of(trie, excluded)
    options = SearchOptions(score_type, count=True)
    descent = TracedDescent(decoder, trie, beam_width, options, limits, exclusion)
    descent.beams_by_level = []
    descent.run()
    return descent.beams_by_level


def items_below(trie: ItemTrie, depth: int, nodes: Tensor) -> Tensor:
    """How many items of the trie lie below each of some nodes.

    Args:
        trie: the trie.
        depth: depth of the nodes.
        nodes: int64 ``[...]``, none of them dead.
    """
    first = nodes
    last = nodes + 1
    for level in trie.levels[depth:]:
        first = level.ptr[first].long()
        last = level.ptr[last].long()
    return (trie.leaf_ptr[last] - trie.leaf_ptr[first]).long()
