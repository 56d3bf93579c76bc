"""Content vectors of items that the user has made: ``item_vectors: F``, beside or instead of text.

They are made from what the items are (images, sound, an encoder of one's own), not from who chose
them, so nothing about held-out interactions can be in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_genrec.data.files.id_forms import without_point
from recbole_genrec.data.vectors.vector_files import (
    files_of_vectors,
    has_other_columns,
    read_vectors,
)
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.tokenizer_keys import ItemVectorKeys
from recbole_genrec.storage.artefacts import META, check_tensors, load_artefact, save_artefact
from recbole_genrec.storage.atomic import made_once
from recbole_genrec.storage.digests import digest, file_digest

MOST_MISSING = 0.5
"""Share of the items that may lack a vector; beyond it the ids hardly belong to the data."""
logger = getLogger(__name__)


def vectors_replace_text(config: Any) -> bool:
    """Whether the vectors of a file stand in the place of sentence embeddings."""
    settings = ItemVectorKeys.of(config)
    return settings.item_vectors is not None and settings.item_vectors_use == "instead"


def item_vectors_identity(file: str) -> str:
    """Digest of what the file holds, for the keys of what is made from it."""
    path = Path(file).expanduser()
    parts = [file_digest(part) for part in files_of_vectors(path)]
    if has_other_columns(path):
        parts.append("columns by type")  # not what earlier versions read
    return digest(parts)


@dataclass(frozen=True)
class ItemVectors:
    """The vectors of a file, by raw item id.

    Nothing is read before it is asked for. What was read is kept under the digest of the file.

    Attributes:
        file: see :func:`~recbole_genrec.data.vectors.vector_files.read_vectors`.
        beside_text: whether sentence embeddings stand before the vectors, in one row.
        id_column: name of the column of item ids.
        cache_dir: where the read vectors are kept; ``None`` = nowhere.
        known_width: the numbers of a vector, where a checkpoint says so.
    """

    file: Path
    beside_text: bool = False
    id_column: str | None = None
    cache_dir: Path | None = None
    known_width: int | None = None

    @classmethod
    def of(
        cls,
        config: Any,
        id_column: str,
        cache_dir: str | Path | None,
        known_width: int | None = None,
    ) -> ItemVectors | None:
        """Those that the key ``item_vectors`` names, if it does."""
        settings = ItemVectorKeys.of(config)
        if settings.item_vectors is None:
            return None
        beside = settings.item_vectors_use == "beside"
        cache = None if cache_dir is None else Path(cache_dir)
        file = Path(settings.item_vectors).expanduser()
        return cls(file, beside, id_column, cache, known_width)

    @cached_property
    def _read(self) -> tuple[dict[str, int], np.ndarray]:
        """The row by raw id, and the vectors float32 ``[n, D]``.

        Raises:
            ConfigError: a checkpoint says that vectors have another width.
        """
        tokens, vectors = self._stored()
        if vectors.shape[1] != (self.known_width or vectors.shape[1]):
            raise ConfigError(
                f"item_vectors: {self.file} has vectors of {vectors.shape[1]} numbers, those of "
                f"the checkpoint have {self.known_width}. Give the vectors of the encoder that "
                "the checkpoint was trained with."
            )
        row_of = {token: row for row, token in enumerate(tokens)}
        for row, token in enumerate(tokens):
            row_of.setdefault(without_point(token), row)
        return row_of, vectors

    def _stored(self) -> tuple[list[str], np.ndarray]:
        if self.cache_dir is None:
            return read_vectors(self.file, self.id_column)
        identity = digest(item_vectors_identity(str(self.file)), self.id_column)
        entry = self.cache_dir / "item-vectors" / identity
        with made_once(entry / META, logger.info) as missing:
            if missing:
                tokens, vectors = read_vectors(self.file, self.id_column)
                save_artefact(entry, {"vectors": torch.from_numpy(vectors)}, {"tokens": tokens})
        tensors, meta = load_artefact(entry)
        check_tensors(entry, tensors, {"vectors": (len(meta["tokens"]), None)})
        return meta["tokens"], tensors["vectors"].numpy()

    @property
    def width(self) -> int:
        """D, the numbers of a vector."""
        if self.known_width is not None:
            return self.known_width
        return self._read[1].shape[1]

    def aligned(self, tokens: Sequence[str]) -> np.ndarray:
        """Vectors of items, float32 ``[n_items, D]``, row 0 (padding) zero.

        An item without a vector takes the mean of those that have one, which a warning says.

        Args:
            tokens: raw item ids, padding first.

        Raises:
            ConfigError: a checkpoint says that vectors have another width.
            DataError: more than half of the items have no vector.
        """
        row_of, vectors = self._read
        rows = np.array([row_of.get(token, -1) for token in tokens])
        known = rows >= 0
        known[0] = False
        missing = [token for token, there in zip(tokens[1:], known[1:], strict=True) if not there]
        self._say_missing(missing, len(tokens) - 1)

        result = np.zeros((len(tokens), vectors.shape[1]), dtype=np.float32)
        result[known] = vectors[rows[known]]
        others = ~known
        others[0] = False
        if others.any():
            result[others] = result[known].mean(0, dtype=np.float64)
        return result

    def _say_missing(self, missing: list[str], n_items: int) -> None:
        if not missing:
            return
        names = ", ".join(missing[:5])
        start = (
            f"item_vectors: {self.file} has no vector for {len(missing)} of {n_items} items "
            f"({names}{', ...' if len(missing) > 5 else ''})"
        )
        if len(missing) > MOST_MISSING * n_items:
            there = ", ".join(list(self._read[0])[:3])
            raise DataError(
                f"{start}; it has vectors for {there}, ... Give the ids of the data, or the "
                "vectors that are missing."
            )
        logger.warning("%s. They take the mean of the other vectors, all of them the same.", start)

    def of_new_items(self, tokens: Sequence[str], vectors: Any = None) -> np.ndarray:
        """Vectors of items that are added, float32 ``[n, D]``: those given, or those of the file.

        Args:
            tokens: raw ids of the new items.
            vectors: ``[n, D]``; default: the file has them by now.

        Raises:
            ConfigError: they are neither given nor in the file, or have another shape.
        """
        if vectors is None:
            return self._of_file(tokens)
        rows = np.asarray(vectors, dtype=np.float32)
        shape = (len(tokens), self.width)
        if rows.shape != shape or not np.isfinite(rows).all():
            raise ConfigError(
                f"{len(tokens)} new items with vectors of shape {list(rows.shape)}: item_vectors "
                f"{self.file} has finite numbers of shape {list(shape)}."
            )
        return rows

    def missing(self, tokens: Sequence[str]) -> list[str]:
        """Those of some items that have no vector in the file, all of them where it is gone.

        Args:
            tokens: raw item ids.

        Raises:
            ConfigError: a checkpoint says that vectors have another width.
        """
        if not self.file.is_file():
            return list(tokens)
        row_of = self._read[0]
        return [token for token in tokens if token not in row_of]

    def _of_file(self, tokens: Sequence[str]) -> np.ndarray:
        missing = self.missing(tokens)
        if missing:
            raise ConfigError(
                f"item_vectors: {len(missing)} of {len(tokens)} new items have no vector in "
                f"{self.file} ({', '.join(missing[:5])}). Give add_items the vectors of the new "
                "items, or add them to that file."
            )
        row_of, vectors = self._read
        return vectors[[row_of[token] for token in tokens]]
