"""What a tokenizer may look at: item ids, item text and its sentence embeddings. Nothing in here is learned from interactions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recbole_genrec.data.item_text import read_item_texts
from recbole_genrec.data.text_encoder import encode_texts
from recbole_genrec.errors import DataError
from recbole_genrec.files import digest

DEFAULT_CACHE = ".cache"


@dataclass
class ItemContent:
    """Content of all items by RecBole item id; entry 0 is the padding item with text ``""`` and a zero embedding."""

    tokens: list[str]
    text: list[str]
    text_encoder: str = "default"
    cache_dir: str | Path | None = DEFAULT_CACHE
    device: Any = "cpu"
    show_progress: bool = True
    _embeddings: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.text):
            raise DataError(f"Item content needs one text per item id: {len(self.tokens)} ids, {len(self.text)} texts.")

    @classmethod
    def from_dataset(cls, dataset: Any, config: Any) -> ItemContent:
        """Content of the items of a RecBole dataset.

        Reads ``item_text_fields``, ``text_encoder`` and ``cache_dir`` of ``config`` and the file ``<data_path>/<dataset>.item``
        (RecBole's ``data_path`` ends in the dataset's folder).

        Raises:
            DataError: see :func:`recbole_genrec.data.item_text.read_item_texts`.
        """
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        path = Path(config["data_path"]) / f"{config['dataset']}.item"
        items = read_item_texts(path, config["item_text_fields"], tokens, dataset.iid_field)
        return cls(
            tokens=tokens,
            text=items.texts,
            text_encoder=config["text_encoder"] or "default",
            cache_dir=config["cache_dir"] or DEFAULT_CACHE,
            device=config["device"] or "cpu",
            show_progress=config["show_progress"] is not False,
        )

    @property
    def n_items(self) -> int:
        """Number of items, the padding item included."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """Digest of ids and texts. It does not cover the encoder: see :func:`recbole_genrec.data.text_encoder.encoder_identity`."""
        return digest(self.tokens, self.text)

    def embeddings(self) -> np.ndarray:
        """Sentence embeddings, float32 ``[n_items, D]``, row 0 zero; computed on first use and kept.

        Raises:
            BackboneError: see :func:`recbole_genrec.data.text_encoder.encode_texts`.
        """
        if self._embeddings is None:
            self._embeddings = encode_texts(
                self.text, self.text_encoder, self.cache_dir, device=self.device, show_progress=self.show_progress
            )
        return self._embeddings
