"""TimelineRec: one position per item on a time axis, codes decoded from the state of each.

A generator of our own. A spatial transformer over positions with a small depth decoder over the
codes of each is the idea of the RQ-Transformer (arXiv 2203.01941) and, for recommendation, of
MARIUS (arXiv 2508.14910). The details are ours and published nowhere::

    x_t = sum of the parts of item t (codes, id, text)           ``item_parts``, ``item_vectors.py``
    h   = Transformer_causal(x)           one pass trains all targets of a row, ``trunk.py``

    depth: none                           the stateless tree, ``tree.py``
    depth: mlp, transformer               s_0 = h_t
                                          logits_l = (W_l (+ V_l)) LN_l(s_{l-1})
                                          s_l = s_{l-1} + MLP_l([s_{l-1} ; D_l[c_l]])
                                          loss = mean over positions of
                                                 sum_l CE(logits_l, c_l of the next item)
    heads: [flat]                         softmax over items, h_t . item vectors

    D_l  code tables of the depth decoder
    V_l  mean output vector of the items below each continuation (``path_vectors.py``)

The cross-entropy is over the codes that the trie allows, or over the level (``loss_vocab``).

With the tree alone outputs are codes, whatever the parts of items are. With ``heads: [tree, flat]``
the model is a hybrid, and with ``output: items`` it is the flat twin of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.backbone import CodeVocabulary
from recbole_genrec.decoding import (
    ClosedCodes,
    ItemTrie,
    SearchResult,
    best_of_all,
    item_cross_entropy,
)
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.ranking import WeightsCache
from recbole_genrec.model.timeline.decoder import TimelineDecoder
from recbole_genrec.model.timeline.depth import DepthMLP, DepthTransformer
from recbole_genrec.model.timeline.edge_logits import counted_codes
from recbole_genrec.model.timeline.flat import flat_log_probs, flat_loss
from recbole_genrec.model.timeline.keys import TimelineSettings, check_refinable, check_timeline
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.states import TimelineStates
from recbole_genrec.model.timeline.tree import StatelessDepth, StatelessTree
from recbole_genrec.runtime.processes import balanced

DEPTHS = {"mlp": DepthMLP, "transformer": DepthTransformer}

LogitsFunction = Callable[[Tensor, int, Tensor], Tensor]
"""``(states [..., d], level, prefixes [...]) -> logits [..., V_level]``."""


@dataclass
class Vectors:
    """What follows from the weights alone, for all histories.

    Attributes:
        inputs: input vectors of all items ``[n_items, d]``; ``None`` = by history.
        outputs: output vectors of all items ``[n_items, d]``.
        edges: of the stateless tree, for each level ``[n_edges, d]``.
        paths: of the codes of ``depth: mlp`` and ``transformer``.
    """

    inputs: Tensor | None = None
    outputs: Tensor | None = None
    edges: list[Tensor] | None = None
    paths: PathVectors | None = None


class TimelineRec(TimelineStates):
    """TimelineRec on the codes of any tokenizer.

    ``properties/model/TimelineRec.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    trains_without_history = True

    tree: StatelessTree | None

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._kept = WeightsCache()

    def _make_heads(self) -> None:
        settings = self.settings
        d = settings.d_model
        self.tree = None
        if "tree" not in settings.head_names:
            return
        if settings.depth == "none":
            trie = ItemTrie(self.codes, self.level_sizes, budget_mb=0)
            self.tree = StatelessTree(trie, d)
            return
        self.vocabulary = CodeVocabulary(self.level_sizes, d, d)  # E and W
        make_depth = DEPTHS[settings.depth]
        self.depth = make_depth(
            self.level_sizes, d, settings.timeline_dropout, settings.n_heads, settings.depth_layers
        )
        if settings.tie_code_tables:
            self.depth.embedding = self.vocabulary.embedding

    # --- the two functions of a method ------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Mean over positions of -log p(next item), in nats; of several heads one a head.

        ``train_rows: all`` learns from the last position of each row only, the other values from
        every position.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
        """
        following, is_target = self.next_items(history, length, target)  # [B, T]
        vectors = self._vectors()
        states = self.timeline(history, vectors.inputs)[is_target]  # [P, d]
        items = following[is_target]  # [P]

        losses = []
        for head in self.settings.head_names:
            if head == "flat":
                excluded = self.excluded_in_training(history, items, is_target)
                loss = flat_loss(states, vectors.outputs, items, excluded)
            else:
                closed = self.closed_codes(history, items, is_target)
                loss = self._code_loss(states, items, vectors, closed)
            losses.append(balanced(loss, len(items)))
        return losses[0] if len(losses) == 1 else tuple(losses)

    def _code_loss(
        self, states: Tensor, items: Tensor, vectors: Vectors, closed: ClosedCodes
    ) -> Tensor:
        """The loss of the codes, a sum over their levels.

        Args:
            states: ``[P, d]``.
            items: targets ``[P]``.
            vectors: for the weights as they are.
            closed: codes that do not compete.
        """
        if self.tree is not None:
            return self.tree.loss(self.trie, states, items, vectors.edges, closed)
        logits = self._logits(vectors)
        nodes = self.trie.paths(self.trie.leaf_of_item[items])
        blocks = (
            logits(state, level, nodes[level])  # [P, V_level]
            for level, state in enumerate(self.depth.teach(states, self.codes[items]))
        )
        blocks = closed.hide(blocks)
        if self.settings.loss_vocab == "trie":
            return item_cross_entropy(self.trie, items, blocks)
        return self._level_loss(blocks, items)

    def item_logits(self, history: Tensor, length: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the state of the last item.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.

        Raises:
            ConfigError: there is no tree of codes.
        """
        if "tree" not in self.settings.head_names:
            raise ConfigError(
                "output: items generates no codes; there is no decoder along them. Use "
                "output: codes."
            )
        vectors = self._vectors()
        states = self.last_states(history, length, vectors.inputs)  # [B, d]
        if self.tree is None:
            return self._decoder(states, self._logits(vectors))
        stateless = StatelessDepth(self.tree, self.trie, vectors.edges)
        return TimelineDecoder(stateless, states, stateless.log_probs, self._child)

    # --- all items at once ------------------------------------------------------------------------

    def item_log_probs(self, history: Tensor, length: Tensor, trie: ItemTrie) -> Tensor:
        """Log-probabilities of all items, added over the heads.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            trie: of the items to choose among.

        Returns:
            float32 ``[B, n_items]``; other items get a finite value.
        """
        vectors = self._vectors()
        states = self.last_states(history, length, vectors.inputs)  # [B, d]
        total = torch.zeros((), device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            for head in self.settings.head_names:
                if head == "flat":
                    total = total + flat_log_probs(states, vectors.outputs, trie)
                else:
                    total = total + self.tree.log_probs(trie, states, vectors.edges)
        return total

    @torch.no_grad()
    def search(
        self,
        history: Tensor,
        length: Tensor,
        k: int | None = None,
        fill: bool = False,
        trie: ItemTrie | None = None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> SearchResult:
        """As the base's; exact lists where one product scores all items."""
        if not self.settings.scores_all_items:
            return super().search(history, length, k, fill, trie, excluded, **user)
        if trie is None:
            trie = self.search_trie
        scores = self.item_log_probs(history[:, : int(length.max())], length, trie)
        members = trie.leaf_of_item >= 0
        k = k or max(self.settings.topk)
        result = best_of_all(scores, members, k, fill=fill, excluded=excluded)
        self.search_log.add(result)
        return result

    def predict(self, interaction) -> Tensor:
        """Log-likelihood ``[B]`` of the given item of each row."""
        if self.settings.scores_all_items:
            return GenRecModel.predict(self, interaction)
        return super().predict(interaction)

    # --- what follows from the weights alone ------------------------------------------------------

    def _vectors(self) -> Vectors:
        """Item vectors and those of the tree, kept between searches while nothing changes.

        A training step computes its own and drops the kept ones: weights that are shared among
        processes (``fsdp``) change without a new version.
        """
        if self.training or torch.is_grad_enabled():
            self._kept.clear()
        return self._kept.get(self, self._computed_vectors)

    def _computed_vectors(self) -> Vectors:
        settings = self.settings
        vectors = Vectors()
        if settings.item_parts is not None:
            vectors.inputs = self.input_vectors()
        if vectors.inputs is not None and settings.shares_output:
            vectors.outputs = vectors.inputs.float()
        else:
            vectors.outputs = self.output_vectors()
        if self.tree is not None:
            vectors.edges = self.tree.edges(self.trie, vectors.outputs)
        elif "tree" in settings.head_names and vectors.outputs is not None:
            vectors.paths = PathVectors(self.trie, vectors.outputs)
        return vectors

    # --- logits along the codes -------------------------------------------------------------------

    def _logits(self, vectors: Vectors) -> LogitsFunction:
        """The logits of a level, for the weights as they are."""
        paths = vectors.paths
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

    # --- new items --------------------------------------------------------------------------------

    def append_items(
        self, texts: Sequence[str], tokens: Sequence[str], /, **rows: Tensor
    ) -> list[int]:
        """As the base's; the tree of ``depth: none`` grows edges to the new items."""
        before = self.trie
        added = super().append_items(texts, tokens, **rows)
        if self.tree is not None:
            self.tree.grow(before, self.trie)
        return added

    # --- settings ---------------------------------------------------------------------------------

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, of an exact search where all items are scored at once."""
        settings = TimelineSettings.of(values)
        check_refinable(settings)
        if settings.scores_all_items:
            values = {**values, "score_mode": "exact"}
        super().check_config(values)

    @classmethod
    def check_settings(cls, settings: TimelineSettings) -> None:
        """Refuse combinations of the keys that cannot work."""
        check_timeline(settings)

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the size.

        Args:
            config: the settings of the run.
        """
        settings = cls.settings_class.of(config)
        size = f"{settings.n_layers} layers of width {settings.d_model}, depth {settings.depth}"
        inputs = " + ".join(settings.input_parts)
        outputs = " + ".join(settings.output_parts) or "none"
        options = f"heads {' + '.join(settings.head_names)}, items in: {inputs}, out: {outputs}"
        lines = {**super().describe(config), "generator": f"{size}, {options}"}
        if settings.scores_all_items:
            lines["search"] = "all items at once, exact"
        return lines

    def report(self) -> dict:
        """As the base's, with the heads."""
        report = super().report()
        report["heads"] = list(self.settings.head_names)
        if self.settings.scores_all_items:
            report["search"]["score_mode"] = "exact"
        return report
