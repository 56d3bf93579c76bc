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

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ItemTrie, SearchResult, best_of_all
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.ranking import WeightsCache
from recbole_genrec.model.timeline.decoder import TimelineDecoder
from recbole_genrec.model.timeline.depth_codes import DepthCodes
from recbole_genrec.model.timeline.flat import flat_log_probs, flat_loss
from recbole_genrec.model.timeline.further_codes import FurtherCodes, make_further_codes
from recbole_genrec.model.timeline.keys import (
    Plan,
    TimelineSettings,
    check_refinable,
    check_timeline,
)
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.tree import StatelessDepth, StatelessTree
from recbole_genrec.runtime.processes import balanced


@dataclass
class Vectors:
    """What follows from the weights alone, for all histories.

    Attributes:
        inputs: input vectors of all items ``[n_items, d]``; ``None`` = by history.
        outputs: output vectors of all items ``[n_items, d]``.
        edges: of each stateless tree, for each level ``[n_edges, d]``.
        paths: of the codes of ``depth: mlp`` and ``transformer``.
        stateless: the tree as the search reads it; made by the first search.
    """

    inputs: Tensor | None = None
    outputs: Tensor | None = None
    edges: list[list[Tensor]] = field(default_factory=list)
    paths: PathVectors | None = None
    stateless: StatelessDepth | None = None


class TimelineRec(DepthCodes):
    """TimelineRec on the codes of any tokenizer.

    ``properties/model/TimelineRec.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    trains_without_history = True

    tree: StatelessTree | None
    further_codes: list[FurtherCodes]

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._kept = WeightsCache()

    def _make_heads(self) -> None:
        self.tree = None
        self.further_codes = []
        if "tree" not in self.plan.head_names:
            return
        if self.settings.depth != "none":
            self._make_depth()
            return
        d = self.settings.d_model
        sparse = self.settings.sparse_tables
        self.tree = StatelessTree(ItemTrie(self.codes, self.level_sizes, budget_mb=0), d, sparse)
        self.further_codes = make_further_codes(self)
        trees = [StatelessTree(codes.trie(), d, sparse) for codes in self.further_codes]
        self.further_trees = nn.ModuleList(trees)

    def _trees(self) -> list[tuple[StatelessTree, ItemTrie]]:
        """The trees of codes with their tries."""
        trees = [(self.tree, self.trie)]
        for tree, codes in zip(self.further_trees, self.further_codes, strict=True):
            trees.append((tree, codes.trie()))
        return trees

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

        excluded = self.excluded_in_training(history, items, is_target)
        losses = []
        for head in self.plan.head_names:
            if head == "flat":
                losses.append(flat_loss(states, vectors.outputs, items, excluded))
            elif self.tree is None:
                closed = self.closed_codes(history, items, is_target)
                losses.append(self._depth_loss(states, items, vectors.paths, closed))
            else:
                losses += self._tree_losses(states, items, vectors, excluded)
        losses = [balanced(loss, len(items)) for loss in losses]
        return losses[0] if len(losses) == 1 else tuple(losses)

    def _tree_losses(
        self, states: Tensor, items: Tensor, vectors: Vectors, excluded: Tensor | None
    ) -> list[Tensor]:
        """The loss of each tree.

        Args:
            states: ``[P, d]``.
            items: targets ``[P]``.
            vectors: for the weights as they are.
            excluded: items that do not compete ``[P, H]``, 0 = none.
        """
        losses = []
        for (tree, trie), edges in zip(self._trees(), vectors.edges, strict=True):
            closed = ALL_OPEN
            if excluded is not None:
                closed = ClosedCodes.of(trie, items, excluded)
            losses.append(tree.loss(trie, states, items, edges, closed))
        return losses

    def item_logits(self, history: Tensor, length: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the state of the last item.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.

        Raises:
            ConfigError: there is no tree of codes.
        """
        if "tree" not in self.plan.head_names:
            raise ConfigError(
                "output: items generates no codes; there is no decoder along them. Use "
                "output: codes."
            )
        vectors = self._vectors()
        states = self.last_states(history, length, vectors.inputs)  # [B, d]
        if self.tree is None:
            return self._decoder(states, self._logits(vectors.paths))
        if vectors.stateless is None:
            vectors.stateless = StatelessDepth(self.tree, self.trie, vectors.edges[0])
        stateless = vectors.stateless
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
            for head in self.plan.head_names:
                if head == "flat":
                    total = total + flat_log_probs(states, vectors.outputs, trie)
                else:
                    total = total + self._tree_log_probs(states, vectors, trie)
        return total

    def _tree_log_probs(self, states: Tensor, vectors: Vectors, trie: ItemTrie) -> Tensor:
        """Log-probabilities of all items by the trees, ``[B, n_items]``; of several as one.

        Args:
            states: float32 ``[B, d]``.
            vectors: for the weights as they are.
            trie: of the items to choose among.
        """
        tries = [trie, *(codes.among(trie) for codes in self.further_codes)]
        parts = []
        for (tree, _), of_items, edges in zip(self._trees(), tries, vectors.edges, strict=True):
            parts.append(tree.log_probs(of_items, states, edges))
        if len(parts) == 1:
            return parts[0]
        stacked = torch.stack(parts)  # [M, B, n_items]
        if self.settings.tree_scores == "mean":
            return stacked.mean(0)
        return stacked.logsumexp(0) - math.log(len(parts))

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
        if not self.plan.scores_all_items:
            return super().search(history, length, k, fill, trie, excluded, **user)
        if trie is None:
            trie = self.search_trie
        scores = self.item_log_probs(history[:, : int(length.max())], length, trie)
        members = trie.leaf_of_item >= 0
        k = k or max(self.settings.topk)
        result = best_of_all(scores, members, k, fill=fill, excluded=excluded)
        self.search_log.add(result)
        return result

    @property
    def sparse_tables(self) -> bool:
        """Whether tables get gradients for the rows of a batch alone."""
        return self.settings.sparse_tables

    @property
    def scores_every_item(self) -> bool:
        """As the base's; also where one product scores all items."""
        return self.plan.scores_all_items or super().scores_every_item

    def predict(self, interaction) -> Tensor:
        """Log-likelihood ``[B]`` of the given item of each row."""
        if self.plan.scores_all_items:
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
        if vectors.inputs is not None and self.plan.shares_output:
            vectors.outputs = vectors.inputs.float()
        else:
            vectors.outputs = self.output_vectors()
        if self.tree is not None:
            trees = self._trees()
            vectors.edges = [tree.edges(trie, vectors.outputs) for tree, trie in trees]
        elif "tree" in self.plan.head_names and vectors.outputs is not None:
            vectors.paths = PathVectors(self.trie, vectors.outputs)
        return vectors

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

    @torch.no_grad()
    def add_items(
        self,
        texts: Sequence[str],
        tokens: Sequence[str] | None = None,
        vectors: Tensor | None = None,
        users: Sequence[Sequence[str]] | None = None,
    ) -> list[int]:
        """As the base's; every tree places the new items."""
        if not self.further_codes or not len(texts):
            return super().add_items(texts, tokens, vectors, users)
        tokens = self.catalogue.new_items(texts, tokens)
        placed = [codes.place(texts, tokens, vectors, users) for codes in self.further_codes]
        added = super().add_items(texts, tokens, vectors, users)
        for tree, codes, rows in zip(self.further_trees, self.further_codes, placed, strict=True):
            before = codes.trie()
            codes.append(rows, tokens)
            tree.grow(before, codes.trie())
        self._kept.clear()
        return added

    def other_parameter(self) -> dict:
        """As the base's, with the codes of further trees."""
        parameter = super().other_parameter()
        if self.further_codes:
            parameter["further_codes"] = [codes.stored() for codes in self.further_codes]
        return parameter

    # --- settings ---------------------------------------------------------------------------------

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, of an exact search where all items are scored at once."""
        settings = TimelineSettings.of(values)
        check_refinable(settings)
        if Plan(settings).scores_all_items:
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
        plan = Plan(settings)
        size = f"{settings.n_layers} layers of width {settings.d_model}, depth {settings.depth}"
        inputs = " + ".join(plan.input_parts)
        outputs = " + ".join(plan.output_parts) or "none"
        options = f"heads {' + '.join(plan.head_names)}, items in: {inputs}, out: {outputs}"
        lines = {**super().describe(config), "generator": f"{size}, {options}"}
        if settings.tokenizers is not None:
            lines["trees"] = f"{', '.join(settings.tokenizers)}; scores: {settings.tree_scores}"
        if plan.scores_all_items:
            lines["search"] = "all items at once, exact"
        return lines

    def report(self) -> dict:
        """As the base's, with the heads."""
        report = super().report()
        report["heads"] = list(self.plan.head_names)
        if self.plan.scores_all_items:
            report["search"]["score_mode"] = "exact"
        return report
