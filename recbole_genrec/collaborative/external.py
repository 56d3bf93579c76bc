"""Collaborative vectors that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.tokenizer_keys import CollaborativeKeys
from recbole_genrec.storage.digests import read_bytes


def external_file(config, key: str) -> Path | None:
    """The file of vectors that ``key`` names, if it does.

    Raises:
        ConfigError: it does, without ``allow_external_cf: true``.
    """
    settings = CollaborativeKeys.of(config)
    name = getattr(settings, key)
    if not name:
        return None
    file = Path(name).expanduser()
    if not settings.allow_external_cf:
        raise ConfigError(
            f"{key}: {file} holds vectors made elsewhere, perhaps from validation and test "
            f"interactions. Leave {key} out to "
            "train them on the training split, or set allow_external_cf: true to use them "
            "unchecked."
        )
    return file


def read_vectors(file: Path) -> tuple[list[str], np.ndarray]:
    """``(raw ids, float32 [n, d])`` from lines ``id<TAB>v1 v2 ... vd`` (no header).

    Raises:
        DataError: names the first bad line.
    """
    vectors: dict[str, np.ndarray] = {}
    size = 0
    for number, line in enumerate(
        read_bytes(file).decode("utf-8", "replace").splitlines(), start=1
    ):
        token, _, values = line.partition("\t")
        try:
            vector = np.array(values.split(), dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        size = size or len(vector)
        if (
            not token
            or token in vectors
            or not len(vector)
            or len(vector) != size
            or not np.isfinite(vector).all()
        ):
            raise DataError(
                f"{file}, line {number}, id {token!r}: expected a new id, a tab and "
                f"{size or 'some'} finite numbers, separated by spaces."
            )
        vectors[token] = vector
    if not vectors:
        raise DataError(f"{file} holds no vectors; expected lines of id, tab, numbers.")
    return list(vectors), np.stack(list(vectors.values()))
