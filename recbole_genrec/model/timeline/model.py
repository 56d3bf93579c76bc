"""TimelineRec: one position per item on a time axis, a small decoder along the codes of an item.

A generator of our own. A spatial transformer over positions with a small depth decoder over the
codes of each is the idea of the RQ-Transformer (arXiv 2203.01941) and, for recommendation, of
MARIUS (arXiv 2508.14910). The details are ours and published nowhere::

    x_t = sum_l E_l[c_tl]  (+ I[i_t])  (+ W e_t)  + p_t
    h   = LN(Transformer_causal(x))               one pass trains all next-item targets of a row
    s_0 = h_t
    logits_l = (W_l (+ V_l)) LN_l(s_{l-1})
    s_l = s_{l-1} + MLP_l([s_{l-1} ; D_l[c_l]])
    loss = mean over positions of sum_l CE(logits_l, c_l of the next item)

    E_l, D_l  code tables of the input and of the depth decoder
    I         item ids (``input_id``)
    e_t       sentence embedding (``input_text``)
    p_t       position
    V_l       mean id embedding of the items below each continuation
              (``output_id``, ``path_vectors.py``)

The cross-entropy is over the codes that the trie allows, or over the level (``loss_vocab``).

Outputs are codes in every variant. An item id or text on the input side does not make it a
retrieval model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from recbole_genrec.backbone import CodeVocabulary, cheapen
from recbole_genrec.data.item_vectors import vectors_replace_text
from recbole_genrec.data.text_encoder import standardised
from recbole_genrec.decoding import item_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.timeline.decoder import TimelineDecoder
from recbole_genrec.model.timeline.depth import DepthMLP, DepthTransformer
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.shared_keys import SharedSettings

DEPTHS = {"mlp": DepthMLP, "transformer": DepthTransformer}

LogitsFunction = Callable[[Tensor, int, Tensor], Tensor]
"""``(states [..., d], level, prefixes [...]) -> logits [..., V_level]``."""


class TimelineSettings(SharedSettings):
    """Keys of TimelineRec."""

    d_model: int = key("width", ge=1, affects="training")
    n_layers: int = key("layers of the transformer over items", ge=1, affects="training")
    n_heads: int = key("attention heads", ge=1, affects="training")
    timeline_dropout: float = key("dropout", ge=0, le=1, affects="training")
    depth: Literal["mlp", "transformer"] = key("decoder along the codes", affects="training")
    depth_layers: int = key(
        "layers of depth: transformer",
        ge=1,
        affects="training",
        only_if=("depth", "transformer"),
    )
    input_id: bool = key(
        "add an embedding of the item's id to its input vector", affects="training"
    )
    output_id: bool = key(
        "a code's output vector is raised by the mean id embedding of the items below it",
        affects="training",
    )
    input_text: bool = key(
        "add the item's projected sentence embedding to its input vector", affects="training"
    )
    loss_vocab: Literal["level", "trie"] = key(
        "codes among which a target competes", affects="training"
    )
    tie_code_tables: bool = key(
        "input and depth decoder share their code embeddings (ablation)", affects="training"
    )


class TimelineRec(GenerativeRecommender):
    """TimelineRec on the codes of any tokenizer.

    ``properties/model/TimelineRec.yaml`` lists the keys.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    settings_class = TimelineSettings
    settings: TimelineSettings

    rows_by_id = {"id_table": "items"}
    trains_without_history = True

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        settings = self.settings
        d, n_heads, dropout = settings.d_model, settings.n_heads, settings.timeline_dropout

        self.vocabulary = CodeVocabulary(self.level_sizes, d, d)  # E and W
        make_depth = DEPTHS[settings.depth]
        self.depth = make_depth(self.level_sizes, d, dropout, n_heads, settings.depth_layers)
        if settings.tie_code_tables:
            self.depth.embedding = self.vocabulary.embedding

        self.position_table = nn.Embedding(self.max_seq_length, d)
        layer = nn.TransformerEncoderLayer(
            d, n_heads, 4 * d, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(
            layer, settings.n_layers, nn.LayerNorm(d), enable_nested_tensor=False
        )
        self.dropout = nn.Dropout(dropout)

        self.id_table: nn.Parameter | None = None
        if settings.input_id or settings.output_id:
            self.id_table = nn.Parameter(torch.randn(len(self.codes), d) * 0.02)
        self._cached_paths: tuple[tuple, PathVectors] | None = None
        nn.init.normal_(self.position_table.weight, std=0.02)

        if settings.input_text:
            self._load_texts()
            self.text_projection = nn.Linear(self.texts.shape[1], d)
        cheapen(self)

    # --- the two functions of a method ------------------------------------------------------------

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Mean over positions of -log p(next item), in nats: a sum over the levels of its codes.

        ``train_rows: all`` learns from the last position of each row only, the other values from
        every position.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
            target: ids of the next items ``[B]``.
        """
        following, is_target = self.next_items(history, length, target)  # [B, T]
        states = self.timeline(history)[is_target]  # [P, d]
        items = following[is_target]  # [P]

        logits = self._logits()
        nodes = self.trie.paths(self.trie.leaf_of_item[items])
        blocks = (
            logits(state, level, nodes[level])  # [P, V_level]
            for level, state in enumerate(self.depth.teach(states, self.codes[items]))
        )
        blocks = self.closed_codes(history, items, is_target).hide(blocks)
        if self.settings.loss_vocab == "trie":
            loss = item_cross_entropy(self.trie, items, blocks)
        else:
            loss = self._level_loss(blocks, items)
        return balanced(loss, len(items))

    def item_logits(self, history: Tensor, length: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the state of the last item.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: number of items in each history ``[B]``.
        """
        rows = torch.arange(len(length), device=length.device)
        states = self.timeline(history)[rows, length - 1]  # [B, d]
        return self._decoder(states, self._logits())

    # --- states -----------------------------------------------------------------------------------

    def timeline(self, history: Tensor) -> Tensor:
        """States of all positions; state t knows items 1 to t.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.

        Returns:
            ``h [B, T, d]``.
        """
        n_slots = history.shape[1]
        codes = self.vocabulary.flat(self.codes[history])  # [B, T, L]
        x = embedding(codes, self.vocabulary.embedding).sum(-2)  # [B, T, d]
        if self.settings.input_id:
            x = x + embedding(history, self.id_table)
        if self.settings.input_text:
            x = x + self.text_projection(self.texts[history])
        x = self.dropout(x + self.position_table.weight[:n_slots])
        return self.transformer(x, mask=self._causal_mask(n_slots), is_causal=True)

    def _causal_mask(self, n_slots: int) -> Tensor:
        """Bool ``[T, T]``; True hides a later position."""
        return torch.ones(n_slots, n_slots, dtype=torch.bool, device=self.codes.device).triu(1)

    # --- logits along the codes -------------------------------------------------------------------

    def _logits(self) -> LogitsFunction:
        """The logits of a level, for the weights as they are."""
        if not self.settings.output_id:
            return self._code_logits
        paths = self._path_vectors()

        def logits(states: Tensor, level: int, nodes: Tensor) -> Tensor:
            return self._code_logits(states, level) + paths.logits(states, level, nodes)

        return logits

    def _code_logits(self, states: Tensor, level: int, *_) -> Tensor:
        """Logits without path vectors, ``[..., d]`` -> float32 ``[..., V_level]``."""
        return self.vocabulary.logits(states, level).float()

    def _path_vectors(self) -> PathVectors:
        """The path vectors, kept between searches while trie and id embeddings stay the same.

        A training step computes its own and drops the kept ones: weights that are shared among
        processes (``fsdp``) change without a new version.
        """
        if torch.is_grad_enabled():
            self._cached_paths = None
            return PathVectors(self.trie, self.id_table)
        key = (self.trie, self.id_table._version, self.id_table.data_ptr())
        if self._cached_paths is None or self._cached_paths[0] != key:
            self._cached_paths = key, PathVectors(self.trie, self.id_table)
        return self._cached_paths[1]

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
        levels = self.trie.levels

        def log_probs(state: Tensor, level: int, prefixes: Tensor) -> Tensor:
            return logits(state, level, prefixes).log_softmax(-1)

        def child(prefixes: Tensor, codes: Tensor, level: int) -> Tensor:
            return levels[level].child(prefixes, codes)

        return TimelineDecoder(self.depth, states, log_probs, child)

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

    # --- item texts and new items -----------------------------------------------------------------

    def _load_texts(self) -> None:
        """Standardised sentence embeddings of all items ``[n_items, D]``; padding stays zero."""
        texts = standardised(self.content.embeddings(), self.n_dataset_items)
        self.register_buffer("texts", torch.from_numpy(texts), persistent=False)

    def items_added(self, items: list[int]) -> None:
        """Extend the tables; the id vector of a new item is the mean of the table.

        Args:
            items: internal ids of the new items.
        """
        if self.id_table is not None:
            mean = self.id_table[1 : self.n_dataset_items].mean(0)  # [d]
            new_rows = mean.expand(len(items), -1)  # [n, d]
            self.id_table = nn.Parameter(torch.cat([self.id_table, new_rows]))
        if self.settings.input_text:
            self.content.forget_embeddings()
            self._load_texts()
            self.texts = self.texts.to(self.codes.device)

    # --- settings ---------------------------------------------------------------------------------

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, and heads that divide the width.

        Args:
            values: the settings of the run.

        Raises:
            ConfigError: names the keys and what to change.
        """
        super().check_config(values)
        settings = cls.settings_class.of(values)
        if settings.d_model % settings.n_heads:
            raise ConfigError(
                f"d_model {settings.d_model} is no multiple of n_heads {settings.n_heads}."
            )

    @classmethod
    def reads_text(cls, config) -> bool:
        """Whether ``input_text`` is on, and reads texts and not vectors in their place.

        Args:
            config: the settings of the run.
        """
        return cls.settings_class.of(config).input_text and not vectors_replace_text(config)

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the size.

        Args:
            config: the settings of the run.
        """
        settings = cls.settings_class.of(config)
        size = f"{settings.n_layers} layers of width {settings.d_model}, depth {settings.depth}"
        names = ("input_id", "output_id", "input_text", "loss_vocab")
        options = ", ".join(f"{name} {getattr(settings, name)}" for name in names)
        return {**super().describe(config), "generator": f"{size}, {options}"}
