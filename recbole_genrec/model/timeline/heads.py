"""The heads of TimelineRec on the states of its transformer: losses, and scores of all items."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ItemTrie
from recbole_genrec.decoding.scores import break_item_ties
from recbole_genrec.model.timeline.depth_codes import DepthCodes
from recbole_genrec.model.timeline.flat import flat_log_probs, flat_loss
from recbole_genrec.model.timeline.further_codes import FurtherCodes, make_further_codes
from recbole_genrec.model.timeline.head_vectors import HeadVectors
from recbole_genrec.model.timeline.parallel import ParallelHeads
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.stateless_depth import StatelessDepth
from recbole_genrec.model.timeline.text_stream import StreamVectors, TextStream
from recbole_genrec.model.timeline.tree import (
    CodeTree,
    StatelessTree,
    Stream,
    log_probs_of_streams,
)
from recbole_genrec.model.weights_cache import WeightsCache


@dataclass
class Vectors:
    """What follows from the weights alone, for all histories.

    Attributes:
        inputs: input vectors of all items ``[n_items, d]``; ``None`` = by history.
        heads: what the heads of the first stream read.
        stateless: the tree as the search reads it; made by the first search.
        text_stream: the second stream.
    """

    inputs: Tensor | None = None
    heads: HeadVectors = field(default_factory=HeadVectors)
    stateless: StatelessDepth | None = None
    text_stream: StreamVectors | None = None


Streams = list[tuple[Tensor, HeadVectors]]
"""Of each stream states ``[B, d]``, and what its heads read beside them."""


class TimelineHeads(DepthCodes):
    """What turns a state into probabilities: trees of codes, parallel codes, a softmax over items.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        tree: over the codes of the model, where :attr:`Plan.has_stateless_trees` says so.
        further_codes: code tables of further trees.
        further_trees: over these codes, where there is a ``tree``.
        parallel: where it is among :attr:`Plan.head_names`.
        text_stream: the second stream; ``None`` = there is one stream.
    """

    tree: StatelessTree
    further_codes: list[FurtherCodes]
    further_trees: nn.ModuleList
    parallel: ParallelHeads
    text_stream: TextStream | None

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._kept = WeightsCache()

    def _make_heads(self) -> None:
        self.further_codes = []
        settings = self.settings
        if "parallel" in self.plan.head_names:
            has_table = not self.plan.shares_code_table
            self.parallel = ParallelHeads(
                self.level_sizes, settings.d_model, settings.code_temperature, has_table
            )
        if self.plan.has_depth:
            self._make_depth()
        if self.plan.has_stateless_trees:
            self._make_trees()

    def _make_trees(self) -> None:
        settings = self.settings
        d = settings.d_model
        sparse = settings.sparse_tables
        trie = ItemTrie(self.codes, self.level_sizes, budget_mb=0)
        self.tree = StatelessTree(trie, d, sparse, settings.edge_vectors)
        self.further_codes = make_further_codes(self)
        tries = [codes.trie() for codes in self.further_codes]
        trees = [StatelessTree(trie, d, sparse, settings.edge_vectors) for trie in tries]
        self.further_trees = nn.ModuleList(trees)

    def _make_parts(self) -> None:
        super()._make_parts()
        self.text_stream = None
        if self.plan.has_text_stream:
            trie = ItemTrie(self.codes, self.level_sizes, budget_mb=0)
            n_text = self.texts.shape[1]
            self.text_stream = TextStream(self.plan, trie, n_text, self.max_seq_length)

    @property
    def trees(self) -> list[StatelessTree]:
        """The stateless trees, that over the codes of the model first."""
        if not self.plan.has_stateless_trees:
            return []
        return [self.tree, *cast(Iterable[StatelessTree], self.further_trees)]

    def _code_table(self) -> Tensor:
        """The embeddings to which parallel codes are compared: their own, or those of items."""
        if self.parallel.code_table is None:
            return self.vocabulary.embedding
        return self.parallel.code_table

    # --- training ---------------------------------------------------------------------------------

    def _head_losses(
        self,
        states: Tensor,
        items: Tensor,
        vectors: HeadVectors,
        excluded: Tensor | None,
        closed: ClosedCodes = ALL_OPEN,
    ) -> list[Tensor]:
        """The losses of the heads of a stream, in nats; several trees have one each.

        Args:
            states: ``[P, d]``.
            items: targets ``[P]``.
            vectors: for the weights as they are.
            excluded: items that do not compete ``[P, H]``, 0 = none.
            closed: codes that do not compete with ``depth: mlp`` and ``transformer``.
        """
        smoothing = self.label_smoothing
        losses = []
        for head in self.plan.head_names:
            if head == "flat":
                losses.append(flat_loss(states, vectors.of_items, items, excluded, smoothing))
            elif head == "parallel":
                table = self._code_table()
                losses.append(self.parallel.loss(states, self.codes[items], table, smoothing))
            elif self.plan.has_depth:
                losses.append(self._depth_loss(states, items, vectors.paths, closed))
            else:
                losses += [self._tree_loss(tree, states, items, excluded) for tree in vectors.trees]
        return losses

    def _tree_loss(
        self, tree: CodeTree, states: Tensor, items: Tensor, excluded: Tensor | None
    ) -> Tensor:
        """The loss of a tree in nats, with its prefix terms; see :meth:`_head_losses`."""
        weights, trie, edges = tree
        closed = ALL_OPEN
        if excluded is not None:
            closed = ClosedCodes.of(trie, items, excluded)
        levels = weights.level_losses(trie, states, items, edges, closed, self.label_smoothing)
        return self._with_prefix_terms(levels)

    # --- all items at once ------------------------------------------------------------------------

    def item_log_probs(self, history: Tensor, length: Tensor, trie: ItemTrie) -> Tensor:
        """Log-probabilities of all items, added over the heads.

        A head averages the logits of the streams.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            trie: of the items to choose among.

        Returns:
            float32 ``[B, n_items]``; other items get a finite value.
        """
        streams = self._streams(history, length, self._vectors())
        device = history.device
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            streams = [(states.float(), vectors) for states, vectors in streams]
            for head in self.plan.head_names:
                if head == "flat":
                    total = total + self._flat_log_probs(streams, trie)
                elif head == "parallel":
                    total = total + self._parallel_log_probs(streams[0][0], trie)
                else:
                    total = total + self._tree_log_probs(streams, trie)
        return total

    def _streams(self, history: Tensor, length: Tensor, vectors: Vectors) -> Streams:
        """The streams with the state of the last item of each history."""
        streams = [(self.last_states(history, length, vectors.inputs), vectors.heads)]
        if vectors.text_stream is not None:
            of_texts = vectors.text_stream
            streams.append((of_texts.last_states(history, length), of_texts.heads))
        return streams

    def _flat_log_probs(self, streams: Streams, trie: ItemTrie) -> Tensor:
        """Log-probabilities of all items by the softmax over items; see :meth:`_tree_log_probs`."""
        states, vectors = streams[0]
        outputs = vectors.of_items
        if len(streams) > 1:  # the means of the logits of the streams
            states = torch.cat([part for part, _ in streams], dim=1) / len(streams)
            outputs = torch.cat([part.of_items for _, part in streams], dim=1)
        return flat_log_probs(states, outputs, trie)

    def _parallel_log_probs(self, states: Tensor, trie: ItemTrie) -> Tensor:
        """Sums of the log-probabilities of codes, ``[B, n_items]``; items of equal codes differ."""
        scores = self.parallel.item_log_probs(states, self.codes, self._code_table())
        return break_item_ties(trie, scores)

    def _tree_log_probs(self, streams: Streams, trie: ItemTrie) -> Tensor:
        """Log-probabilities of all items by the trees, ``[B, n_items]``; of several as one.

        Args:
            streams: with float32 states.
            trie: of the items to choose among.
        """
        tries = [trie, *(codes.among(trie) for codes in self.further_codes)]
        tree_scores = []
        for number, of_items in enumerate(tries):
            of_streams = []
            for states, vectors in streams:
                tree = vectors.trees[number]
                of_streams.append(Stream(tree.weights, states, tree.edges))
            tree_scores.append(log_probs_of_streams(of_items, of_streams))
        if len(tree_scores) == 1:
            return tree_scores[0]
        stacked = torch.stack(tree_scores)  # [M, B, n_items]
        if self.settings.tree_scores == "mean":
            return stacked.mean(0)
        return stacked.logsumexp(0) - math.log(len(tree_scores))

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
        vectors = Vectors()
        if self.settings.item_parts is not None:
            vectors.inputs = self.input_vectors()
        vectors.heads = self._head_vectors(vectors.inputs)
        if self.text_stream is not None:
            vectors.text_stream = self.text_stream.vectors(self.trie, self.text_inputs())
        return vectors

    def _head_vectors(self, inputs: Tensor | None) -> HeadVectors:
        vectors = HeadVectors()
        if inputs is not None and self.plan.shares_output:
            vectors.outputs = inputs.float()
        else:
            vectors.outputs = self.output_vectors()
        if self.plan.has_stateless_trees:
            tries = [self.trie, *(codes.trie() for codes in self.further_codes)]
            for weights, trie in zip(self.trees, tries, strict=True):
                vectors.trees.append(CodeTree.of(weights, trie, vectors.outputs))
        elif self.plan.has_depth and vectors.outputs is not None:
            vectors.paths = PathVectors(self.trie, vectors.outputs)
        return vectors
