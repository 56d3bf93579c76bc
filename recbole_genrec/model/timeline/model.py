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
    generator: parallel                   one softmax a code, ``parallel.py``

    D_l  code tables of the depth decoder
    V_l  mean output vector of the items below each continuation (``path_vectors.py``)

The cross-entropy is over the codes that the trie allows, or over the level (``loss_vocab``).

With the tree alone outputs are codes, whatever the parts of items are. With ``heads: [tree, flat]``
the model is a hybrid, and with ``output: items`` it is the flat twin of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_genrec.decoding import ALL_OPEN, ItemTrie, SearchResult, catalogue_search
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.timeline.checks import check_refinable, check_timeline
from recbole_genrec.model.timeline.decoder import TimelineDecoder
from recbole_genrec.model.timeline.heads import TimelineHeads
from recbole_genrec.model.timeline.keys import Plan, TimelineSettings
from recbole_genrec.model.timeline.parallel import ParallelDepth
from recbole_genrec.model.timeline.stateless_depth import StatelessDepth
from recbole_genrec.runtime.processes import balanced


class TimelineRec(TimelineHeads):
    """TimelineRec on the codes of any tokenizer.

    ``properties/model/TimelineRec.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    trains_without_history = True

    # --- the two functions of a method ------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Mean over positions of -log p(next item), in nats; of several heads one a head.

        With ``align_weight`` the alignment of items with their texts comes last.

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
        closed = ALL_OPEN
        if self.plan.has_depth:
            closed = self.closed_codes(history, items, is_target)
        losses = self._head_losses(states, items, vectors.heads, excluded, closed)
        if vectors.text_stream is not None:
            of_texts = vectors.text_stream
            states = of_texts.states(history)[is_target]
            losses += self._head_losses(states, items, of_texts.heads, excluded)
        if self.text_alignment is not None and self.training:
            of_items = self.input_vectors(items)  # [P, d]
            distance = self.text_alignment.loss(of_items, self.texts[items])
            losses.append(self.settings.align_weight * distance)
        losses = [balanced(loss, len(items)) for loss in losses]
        return losses[0] if len(losses) == 1 else tuple(losses)

    def item_logits(self, history: Tensor, length: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the state of the last item.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.

        Raises:
            ConfigError: there is no tree of codes.
        """
        if self.plan.head_names == ("flat",):
            raise ConfigError(
                "output: items generates no codes; there is no decoder along them. Use "
                "output: codes."
            )
        vectors = self._vectors()
        streams = self._streams(history, length, vectors)
        states = torch.cat([of_stream for of_stream, _ in streams], dim=-1)  # [B, M d]
        if self.plan.has_depth:
            return self._decoder(states, self._logits(vectors.heads.paths))
        if "parallel" in self.plan.head_names:
            parallel = ParallelDepth(self.parallel, self._code_table())
            return TimelineDecoder(parallel, states, parallel.log_probs, self._child)
        if vectors.stateless is None:
            trees = [of_stream.trees[0] for _, of_stream in streams]
            vectors.stateless = StatelessDepth(self.trie, trees)
        stateless = vectors.stateless
        return TimelineDecoder(stateless, states, stateless.log_probs, self._child)

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
        result = catalogue_search(scores, members, k, fill=fill, excluded=excluded)
        self.search_log.add(result)
        return result

    @property
    def sparse_parameters(self) -> list[nn.Parameter]:
        """With ``sparse_tables`` the tables that get gradients for the rows of a batch alone."""
        if not self.settings.sparse_tables:
            return []
        tables = [] if self.id_table is None else [self.id_table]
        for tree in self.trees:
            tables += tree.own[1:]
            tables += tree.bias[1:]
        return tables

    @property
    def has_one_tree(self) -> bool:
        """As the base's; several heads or trees add up their scores."""
        return self.plan.head_names == ("tree",) and self.plan.n_trees == 1

    @property
    def scores_every_item(self) -> bool:
        """As the base's; also where one product scores all items."""
        return self.plan.scores_all_items or super().scores_every_item

    def predict(self, interaction) -> Tensor:
        """Log-likelihood ``[B]`` of the given item of each row."""
        if self.plan.scores_all_items:
            return GenRecModel.predict(self, interaction)
        return super().predict(interaction)

    # --- new items --------------------------------------------------------------------------------

    def append_items(
        self, texts: Sequence[str], tokens: Sequence[str], /, **rows: Tensor
    ) -> list[int]:
        """As the base's; the tree of ``depth: none`` grows edges to the new items."""
        before = self.trie
        added = super().append_items(texts, tokens, **rows)
        if self.plan.has_stateless_trees:
            self.tree.grow(before, self.trie)
        if self.text_stream is not None and self.text_stream.tree is not None:
            self.text_stream.tree.grow(before, self.trie)
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
        for tree, codes, rows in zip(self.trees[1:], self.further_codes, placed, strict=True):
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
        for tokenizer in settings.tokenizers or ():
            cls.check_order_of_codes({**values, "tokenizer": tokenizer})

    @classmethod
    def generates_paths(cls, values: dict) -> bool:
        """As the base's; parallel codes and items are generated without a path."""
        return "tree" in Plan(TimelineSettings.of(values)).head_names

    @classmethod
    def check_settings(cls, settings: TimelineSettings) -> None:
        """Refuse combinations of the keys that cannot work."""
        check_timeline(settings)

    @classmethod
    def reads_codes(cls, config) -> bool:
        """As the base's; a softmax over items reads none."""
        return Plan(cls.settings_class.of(config)).reads_codes

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the size.

        Args:
            config: the settings of the run.
        """
        settings = cls.settings_class.of(config)
        plan = Plan(settings)
        size = f"{settings.n_layers} layers of width {settings.d_model}"
        if "tree" in plan.head_names:
            size += f", depth {settings.depth}"
        inputs = " + ".join(plan.input_parts)
        outputs = " + ".join(plan.output_parts) or "none"
        options = f"heads {' + '.join(plan.head_names)}, items in: {inputs}, out: {outputs}"
        lines = {**super().describe(config), "generator": f"{size}, {options}"}
        if settings.tokenizers is not None:
            lines["trees"] = f"{', '.join(settings.tokenizers)}; scores: {settings.tree_scores}"
        if plan.has_text_stream:
            text_map = "a linear map"
            if settings.text_stream_mlp:
                text_map = f"an MLP of {settings.text_stream_mlp}"
            dropout = settings.text_stream_dropout
            lines["second stream"] = f"texts alone by {text_map}, dropout {dropout}"
        if plan.scores_all_items:
            lines["search"] = "all items at once, exact"
        return lines

    def report(self) -> dict:
        """As the base's, with the heads."""
        report = super().report()
        report["heads"] = list(self.plan.head_names)
        if self.plan.scores_all_items:
            report["search"]["score_mode"] = "exact"
        if "parallel" in self.plan.head_names:
            report["search"]["score_type"] = "level"
        return report
