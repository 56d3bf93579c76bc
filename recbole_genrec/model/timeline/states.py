"""The lower half of TimelineRec: item vectors, and the states of a history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recbole_genrec.backbone import CodeVocabulary, cheapen
from recbole_genrec.backbone.visibility import causal
from recbole_genrec.data.vectors.item_vectors import vectors_replace_text
from recbole_genrec.data.vectors.scale import Scale
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.stored import TextUse
from recbole_genrec.model.timeline.further_codes import further_tokenizers
from recbole_genrec.model.timeline.item_vectors import (
    TEXT_LIMIT,
    PartTables,
    PartWeights,
    make_text_map,
    summed_parts,
)
from recbole_genrec.model.timeline.keys import Plan, TimelineSettings
from recbole_genrec.model.timeline.text_alignment import TextAlignment
from recbole_genrec.model.timeline.trunk import (
    RelativeTransformer,
    Slots,
    input_layers,
    last_items,
)
from recbole_genrec.runtime.number_formats import multiplies_bf16


class TimelineStates(GenerativeRecommender):
    """Items enter as one vector each; a causal transformer gives a state for each position.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.

    Attributes:
        vocabulary: embeddings of the codes, where items enter with them or a decoder follows them.
    """

    settings_class = TimelineSettings
    settings: TimelineSettings

    rows_by_id = {"id_table": "items", "output_tables.id_table": "items"}

    vocabulary: CodeVocabulary
    id_table: nn.Parameter | None
    text_projection: nn.Module | None
    output_tables: PartTables | None
    text_alignment: TextAlignment | None
    texts: Tensor

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self.plan = Plan(self.settings)
        self.id_table = None
        self.text_projection = None
        self.output_tables = None
        self.text_alignment = None
        self._rounded_texts: Tensor | None = None
        self._make_heads()
        self._make_trunk()
        self._make_parts()
        cheapen(self)

    def _make_heads(self) -> None:
        """The modules that follow the states; made first."""
        raise NotImplementedError

    def _make_trunk(self) -> None:
        settings = self.settings
        d = settings.d_model
        dropout = settings.timeline_dropout
        self.position_table: nn.Embedding | None = None
        if settings.positions == "relative":
            self.transformer: nn.Module = RelativeTransformer(
                d,
                settings.n_heads,
                settings.n_layers,
                dropout,
                settings.norm,
                self.max_seq_length,
            )
        else:
            self.position_table = nn.Embedding(self.max_seq_length, d)
            self.transformer = self._absolute_transformer()
        self.dropout, self.input_norm = input_layers(self.transformer, d, settings.norm, dropout)

    def _absolute_transformer(self) -> nn.Module:
        settings = self.settings
        d = settings.d_model
        is_pre = settings.norm == "pre"
        layer = nn.TransformerEncoderLayer(
            d,
            settings.n_heads,
            4 * d,
            settings.timeline_dropout,
            "gelu",
            batch_first=True,
            norm_first=is_pre,
        )
        last_norm = nn.LayerNorm(d) if is_pre else None
        return nn.TransformerEncoder(
            layer, settings.n_layers, last_norm, enable_nested_tensor=False
        )

    def _make_parts(self) -> None:
        plan = self.plan
        d = self.settings.d_model
        item_parts = plan.all_item_parts
        if "id" in item_parts:
            self.id_table = nn.Parameter(torch.randn(len(self.codes), d) * 0.02)
        if self.position_table is not None:
            nn.init.normal_(self.position_table.weight, std=0.02)
        if "code" in item_parts and not plan.has_depth:
            self.vocabulary = CodeVocabulary(self.level_sizes, d, d, tied=True)
        if plan.reads_texts:
            self._load_texts()
        if "text" in item_parts:
            self.text_projection = self._text_map()
        if self.settings.align_weight:
            self.text_alignment = TextAlignment(d, self.texts.shape[1])
        if plan.output_parts and not plan.shares_output:
            text_map = self._text_map() if "text" in item_parts else None
            self.output_tables = PartTables(
                plan.output_parts, len(self.codes), sum(self.level_sizes), text_map, d
            )

    def _text_map(self) -> nn.Module:
        n_in = self.texts.shape[1]
        d = self.settings.d_model
        if self.settings.item_parts is None:
            return nn.Linear(n_in, d)
        return make_text_map(n_in, self.settings.text_mlp, d)

    def text_inputs(self) -> Tensor:
        """Sentence embeddings of all items as text maps read them, ``[n_items, D]``.

        In training bfloat16 as ``text_map_precision`` says, rounded once.
        """
        if not self.training or not self._maps_in_bf16:
            return self.texts
        if self._rounded_texts is None or self._rounded_texts.device != self.texts.device:
            self._rounded_texts = self.texts.bfloat16()
        return self._rounded_texts

    @property
    def _maps_in_bf16(self) -> bool:
        precision = self.settings.text_map_precision
        if precision == "auto":
            return multiplies_bf16(self.codes.device.type)
        return precision == "bf16"

    # --- item vectors -----------------------------------------------------------------------------

    def input_vectors(self, items: Tensor | None = None) -> Tensor:
        """Vectors with which items enter.

        Args:
            items: item ids ``[...]``; ``None`` = all.

        Returns:
            ``[..., d]``, or ``[n_items, d]`` for all.
        """
        return self._vectors_of(self._shared_weights(self.plan.input_parts), items)

    def output_vectors(self) -> Tensor | None:
        """Vectors to which states are compared, ``[n_items, d]``; ``None`` where there are none."""
        output_parts = self.plan.output_parts
        if not output_parts:
            return None
        if self.output_tables is not None:
            return self._vectors_of(self.output_tables.weights)
        return self._vectors_of(self._shared_weights(output_parts))

    def _shared_weights(self, item_parts: Sequence[str]) -> PartWeights:
        """Those of the input side, which the output side may share."""
        return PartWeights(
            ids=self.id_table if "id" in item_parts else None,
            codes=self.vocabulary.embedding if "code" in item_parts else None,
            text_map=self.text_projection if "text" in item_parts else None,
        )

    def _vectors_of(self, weights: PartWeights, items: Tensor | None = None) -> Tensor:
        codes = None
        text = None
        if weights.codes is not None:
            codes = (self.vocabulary.tokens(self.codes), weights.codes)
        if weights.text_map is not None:
            text = (weights.text_map, self.text_inputs())
        return summed_parts(items, codes, weights.ids, text, self.settings.sparse_tables)

    # --- states -----------------------------------------------------------------------------------

    def timeline(self, history: Tensor, vectors: Tensor | None = None) -> Tensor:
        """States of all positions; state t knows items 1 to t.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            vectors: input vectors of all items ``[n_items, d]``, where they are there already.

        Returns:
            ``h [B, T, d]``; what stands at padding has no meaning.
        """
        slots = Slots.of(history)
        items = history.flatten()[slots.places]  # [N]
        if vectors is None:
            x = self.input_vectors(items)  # [N, d]
        else:
            x = nn.functional.embedding(items, vectors)
        if self.position_table is None:
            x = self.dropout(self.input_norm(x))
            return slots.padded(self.transformer(x, slots))
        x = x + self.position_table(slots.positions)
        x = slots.padded(self.dropout(self.input_norm(x)))  # [B, T, d]
        later = ~causal(history.shape[1], history.device)
        return self.transformer(x, mask=later, is_causal=True)

    def last_states(self, history: Tensor, length: Tensor, vectors: Tensor | None) -> Tensor:
        """The state of the last item of each history, ``[B, d]``; see :meth:`timeline`."""
        return last_items(self.timeline(history, vectors), length)

    # --- item texts and new items -----------------------------------------------------------------

    def _load_texts(self) -> None:
        """Standardised sentence embeddings of all items ``[n_items, D]``; padding stays zero."""
        vectors = self.content.embeddings()
        self._text_scale = Scale.of(vectors[1 : self.n_dataset_items])
        texts = self._scaled_texts(vectors)
        texts[0] = 0
        self.register_buffer("texts", texts, persistent=False)

    def _scaled_texts(self, vectors: np.ndarray) -> Tensor:
        texts = self._text_scale.apply(vectors)
        if self.settings.item_parts is not None or self.plan.has_text_stream:
            texts = texts.clip(-TEXT_LIMIT, TEXT_LIMIT)
        return texts

    def items_added(self, items: list[int]) -> None:
        """Extend the tables; the id vector of a new item is the mean of the table.

        Args:
            items: internal ids of the new items.
        """
        for owner in (self, self.output_tables):
            if owner is not None and owner.id_table is not None:
                mean = owner.id_table[1 : self.n_dataset_items].mean(0)  # [d]
                new_rows = mean.expand(len(items), -1)  # [n, d]
                owner.id_table = nn.Parameter(torch.cat([owner.id_table, new_rows]))
        if self.plan.reads_texts:
            new_texts = self._scaled_texts(self.content.embeddings()[items])
            self.texts = torch.cat([self.texts, new_texts.to(self.texts.device)])
            self._rounded_texts = None

    @classmethod
    def reads_vectors(cls, config) -> bool:
        """As the base's; the part ``text`` and ``align_weight`` read them too.

        Args:
            config: the settings of the run.
        """
        plan = Plan(cls.settings_class.of(config))
        return plan.reads_texts or super().reads_vectors(config)

    @classmethod
    def text_use(cls, config) -> TextUse:
        """As the base's; texts may be a part of items, and further trees may be of texts.

        Args:
            config: the settings of the run.
        """
        settings = cls.settings_class.of(config)
        are_parts = Plan(settings).reads_texts and not vectors_replace_text(config)
        if are_parts or any(tokenizer.uses_text for tokenizer in further_tokenizers(config)):
            return "required"
        return super().text_use(config)
