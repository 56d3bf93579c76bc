"""TimelineRec: one position an item on a time axis, a small decoder along the codes of the next item. A generator of our own.

The idea, a spatial transformer over positions and a small depth decoder over the codes of each, is that of the RQ-Transformer
(arXiv 2203.01941) and, for recommendation, of MARIUS (arXiv 2508.14910); the details are ours and published nowhere::

    x_t = sum_l E_l[c_tl]  (+ I[i_t])  (+ W e_t)  + p_t          E_l code tables, I item ids, e_t sentence embedding, p_t position
    h   = LN(Transformer_causal(x))                              one pass trains all next-item targets of a row
    s_0 = h_t ;  logits_l = (W_l (+ V_l)) LN_l(s_{l-1}) ;  s_l = s_{l-1} + MLP_l([s_{l-1} ; D_l[c_l]])
    loss = mean over positions of sum_l CE(logits_l, c_l of the next item)      over the codes that the trie allows, or over the level

V_l, with ``output_id``: the mean id embedding of the items below each continuation (``path_vectors.py``). Outputs are codes in every
variant: an item id or text on the input side does not make it a retrieval model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recbole_genrec.backbone import CodeVocabulary, cheapen
from recbole_genrec.data.text_encoder import standardised
from recbole_genrec.decoding import item_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.timeline.depth import DepthMLP, DepthTransformer, TimelineDecoder
from recbole_genrec.model.timeline.path_vectors import PathVectors
from recbole_genrec.runtime.processes import balanced
from recbole_genrec.settings.rules import Rule

DEPTHS = {"mlp": DepthMLP, "transformer": DepthTransformer}


class TimelineRec(GenerativeRecommender):
    """TimelineRec on the codes of any tokenizer; see ``properties/model/TimelineRec.yaml`` for the keys."""

    config_rules = {
        "d_model": Rule(int, "width", low=1),
        "n_layers": Rule(int, "layers of the transformer over items", low=1),
        "n_heads": Rule(int, "attention heads", low=1),
        "timeline_dropout": Rule(float, "dropout", low=0, high=1),
        "depth": Rule(str, "decoder along the codes", choices=tuple(DEPTHS)),
        "depth_layers": Rule(int, "layers of depth: transformer", low=1),
        "input_id": Rule(bool, "add an embedding of the item's id to its input vector"),
        "output_id": Rule(
            bool, "a code's output vector is raised by the mean id embedding of the items below it"
        ),
        "input_text": Rule(bool, "add the item's projected sentence embedding to its input vector"),
        "loss_vocab": Rule(str, "codes among which a target competes", choices=("level", "trie")),
        "tie_code_tables": Rule(
            bool, "input and depth decoder share their code embeddings (ablation)"
        ),
    }

    rows_by_id = {"id_table": "items"}

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        d, dropout = config["d_model"], config["timeline_dropout"]
        self.vocabulary = CodeVocabulary(self.level_sizes, d, d)  # E and W
        self.depth = DEPTHS[config["depth"]](
            self.level_sizes, d, dropout, config["n_heads"], config["depth_layers"]
        )  # D, MLP_l or layers
        if config["tie_code_tables"]:
            self.depth.embedding = self.vocabulary.embedding
        self.position_table = nn.Embedding(self.max_seq_length, d)
        layer = nn.TransformerEncoderLayer(
            d, config["n_heads"], 4 * d, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(
            layer, config["n_layers"], nn.LayerNorm(d), enable_nested_tensor=False
        )
        self.dropout = nn.Dropout(dropout)
        uses_ids = config["input_id"] or config["output_id"]
        self.id_table = nn.Parameter(torch.randn(len(self.codes), d) * 0.02) if uses_ids else None
        self._kept_paths: tuple[tuple, PathVectors] | None = None
        nn.init.normal_(self.position_table.weight, std=0.02)
        if config["input_text"]:
            self._load_texts()
            self.text_projection = nn.Linear(self.texts.shape[1], d)
        cheapen(self)

    @classmethod
    def check_config(cls, values: dict) -> None:
        """The base's checks, and heads that share out the width."""
        super().check_config(values)
        if values["d_model"] % values["n_heads"]:
            raise ConfigError(
                f"d_model {values['d_model']} is no multiple of n_heads {values['n_heads']}."
            )

    @classmethod
    def reads_text(cls, config) -> bool:
        """With ``input_text``."""
        return config["input_text"]

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the size."""
        size = f"{config['n_layers']} layers of width {config['d_model']}, depth {config['depth']}"
        options = ", ".join(
            f"{key} {config[key]}" for key in ("input_id", "output_id", "input_text", "loss_vocab")
        )
        return {**super().describe(config), "generator": f"{size}, {options}"}

    def _load_texts(self) -> None:
        """Standardised sentence embeddings of all items; padding stays zero."""
        texts = standardised(self.content.embeddings(), self.n_dataset_items)
        self.register_buffer("texts", torch.from_numpy(texts), persistent=False)

    def timeline(self, history: Tensor) -> Tensor:
        """States ``h [B, T, d]``; state t knows items 1 to t of ``history [B, T]``."""
        slots = history.shape[1]
        x = nn.functional.embedding(
            self.vocabulary.flat(self.codes[history]), self.vocabulary.embedding
        ).sum(-2)
        if self.config["input_id"]:
            x = x + nn.functional.embedding(history, self.id_table)
        if self.config["input_text"]:
            x = x + self.text_projection(self.texts[history])
        x = self.dropout(x + self.position_table.weight[:slots])
        return self.transformer(x, mask=self._causal(slots), is_causal=True)

    def _causal(self, slots: int) -> Tensor:
        return torch.ones(slots, slots, dtype=torch.bool, device=self.codes.device).triu(1)

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Mean over positions of the sum over levels of the cross-entropy of the next item's codes: -log p(item) in nats.

        ``train_rows: all`` learns from the last position of each row only, the others from every position.
        """
        following, wanted = self.next_items(history, length, target)
        states, items, logits = self.timeline(history)[wanted], following[wanted], self._logits()
        nodes = self.trie.paths(self.trie.leaf_of_item[items])
        steps = enumerate(self.depth.teach(states, self.codes[items]))
        blocks = (logits(state, level, nodes[level]) for level, state in steps)
        loss = (
            item_cross_entropy(self.trie, items, blocks)
            if self.config["loss_vocab"] == "trie"
            else self._level_loss(blocks, items)
        )
        return balanced(loss, len(items))

    def _level_loss(self, blocks: Iterable[Tensor], items: Tensor) -> Tensor:
        codes = self.codes[items].unbind(1)
        return torch.stack(
            [cross_entropy(block, code) for block, code in zip(blocks, codes, strict=True)]
        ).sum()

    def item_logits(self, history: Tensor, length: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the state of the last item."""
        states = self.timeline(history)[torch.arange(len(length), device=length.device), length - 1]
        return self._decoder(states, self._logits())

    def _decoder(
        self, states: Tensor, logits: Callable[[Tensor, int, Tensor], Tensor]
    ) -> TimelineDecoder:
        levels = self.trie.levels
        return TimelineDecoder(
            self.depth,
            states,
            lambda state, level, prefixes: logits(state, level, prefixes).log_softmax(-1),
            lambda prefixes, codes, level: levels[level].child(prefixes, codes),
        )

    def _logits(self) -> Callable[[Tensor, int, Tensor], Tensor]:
        """``(states [..., d], level, prefixes [...]) -> [..., V_level]``, for the weights as they are."""
        paths = self._path_vectors() if self.config["output_id"] else None

        def logits(states: Tensor, level: int, nodes: Tensor) -> Tensor:
            own = self._code_logits(states, level)
            return own if paths is None else own + paths.logits(states, level, nodes)

        return logits

    def _path_vectors(self) -> PathVectors:
        """Kept from one search to the next while neither the trie nor the id embeddings change. A training step needs its own and forgets
        the kept ones: weights shared out among processes (``fsdp``) change without a new version."""
        if torch.is_grad_enabled():
            self._kept_paths = None
            return PathVectors(self.trie, self.id_table)
        key = (self.trie, self.id_table._version, self.id_table.data_ptr())
        if self._kept_paths is None or self._kept_paths[0] != key:
            self._kept_paths = key, PathVectors(self.trie, self.id_table)
        return self._kept_paths[1]

    def _code_logits(self, states: Tensor, level: int, *_) -> Tensor:
        return self.vocabulary.logits(states, level).float()

    @property
    def prefix_width(self) -> int:
        """The item's projected content vector stands in the place of ``h``."""
        return self.config["d_model"]

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Sum over levels, as :meth:`loss`; over whole levels and without path vectors, because a refresh looks beyond the trie."""
        states = self.depth.teach(self.item_prefix(items).sum(1), self.codes[items])
        return balanced(
            self._level_loss(
                (self._code_logits(state, level) for level, state in enumerate(states)), items
            ),
            len(items),
        )

    def item_decoder(self, items: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the item's own content."""
        return self._decoder(self.item_prefix(items).sum(1), self._code_logits)

    @torch.no_grad()
    def items_added(self, items: list[int]) -> None:
        """Extend the tables; the id vector of a new item is the mean of the table.

        Args:
            items: internal ids of the new items.
        """
        if self.id_table is not None:
            mean = self.id_table[1 : self.n_dataset_items].mean(0)  # [d]
            new_rows = mean.expand(len(items), -1)  # [n, d]
            self.id_table = nn.Parameter(torch.cat([self.id_table, new_rows]))
        if self.config["input_text"]:
            self.content.forget_embeddings()
            self._load_texts()
            self.texts = self.texts.to(self.codes.device)
