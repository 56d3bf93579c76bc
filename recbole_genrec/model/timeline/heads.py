"""The heads of TimelineRec on the states of its transformer: losses, and scores of all items."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recbole_genrec.decoding import ALL_OPEN, ClosedCodes, ItemTrie
from recbole_genrec.decoding.scores import break_item_ties
from recbole_genrec.model.ranking import WeightsCache
from recbole_genrec.model.timeline.depth_codes import DepthCodes
from recbole_genrec.model.timeline.flat import flat_log_probs, flat_loss
from recbole_genrec.model.timeline.further_codes import FurtherCodes, make_further_codes
from recbole_genrec.model.timeline.parallel import ParallelHeads
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.model.timeline.stateless_depth import StatelessDepth
from recbole_genrec.model.timeline.text_stream import StreamVectors, TextStream
from recbole_genrec.model.timeline.tree import (
    StatelessTree,
    Stream,
    TreeEdges,
    log_probs_of_streams,
)


@dataclass
class Vectors:
    """What follows from the weights alone, for all histories.

    Attributes:
        inputs: input vectors of all items ``[n_items, d]``; ``None`` = by history.
        outputs: output vectors of all items ``[n_items, d]``.
        edges: of each stateless tree.
        paths: of the codes of ``depth: mlp`` and ``transformer``.
        stateless: the tree as the search reads it; made by the first search.
        text_stream: of the second stream.
    """

    inputs: Tensor | None = None
    outputs: Tensor | None = None
    edges: list[TreeEdges] = field(default_factory=list)
    paths: PathVectors | None = None
    stateless: StatelessDepth | None = None
    text_stream: StreamVectors | None = None


class TimelineHeads(DepthCodes):
    """What turns a state into probabilities: trees of codes, parallel codes, a softmax over items.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    tree: StatelessTree | None
    text_stream: TextStream | None
    parallel: ParallelHeads | None
    further_codes: list[FurtherCodes]

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._kept = WeightsCache()

    def _make_heads(self) -> None:
        self.tree = None
        self.parallel = None
        self.further_codes = []
        settings = self.settings
        if "parallel" in self.plan.head_names:
            has_table = not self.plan.shares_code_table
            self.parallel = ParallelHeads(
                self.level_sizes, settings.d_model, settings.code_temperature, has_table
            )
        if "tree" not in self.plan.head_names:
            return
        if settings.depth != "none":
            self._make_depth()
            return
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

    def _trees(self) -> list[tuple[StatelessTree, ItemTrie]]:
        """The trees of codes with their tries."""
        trees = [(self.tree, self.trie)]
        for tree, codes in zip(self.further_trees, self.further_codes, strict=True):
            trees.append((tree, codes.trie()))
        return trees

    def _shared_code_table(self) -> Tensor | None:
        """The embeddings of the codes with which items enter, where the heads have none."""
        if not self.plan.shares_code_table:
            return None
        return self.vocabulary.embedding

    # --- training ---------------------------------------------------------------------------------

    def _head_losses(
        self,
        states: Tensor,
        items: Tensor,
        vectors: Vectors,
        excluded: Tensor | None,
        closed: ClosedCodes,
    ) -> list[Tensor]:
        """The losses of the heads, in nats; several trees have one each.

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
                losses.append(flat_loss(states, vectors.outputs, items, excluded, smoothing))
            elif head == "parallel":
                losses.append(self._parallel_loss(states, items))
            elif self.tree is None:
                losses.append(self._depth_loss(states, items, vectors.paths, closed))
            else:
                losses += self._tree_losses(states, items, vectors, excluded)
        return losses

    def _parallel_loss(self, states: Tensor, items: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        table = self._shared_code_table()
        return self.parallel.loss(states, self.codes[items], table, smoothing)

    def _tree_losses(
        self, states: Tensor, items: Tensor, vectors: Vectors, excluded: Tensor | None
    ) -> list[Tensor]:
        """The loss of each tree; arguments as those of :meth:`_head_losses`."""
        losses = []
        for (tree, trie), edges in zip(self._trees(), vectors.edges, strict=True):
            losses.append(self._tree_loss(tree, trie, states, items, edges, excluded))
        return losses

    def _tree_loss(
        self,
        tree: StatelessTree,
        trie: ItemTrie,
        states: Tensor,
        items: Tensor,
        edges: TreeEdges,
        excluded: Tensor | None,
    ) -> Tensor:
        """The loss of a tree in nats, with its prefix terms; see :meth:`_head_losses`."""
        closed = ALL_OPEN
        if excluded is not None:
            closed = ClosedCodes.of(trie, items, excluded)
        levels = tree.level_losses(trie, states, items, edges, closed, self.label_smoothing)
        return self._with_prefix_terms(levels)

    def _text_stream_losses(
        self,
        history: Tensor,
        is_target: Tensor,
        items: Tensor,
        vectors: Vectors,
        excluded: Tensor | None,
    ) -> list[Tensor]:
        """The losses of the heads of the second stream, in nats.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            is_target: positions that learn, bool ``[B, T]``.
            items: their targets ``[P]``.
            vectors: for the weights as they are.
            excluded: items that do not compete ``[P, H]``, 0 = none.
        """
        stream = self.text_stream
        of_stream = vectors.text_stream
        states = stream.states(history, of_stream)[is_target]  # [P, d]
        smoothing = self.label_smoothing
        losses = []
        for head in self.plan.head_names:
            if head == "flat":
                loss = flat_loss(states, of_stream.items, items, excluded, smoothing)
            else:
                edges = of_stream.edges
                loss = self._tree_loss(stream.tree, self.trie, states, items, edges, excluded)
            losses.append(loss)
        return losses

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
        vectors = self._vectors()
        states = self.last_states(history, length, vectors.inputs)  # [B, d]
        text_states = None
        if self.text_stream is not None:
            text_states = self._text_states(history, length, vectors)
        total = torch.zeros((), device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            for head in self.plan.head_names:
                if head == "flat":
                    total = total + self._flat_log_probs(states, text_states, vectors, trie)
                elif head == "parallel":
                    total = total + self._parallel_log_probs(states, trie)
                else:
                    total = total + self._tree_log_probs(states, text_states, vectors, trie)
        return total

    def _text_states(self, history: Tensor, length: Tensor, vectors: Vectors) -> Tensor:
        """The state of the last item of each history in the second stream, ``[B, d]``."""
        rows = torch.arange(len(length), device=length.device)
        return self.text_stream.states(history, vectors.text_stream)[rows, length - 1]

    def _flat_log_probs(
        self, states: Tensor, text_states: Tensor | None, vectors: Vectors, trie: ItemTrie
    ) -> Tensor:
        """Log-probabilities of all items by the softmax over items; see :meth:`_tree_log_probs`."""
        outputs = vectors.outputs
        if text_states is not None:  # the means of the logits of both streams
            states = torch.cat([states, text_states.float()], dim=1) / 2
            outputs = torch.cat([outputs, vectors.text_stream.items], dim=1)
        return flat_log_probs(states, outputs, trie)

    def _parallel_log_probs(self, states: Tensor, trie: ItemTrie) -> Tensor:
        """Sums of the log-probabilities of codes, ``[B, n_items]``; items of equal codes differ."""
        scores = self.parallel.item_log_probs(states, self.codes, self._shared_code_table())
        return break_item_ties(trie, scores)

    def _tree_log_probs(
        self, states: Tensor, text_states: Tensor | None, vectors: Vectors, trie: ItemTrie
    ) -> Tensor:
        """Log-probabilities of all items by the trees, ``[B, n_items]``; of several as one.

        Args:
            states: float32 ``[B, d]``.
            text_states: those of the second stream ``[B, d]``.
            vectors: for the weights as they are.
            trie: of the items to choose among.
        """
        tries = [trie, *(codes.among(trie) for codes in self.further_codes)]
        tree_scores = []
        for (tree, _), of_items, edges in zip(self._trees(), tries, vectors.edges, strict=True):
            streams = [Stream(tree, states, edges)]
            if text_states is not None:
                of_texts = self.text_stream.tree, text_states.float(), vectors.text_stream.edges
                streams.append(Stream(*of_texts))
            tree_scores.append(log_probs_of_streams(of_items, streams))
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
        if self.text_stream is not None:
            vectors.text_stream = self.text_stream.vectors(self.trie, self.text_inputs())
        return vectors
