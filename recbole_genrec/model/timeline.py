"""TimelineRec: one position an item on a time axis, a small decoder along the codes of the next item. A generator of our own.

The idea, a spatial transformer over positions and a small depth decoder over the codes of each, is that of the RQ-Transformer
(arXiv 2203.01941) and, for recommendation, of MARIUS (arXiv 2508.14910); the details are ours and published nowhere::

    x_t = sum_l E_l[c_tl]  (+ I[i_t])  (+ W e_t)  + p_t          E_l code tables, I item ids, e_t sentence embedding, p_t position
    h   = LN(Transformer_causal(x))                              one pass trains all next-item targets of a row
    s_0 = h_t ;  logits_l = W_l LN_l(s_{l-1}) ;  s_l = s_{l-1} + MLP_l([s_{l-1} ; D_l[c_l]])
    loss = mean over positions of sum_l CE(logits_l, c_l of the next item)

Outputs are codes in every variant: an item id or text on the input side does not make it a retrieval model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from recbole_genrec.backbone import CodeVocabulary, DepthMLP, DepthTransformer, TimelineDecoder, cheapen
from recbole_genrec.data.text_encoder import standardised
from recbole_genrec.keys import Rule
from recbole_genrec.model.base import GenerativeRecommender

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
        "input_text": Rule(bool, "add the item's projected sentence embedding to its input vector"),
        "tie_code_tables": Rule(bool, "input and depth decoder share their code embeddings (ablation)"),
    }

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        d, dropout = config["d_model"], config["timeline_dropout"]
        self.vocabulary = CodeVocabulary(self.level_sizes, d, d)  # E and W
        self.depth = DEPTHS[config["depth"]](self.level_sizes, d, dropout, config["n_heads"], config["depth_layers"])  # D, MLP_l or layers
        if config["tie_code_tables"]:
            self.depth.embedding = self.vocabulary.embedding
        self.position_table = nn.Embedding(self.max_seq_length, d)
        layer = nn.TransformerEncoderLayer(d, config["n_heads"], 4 * d, dropout, "gelu", batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, config["n_layers"], nn.LayerNorm(d), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.id_table = nn.Parameter(torch.randn(len(self.codes), d) * 0.02) if config["input_id"] else None
        nn.init.normal_(self.position_table.weight, std=0.02)
        if config["input_text"]:
            self._load_texts()
            self.text_projection = nn.Linear(self.texts.shape[1], d)
        cheapen(self)

    @classmethod
    def reads_text(cls, config) -> bool:
        """With ``input_text``."""
        return config["input_text"]

    @classmethod
    def describe(cls, config) -> dict[str, str]:
        """The base's lines and the size."""
        size = f"{config['n_layers']} layers of width {config['d_model']}, depth {config['depth']}"
        return {**super().describe(config), "generator": f"{size}, input_id {config['input_id']}, input_text {config['input_text']}"}

    def _load_texts(self) -> None:
        """Standardised sentence embeddings of all items; padding stays zero."""
        texts = standardised(self.content.embeddings(), self.n_dataset_items)
        self.register_buffer("texts", torch.from_numpy(texts), persistent=False)

    def timeline(self, history: Tensor) -> Tensor:
        """States ``h [B, T, d]``; state t knows items 1 to t of ``history [B, T]``."""
        slots = history.shape[1]
        x = nn.functional.embedding(self.vocabulary.flat(self.codes[history]), self.vocabulary.embedding).sum(-2)
        if self.id_table is not None:
            x = x + nn.functional.embedding(history, self.id_table)
        if self.config["input_text"]:
            x = x + self.text_projection(self.texts[history])
        x = self.dropout(x + self.position_table.weight[:slots])
        return self.transformer(x, mask=self._causal(slots), is_causal=True)

    def _causal(self, slots: int) -> Tensor:
        return torch.ones(slots, slots, dtype=torch.bool, device=self.codes.device).triu(1)

    def loss(self, history: Tensor, length: Tensor, target: Tensor) -> Tensor:
        """Mean over positions of the sum over levels of the cross-entropy of the next item's codes.

        ``train_rows: all`` learns from the last position of each row only, the others from every position.
        """
        at = torch.arange(history.shape[1], device=history.device)
        last = at == length.unsqueeze(1) - 1
        following = torch.where(last, target.unsqueeze(1), pad(history[:, 1:], (0, 1)))
        wanted = last if self.config["train_rows"] == "all" else at < length.unsqueeze(1)
        return self._teach(self.timeline(history)[wanted], following[wanted])

    def _teach(self, states: Tensor, items: Tensor) -> Tensor:
        codes = self.codes[items]
        losses = [
            cross_entropy(self.vocabulary.logits(state, level).float(), codes[:, level])
            for level, state in enumerate(self.depth.teach(states, codes))
        ]
        return torch.stack(losses).sum()

    def item_logits(self, history: Tensor, length: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the state of the last item."""
        return self._decoder(self.timeline(history)[torch.arange(len(length), device=length.device), length - 1])

    def _decoder(self, states: Tensor) -> TimelineDecoder:
        return TimelineDecoder(self.depth, states, lambda state, level: self.vocabulary.logits(state, level).float().log_softmax(-1))

    @property
    def prefix_width(self) -> int:
        """The item's projected content vector stands in the place of ``h``."""
        return self.config["d_model"]

    def alignment_loss(self, items: Tensor) -> Tensor:
        """Sum over levels, as :meth:`loss`."""
        return self._teach(self.item_prefix(items).sum(1), items)

    def item_decoder(self, items: Tensor) -> TimelineDecoder:
        """Next-code log-probabilities from the item's own content."""
        return self._decoder(self.item_prefix(items).sum(1))

    @torch.no_grad()
    def add_items(self, texts, tokens=None) -> list[int]:
        """As the base's; the id vector of a new item is the mean of the table."""
        added = super().add_items(texts, tokens)
        if self.id_table is not None and added:
            mean = self.id_table[1 : self.n_dataset_items].mean(0)
            self.id_table = nn.Parameter(torch.cat([self.id_table, mean.expand(len(added), -1)]))
        if self.config["input_text"] and added:
            self.content.forget_embeddings()
            self._load_texts()
            self.texts = self.texts.to(self.codes.device)
        return added
