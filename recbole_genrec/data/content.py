"""What a tokenizer may look at: item ids, item text and its embeddings.

What the training split says about the items: :mod:`~recbole_genrec.data.items.interaction_content`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_genrec.data.ids import rows_in_order_of_ids
from recbole_genrec.data.items.interaction_content import InteractionContent, Interactions
from recbole_genrec.data.items.item_text import has_item_texts, read_texts_of
from recbole_genrec.data.vectors.item_vectors import ItemVectors
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.storage.digests import digest

DEFAULT_CACHE = ".cache"


@dataclass
class ItemContent(InteractionContent):
    """Content of all items by RecBole item id.

    Entry 0 is the padding item with text ``""`` and a zero embedding.

    Attributes:
        tokens: raw item ids.
        text: one text an item; the raw ids where the items have no text.
        encoding: how texts become vectors.
        cache_dir: folder under which their vectors are kept; ``None`` keeps nothing.
        titles: the first text field alone; ``None`` where the items have no text.
        interactions: where :meth:`collaborative`, :meth:`graph` and :meth:`item_sequences` come
            from; everything else comes from ids and texts.
        item_vectors: vectors of the user's own, or ``None``.
        added_vectors: those that came with added items, ``[n_added, D]``.
        file_vectors: those of ``item_vectors`` once they are read, or as a checkpoint has them.
        users: raw ids of the dataset's users, entry 0 is the padding user.
        text_kinds: RecBole's types of the columns that made the texts, empty where not known.
    """

    tokens: list[str]
    text: list[str]
    encoding: TextEncoding = TextEncoding()
    cache_dir: str | Path | None = DEFAULT_CACHE
    titles: list[str] | None = field(default=None, repr=False, compare=False)
    interactions: Interactions | None = field(default=None, repr=False, compare=False)
    item_vectors: ItemVectors | None = field(default=None, repr=False, compare=False)
    added_vectors: np.ndarray | None = field(default=None, repr=False, compare=False)
    file_vectors: np.ndarray | None = field(default=None, repr=False, compare=False)
    users: list[str] = field(default_factory=list, repr=False, compare=False)
    text_kinds: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _embeddings: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)
    _n_first: int = field(default=0, init=False, repr=False, compare=False)
    _collaborative: tuple[np.ndarray, np.ndarray] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self._n_first = len(self.text)
        if len(self.tokens) != len(self.text):
            raise DataError(
                f"Item content needs one text per item id: {len(self.tokens)} ids, "
                f"{len(self.text)} texts."
            )

    @classmethod
    def from_dataset(cls, dataset: Any, config: Any, needed: bool = True) -> ItemContent:
        """Content of the items of a RecBole dataset.

        The texts stand in the file ``<data_path>/<dataset>.item`` (RecBole's ``data_path`` ends in
        the dataset's folder).

        Args:
            dataset: a RecBole dataset.
            config: a ``GenRecConfig``.
            needed: whether the items must have texts; if not, raw ids stand for those that are not
                there.

        Raises:
            DataError: see :func:`recbole_genrec.data.items.item_text.read_item_texts`.
        """
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        settings = SharedSettings.of(config)
        if needed or has_item_texts(config):
            read = read_texts_of(config, tokens)
            texts, titles, kinds = read.texts, read.titles, read.kinds
        else:
            texts, titles, kinds = ["", *tokens[1:]], None, {}
        return cls(
            tokens=tokens,
            text=texts,
            encoding=TextEncoding.of(settings),
            cache_dir=settings.cache_dir or DEFAULT_CACHE,
            titles=titles,
            text_kinds=kinds,
        )

    @classmethod
    def from_checkpoint(cls, stored: dict[str, Any], config: Any) -> ItemContent:
        """What :meth:`stored` gave; no file is read.

        Args:
            stored: the content of a checkpoint.
            config: a ``GenRecConfig``.
        """
        settings = SharedSettings.of(config)
        titles = stored["titles"]
        if titles is not None:
            titles = list(titles)
        vectors = stored.get("vectors")
        if vectors is not None:
            vectors = vectors.numpy()
        return cls(
            tokens=list(stored["tokens"]),
            text=list(stored["texts"]),
            encoding=TextEncoding.of(settings),
            cache_dir=settings.cache_dir or DEFAULT_CACHE,
            titles=titles,
            text_kinds=dict(stored.get("text_kinds") or {}),
            file_vectors=vectors,
        )

    def stored(self, n_items: int, with_vectors: bool = False) -> dict[str, Any]:
        """Ids and texts of the first items, as plain values for a checkpoint.

        Args:
            n_items: how many, the padding item included.
            with_vectors: whether a model that is loaded reads the vectors of ``item_vectors``.
        """
        titles = None if self.titles is None else self.titles[:n_items]
        content: dict[str, Any] = {
            "tokens": self.tokens[:n_items],
            "texts": self.text[:n_items],
            "titles": titles,
            "text_kinds": self.text_kinds,
        }
        if self.item_vectors is not None:
            content["vector_width"] = self.item_vectors.width
            if with_vectors:
                content["vectors"] = torch.from_numpy(self._of_file(n_items))
        return content

    def added(self, first: int) -> dict[str, Any]:
        """What :meth:`extend`, :meth:`set_titles` and :meth:`add_vectors` took in.

        Args:
            first: internal id of the first of these items.
        """
        content: dict[str, Any] = {
            "tokens": self.tokens[first:],
            "texts": self.text[first:],
            "titles": None if self.titles is None else self.titles[first:],
        }
        if self.added_vectors is not None:
            content["vectors"] = torch.from_numpy(self.added_vectors)
        return content

    def extend(self, texts: list[str], tokens: list[str]) -> None:
        """Texts and raw ids of items that the dataset does not have, with the next ids.

        A whole text is the title too, until :meth:`set_titles` gives another.
        """
        self.tokens += tokens
        self.text += texts
        if self.titles is not None:
            self.titles += texts

    def set_titles(self, items: Sequence[int], titles: Sequence[str]) -> None:
        """Titles of items that :meth:`extend` took in.

        Args:
            items: internal ids.
            titles: the first field of each text; an empty one changes nothing.
        """
        if self.titles is None:
            return
        for item, title in zip(items, titles, strict=True):
            self.titles[item] = title or self.titles[item]

    def of_rows(self, rows: Sequence[int]) -> ItemContent:
        """The content of some items, with vectors of their own; the padding item comes first."""
        titles = self.titles
        vectors = None
        if self.added_vectors is not None:
            vectors = self._file_vectors()[rows]
        return replace(
            self,
            tokens=[self.tokens[row] for row in rows],
            text=[self.text[row] for row in rows],
            titles=None if titles is None else [titles[row] for row in rows],
            added_vectors=None,
            file_vectors=vectors,
        )

    def by_raw_id(self) -> ItemContent:
        """:meth:`of_rows` in the order of the raw ids, whatever numbers the items have."""
        return self.of_rows(rows_in_order_of_ids(self.tokens))

    @property
    def fingerprint(self) -> str:
        """Digest of ids and texts. It does not cover the encoder.

        See :func:`recbole_genrec.data.vectors.text_encoder.encoder_identity`.
        """
        return digest(self.tokens, self.text)

    @property
    def is_described(self) -> bool:
        """Whether the items have texts or vectors; if not, raw ids stand for their texts."""
        return self.titles is not None or self.item_vectors is not None

    def vectors(self, source: str) -> np.ndarray:
        """Vectors of all items, float32 ``[n_items, D]``, row 0 = padding item.

        Args:
            source: ``text`` for :meth:`embeddings`, ``cf`` for :meth:`collaborative`, ``graph`` for
                :meth:`graph`.
        """
        readers = {"text": self.embeddings, "cf": self.collaborative, "graph": self.graph}
        return readers[source]()

    def embeddings(self) -> np.ndarray:
        """Content vectors, float32 ``[n_items, D]``, row 0 zero; made on first use and kept.

        Sentence embeddings; with ``item_vectors`` those of the file, or both side by side. Texts
        that :meth:`extend` took in are encoded apart: a longer text in a batch would move the last
        digits of the others.

        Raises:
            BackboneError: see
                :meth:`~recbole_genrec.data.vectors.text_encoding.TextEncoding.vectors`.
        """
        if self._embeddings is None:
            self._embeddings = self._content_vectors(slice(self._n_first), keep=True)
        n_known = len(self._embeddings)
        if n_known < self.n_items:
            added = self._content_vectors(slice(n_known, None), keep=False)
            self._embeddings = np.concatenate([self._embeddings, added])
        return self._embeddings

    def _content_vectors(self, rows: slice, keep: bool) -> np.ndarray:
        texts = self.text[rows]
        if self.item_vectors is None:
            return self._encoded(texts, keep)
        vectors = self._file_vectors()[rows]
        if not self.item_vectors.beside_text:
            return vectors
        return np.concatenate([self._encoded(texts, keep), vectors], axis=1)

    def _file_vectors(self) -> np.ndarray:
        """Vectors of ``item_vectors``, and those that came with added items."""
        if self.added_vectors is None:
            return self._of_file(len(self.text))
        of_file = self._of_file(len(self.text) - len(self.added_vectors))
        return np.concatenate([of_file, self.added_vectors])

    def _of_file(self, n_items: int) -> np.ndarray:
        """Vectors of the first items, which the file or a checkpoint has; read once."""
        assert self.item_vectors is not None
        if self.file_vectors is None or len(self.file_vectors) != n_items:
            self.file_vectors = self.item_vectors.aligned(self.tokens[:n_items])
        return self.file_vectors

    def _encoded(self, texts: Sequence[str], keep: bool) -> np.ndarray:
        cache_dir = self.cache_dir if keep else None
        return self.encoding.vectors(texts, cache_dir)

    def embed(self, texts: Sequence[str], vectors: np.ndarray | None = None) -> np.ndarray:
        """Content vectors of other items, made as :meth:`embeddings`, float32 ``[n, D]``.

        Args:
            texts: one text an item.
            vectors: with ``item_vectors``, their vectors; see :meth:`new_vectors`.

        Raises:
            ConfigError: there are ``item_vectors``, and no vectors of these items.
        """
        if self.item_vectors is None:
            return self._encoded(texts, keep=False)
        if vectors is None:
            raise ConfigError(
                f"The items of this model have vectors of {self.item_vectors.file} "
                "(item_vectors), and these items have texts alone. Give their vectors too."
            )
        if not self.item_vectors.beside_text:
            return vectors
        return np.concatenate([self._encoded(texts, keep=False), vectors], axis=1)

    def new_vectors(self, tokens: Sequence[str], vectors: Any = None) -> np.ndarray | None:
        """Vectors of items that will be added, float32 ``[n, D]``; ``None`` without the key.

        Args:
            tokens: raw ids of the new items.
            vectors: ``[n, D]``; default: the file has them by now.

        Raises:
            ConfigError: see
                :meth:`~recbole_genrec.data.vectors.item_vectors.ItemVectors.of_new_items`.
        """
        if self.item_vectors is None:
            return None
        return self.item_vectors.of_new_items(tokens, vectors)

    def add_vectors(self, vectors: Any) -> None:
        """Take over vectors ``[n, D]`` of items whose texts :meth:`extend` takes; or ``None``."""
        if vectors is None:
            return
        rows = np.asarray(vectors, dtype=np.float32)
        if self.added_vectors is not None:
            rows = np.concatenate([self.added_vectors, rows])
        self.added_vectors = rows
