"""TimelineRec's decoders along the codes, ``depth: mlp`` and ``depth: transformer``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.backbone import CodeVocabulary
from recbole_genrec.decoding import ClosedCodes, item_cross_entropy
from recbole_genrec.model.timeline.decoder import TimelineDecoder
from recbole_genrec.model.timeline.depth import DepthMLP, DepthTransformer
from recbole_genrec.model.timeline.edge_logits import counted_codes
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.states import TimelineStates
from recbole_genrec.runtime.processes import balanced

DEPTHS = {"mlp": DepthMLP, "transformer": DepthTransformer}

LogitsFunction = Callable[[Tensor, int, Tensor], Tensor]
"""``(states [..., d], level, prefixes [...]) -> logits [..., V_level]``."""


class DepthCodes(TimelineStates):
    """Codes decoded one by one from a state, each given those before it."""

    def _make_depth(self) -> None:
        """The modules of ``depth: mlp`` and ``transformer``."""
        settings = self.settings
        d = settings.d_model
        self.vocabulary = CodeVocabulary(self.level_sizes, d, d)  # E and W
        make_depth = DEPTHS[settings.depth]
        self.depth = make_depth(
            self.level_sizes, d, settings.timeline_dropout, settings.n_heads, settings.depth_layers
        )
        if settings.tie_code_tables:
            self.depth.embedding = self.vocabulary.embedding

    def _depth_loss(
        self, states: Tensor, items: Tensor, paths: PathVectors | None, closed: ClosedCodes
    ) -> Tensor:
        """A sum over the levels of the codes, mean over targets.

        Args:
            states: ``[P, d]``.
            items: targets ``[P]``.
            paths: vectors of the prefixes, where they count.
            closed: codes that do not compete.
        """
        logits = self._logits(paths)
        nodes = self.trie.paths(self.trie.leaf_of_item[items])
        blocks = (
            logits(state, level, nodes[level])  # [P, V_level]
            for level, state in enumerate(self.depth.teach(states, self.codes[items]))
        )
        blocks = closed.hide(blocks)
        if self.settings.loss_vocab == "trie":
            return item_cross_entropy(self.trie, items, blocks)
        return self._level_loss(blocks, items)

    # --- logits along the codes -------------------------------------------------------------------

    def _logits(self, paths: PathVectors | None) -> LogitsFunction:
        """The logits of a level, for the weights as they are."""
        if paths is None:
            return self._code_logits

        def logits(states: Tensor, level: int, nodes: Tensor) -> Tensor:
            return self._code_logits(states, level) + paths.logits(states, level, nodes)

        return logits

    def _code_logits(self, states: Tensor, level: int, *_) -> Tensor:
        """Logits without path vectors, ``[..., d]`` -> float32 ``[..., V_level]``."""
        return self.vocabulary.logits(states, level).float()

    def _level_loss(self, blocks: Iterable[Tensor], items: Tensor) -> Tensor:
        """Sum over levels of the cross-entropy over all codes of the level.

        Args:
            blocks: logits ``[P, V_level]`` of each level.
            items: item ids ``[P]``.
        """
        codes = self.codes[items].unbind(1)
        losses = [cross_entropy(block, code) for block, code in zip(blocks, codes, strict=True)]
        return torch.stack(losses).sum()

    def _decoder(self, states: Tensor, logits: LogitsFunction) -> TimelineDecoder:
        """What the search steps through, from ``states [B, d]``."""

        def log_probs(state: Tensor, level: int, prefixes: Tensor) -> Tensor:
            values = logits(state, level, prefixes)
            if self.trie.levels[level].counted is None:
                return values.log_softmax(-1)
            counted = counted_codes(self.trie, level, prefixes)
            competing = torch.where(counted, values, self._code_logits(state, level))
            return values - competing.logsumexp(-1, keepdim=True)

        return TimelineDecoder(self.depth, states, log_probs, self._child)

    def _child(self, prefixes: Tensor, codes: Tensor, level: int) -> Tensor:
        """Nodes of prefixes with one more code."""
        return self.trie.levels[level].child(prefixes, codes)

    # --- self_improve: codes from the content of an item ------------------------------------------

    @property
    def prefix_width(self) -> int:
        """Width of the content vectors, which stand in the place of ``h``."""
        return self.settings.d_model

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Sum over levels of the cross-entropy of the items' codes given their content.

        Whole levels compete, without path vectors: a refresh looks beyond the trie.

        Args:
            items: item ids ``[B]``.
        """
        states = self.item_prefix(items).sum(1)  # [B, d]
        blocks = (
            self._code_logits(state, level)  # [B, V_level]
            for level, state in enumerate(self.depth.teach(states, self.codes[items]))
        )
        return balanced(self._level_loss(blocks, items), len(items))

    def item_decoder(self, items: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities given the content of items.

        Args:
            items: item ids ``[B]``.
        """
        return self._decoder(self.item_prefix(items).sum(1), self._code_logits)
