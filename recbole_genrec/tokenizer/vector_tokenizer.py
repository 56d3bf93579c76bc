"""What the tokenizers of item vectors share: inputs, scaling, collisions, new items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.data.ids import rows_in_order_of_ids
from recbole_genrec.data.vectors.item_vectors import item_vectors_identity, vectors_replace_text
from recbole_genrec.data.vectors.scale import Scale
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.tokenizer_keys import (
    FitItemKeys,
    RepairKeys,
    ScaleKeys,
    TokenizerSettings,
)
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collapse import (
    possible_ids,
    refuse_collapse,
    refuse_few_ids,
    refuse_single_codes,
)

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent


class VectorSettings(ScaleKeys, FitItemKeys, RepairKeys, TokenizerSettings):
    """Keys of every tokenizer of item vectors."""

    tokenizer_input: Literal["text", "cf", "graph"] = key(
        "vectors that are quantised", affects="tokenizer"
    )


class VectorTokenizer(ItemTokenizer):
    """Quantises one vector an item.

    Its sentence embedding, or a collaborative vector: ``tokenizer_input: cf`` from SASRec,
    ``graph`` from LightGCN. A subclass writes :meth:`learn`, which sets ``quantiser``.

    Attributes:
        scale: of the item vectors, after :meth:`fit` or :meth:`set_state`.
        quantiser: of the scaled vectors, likewise; with ``sizes``, ``assign``,
            ``level_distances`` and ``reconstruct``.
        order: rows of the content in the order of the raw item ids, after :meth:`fit`.
    """

    settings_class: ClassVar[type[VectorSettings]] = VectorSettings
    settings: VectorSettings
    caps_sizes = True
    quantiser: Any  # subclasses know which

    def config_key(self, switches: bool = True) -> dict[str, Any]:
        """The settings, and the text encoder's weights where it is used."""
        settings = super().config_key(switches)
        if self.uses_text:
            settings |= TextEncoding.of(self.settings).key()
        if self.uses_item_vectors:
            settings["item_vectors"] = item_vectors_identity(str(self.settings.item_vectors))
        return settings

    @property
    def reads_content(self) -> bool:
        """``tokenizer_input: text`` reads what items are, not who chose them."""
        return self.settings.tokenizer_input == "text"

    @property
    def uses_text(self) -> bool:  # type: ignore[override]
        """``tokenizer_input: text`` reads item texts, unless ``item_vectors`` replace them."""
        return self.reads_content and not vectors_replace_text(self.config)

    @property
    def uses_item_vectors(self) -> bool:  # type: ignore[override]
        """``tokenizer_input: text`` reads the vectors of ``item_vectors`` too, or alone."""
        return self.reads_content and self.settings.item_vectors is not None

    @property
    def uses_interactions(self) -> bool:  # type: ignore[override]
        """``tokenizer_input: cf`` and ``graph`` read the training split."""
        return not self.reads_content

    @property
    def uses_graph(self) -> bool:
        """``tokenizer_input: graph`` reads LightGCN's vectors."""
        return self.settings.tokenizer_input == "graph"

    def interactions_key(self, content: ItemContent) -> object:
        """As the base says, with the settings of LightGCN where its vectors are used."""
        interactions = super().interactions_key(content)
        return [interactions, content.graph_fingerprint] if self.uses_graph else interactions

    @abstractmethod
    def learn(self, x: Tensor, content: ItemContent) -> None:
        """Set ``self.quantiser`` from the item vectors ``x [n, D]``, float32."""

    def vectors(self, content: ItemContent) -> np.ndarray:
        """What is quantised, ``[n_items, D]``, row 0 = padding item."""
        return content.vectors(self.settings.tokenizer_input)

    def fit(self, content: ItemContent) -> ItemCodes:
        """Vectors to codes, then the collision policies, all in the order of the raw item ids.

        ``self.order`` holds the rows of ``content`` in this order. The numbering of the items
        therefore changes no item's codes.

        Raises:
            ConfigError: ``codebook_sizes`` cannot name all items.
            GenRecError: nearly all items have the same vector or the same codes, or there are far
                fewer distinct ids than items.
        """
        self.fitted_sizes(len(content.tokens) - 1)
        self.order = rows_in_order_of_ids(content.tokens)[1:]
        x = self._fitted_scale(self.vectors(content)[self.order])
        refuse_collapse(x, "vector")

        self.learn(x, content)
        learned = self.quantiser.assign(x)
        refuse_collapse(learned, "codes")
        refuse_few_ids(learned, possible_ids(self.quantiser.sizes, x))
        refuse_single_codes(learned, self.quantiser.sizes, x)
        error = (self.quantiser.reconstruct(learned) - x).square().mean()
        self.quality["reconstruction_error"] = float(error)

        codes = ItemCodes.build(
            learned,
            self.quantiser.sizes,
            [content.tokens[row] for row in (0, *self.order)],
            distances=lambda rows: self.quantiser.level_distances(x[rows]),
            **self.settings.collision_options,
        )
        return codes.aligned(content.tokens)

    def _fitted_scale(self, vectors: np.ndarray) -> Tensor:
        """Scale ``vectors [n, D]`` by what they are, and keep the scale.

        Items without an interaction have no part in it.
        """
        without = np.zeros(len(vectors), dtype=bool)
        if not self.reads_content:
            without = (vectors == 0).all(1)
        known = vectors if without.all() else vectors[~without]
        self.scale = Scale.of(known, self.settings.standardize)
        return self._scaled(vectors)

    def _scaled(self, vectors: np.ndarray) -> Tensor:
        """Scaled vectors ``[n, D]``; who has no interaction stays a zero vector."""
        x = self.scale.apply(vectors)
        if not self.reads_content:
            x[torch.from_numpy((vectors == 0).all(1))] = 0
        return x

    def encode(self, new: NewItems) -> Tensor:
        """Codes of new items from their vectors, or from their texts alone."""
        return self.quantiser.assign(self._new(new))

    def place(self, new: NewItems, existing: Tensor, sizes: Sequence[int]) -> tuple[Tensor, int]:
        """As the base says; an item whose codes are full takes the nearest free ones."""
        x = self._new(new)
        codes = self.quantiser.assign(x)
        return self._place(
            codes, existing, sizes, lambda rows: self.quantiser.level_distances(x[rows])
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scaling and quantiser; a subclass adds what its quantiser is made of."""
        tensors, meta = super().state()
        return {**tensors, **self.scale.tensors()}, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        self.scale = Scale.from_tensors(tensors)

    def _new(self, new: NewItems) -> Tensor:
        """Scaled vectors float32 ``[n, D]`` of new items."""
        if new.vectors is not None:
            return self._scaled(self._checked(new))
        if self.uses_item_vectors:
            raise ConfigError(
                f"item_vectors: the tokenizer {self.name} was fitted to vectors of "
                f"{self.settings.item_vectors}, so new items need theirs: give vectors."
            )
        if not self.reads_content:
            raise ConfigError(
                f"tokenizer_input: {self.settings.tokenizer_input} quantises collaborative "
                "vectors, which new items do not have. Use tokenizer_input: text, or give the "
                "vectors of the new items."
            )
        encoding = replace(TextEncoding.of(self.settings), show_progress=False)
        return self._scaled(encoding.vectors(new.texts))

    def _checked(self, new: NewItems) -> np.ndarray:
        vectors = np.asarray(new.vectors, dtype=np.float32)
        shape = (len(new), self.scale.width)
        if vectors.shape != shape or not np.isfinite(vectors).all():
            raise ConfigError(
                f"{len(new)} new items with vectors of shape {list(vectors.shape)}: the tokenizer "
                f"{self.name} needs finite numbers of shape {list(shape)}."
            )
        return vectors


class FittedQuantiserTokenizer(VectorTokenizer):
    """A tokenizer whose quantiser is stored as its tensors, without a network.

    Attributes:
        quantiser_class: class of ``quantiser``, with ``tensors()`` and ``from_tensors()``.
    """

    quantiser_class: ClassVar[Any]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scaling and quantiser."""
        tensors, meta = super().state()
        return {**tensors, **self.quantiser.tensors()}, meta

    def set_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        super().set_state(tensors, meta)
        scale = self.scale.tensors()
        self.quantiser = self.quantiser_class.from_tensors(
            {name: value for name, value in tensors.items() if name not in scale}
        )
