"""TimelineRec's decoders along the codes, ``depth: mlp`` and ``depth: transformer``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from recbole_genrec.backbone import CodeVocabulary
from recbole_genrec.decoding import ClosedCodes
from recbole_genrec.decoding.likelihood import level_cross_entropies
from recbole_genrec.decoding.smoothing import smoothed_cross_entropy
from recbole_genrec.model.timeline.decoder import TimelineDecoder
from recbole_genrec.model.timeline.depth import DepthMLP, DepthTransformer
from recbole_genrec.model.timeline.edge_logits import counted_codes
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.prefix_loss import with_prefix_terms
from recbole_genrec.model.timeline.states import TimelineStates
from recbole_genrec.runtime.processes import balanced

DEPTHS = {"mlp": DepthMLP, "transformer": DepthTransformer}

LogitsFunction = Callable[[Tensor, int, Tensor], Tensor]
"""``(states [..., d], level, prefixes [...]) -> logits [..., V_level]``."""


class DepthCodes(TimelineStates):
    """Codes decoded one by one from a state, each given those before it.

    Attributes:
        depth: the decoder along the codes, where :attr:`Plan.has_depth` says so.
    """

    depth: DepthMLP

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
        blocks = closed.hide(
            logits(state, level, nodes[level])  # [P, V_level]
            for level, state in enumerate(self.depth.teach(states, self.codes[items]))
        )
        smoothing = self.label_smoothing
        if self.settings.loss_vocab == "trie":
            losses = level_cross_entropies(self.trie, items, blocks, smoothing)
        else:
            losses = self._level_losses(blocks, items, smoothing)
        return self._with_prefix_terms(losses)

    def _with_prefix_terms(self, losses: Sequence[Tensor]) -> Tensor:
        """The loss of the codes from the losses of the levels."""
        settings = self.settings
        beta = settings.prefix_loss if self.training else 0.0
        return with_prefix_terms(losses, beta, settings.prefix_adaptation)

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

    def _level_losses(
        self, blocks: Iterable[Tensor], items: Tensor, smoothing: float = 0.0
    ) -> list[Tensor]:
        """The mean cross-entropy over all codes of each level.

        Args:
            blocks: logits ``[P, V_level]`` of each level.
            items: item ids ``[P]``.
            smoothing: share of the probability that is spread evenly over the codes that compete.
        """
        losses = []
        for block, code in zip(blocks, self.codes[items].unbind(1), strict=True):
            losses.append(smoothed_cross_entropy(block, code, smoothing))
        return losses

    def _decoder(self, states: Tensor, logits: LogitsFunction) -> TimelineDecoder:
        """What the search steps through, from ``states [B, d]``."""

        def log_probs(state: Tensor, level: int, prefixes: Tensor) -> Tensor:
            # bf16 and fp16 would let many codes tie
            with torch.autocast(state.device.type, enabled=False):
                state = state.float()
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

    def code_rows(self, level: int) -> list[Tensor]:
        """As the base's, with the tables of ``depth`` and of the output vectors."""
        rows = self.vocabulary.level_rows(level)
        first = self.vocabulary.first[level]
        size = self.level_sizes[level]
        tables = [None if self.settings.tie_code_tables else self.depth.embedding]
        if self.output_tables is not None:
            tables.append(self.output_tables.code_table)
        rows += [table.narrow(0, first, size) for table in tables if table is not None]
        return rows

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
        loss = torch.stack(self._level_losses(blocks, items)).sum()
        return balanced(loss, len(items))

    def item_decoder(self, items: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities given the content of items.

        Args:
            items: item ids ``[B]``.
        """
        return self._decoder(self.item_prefix(items).sum(1), self._code_logits)
