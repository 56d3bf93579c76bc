"""Where the weights of a language model come from: a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.tokenizer_checks import check_text_tokenizer
from recbole_genrec.errors import BackboneError
from recbole_genrec.runtime.loading_bars import no_loading_bar
from recbole_genrec.storage.backbone_files import has_no_weights
from recbole_genrec.storage.digests import folder_fingerprint


def locate(backbone: str) -> str:
    """The folder or hub id that the key ``backbone`` names.

    Raises:
        BackboneError: the name looks like a folder, and there is none.
    """
    folder = Path(backbone).expanduser()
    looks_local = (
        Path(backbone).is_absolute() or backbone.startswith((".", "~")) or backbone.count("/") > 1
    )
    if folder.is_dir():
        return str(folder)
    if looks_local:
        raise BackboneError(
            f"The backbone folder {backbone} does not exist. "
            "Give an existing folder (--backbone=FOLDER), a hub id, or backbone: scratch."
        )
    return backbone


def stored_config(backbone: str) -> PreTrainedConfig:
    """The settings of a stored language model.

    Args:
        backbone: folder or hub id.

    Raises:
        BackboneError: there are none.
    """
    from transformers import AutoConfig

    source = locate(backbone)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a damaged file can raise errors of every kind
        raise unloadable(backbone, error) from error


def from_source(
    auto_class: Any,
    backbone: str,
    dtype: torch.dtype = torch.float32,
    loading: Mapping[str, Any] | None = None,
    **build: Any,
) -> TransformersModule:
    """A stored language model, from safetensors alone and without any code of its own.

    Args:
        auto_class: of transformers, for example ``AutoModelForCausalLM``.
        backbone: folder or hub id.
        dtype: number format of the weights.
        loading: further options of ``from_pretrained``.
        **build: options of ``from_pretrained`` and of ``from_config``, which takes its place where
            a checkpoint holds the weights.

    Raises:
        BackboneError: there is no such model, or its files are damaged.
    """
    from transformers import AutoConfig

    source = locate(backbone)
    try:
        if has_no_weights(source):
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            # built in this format, not cast: tables such as rotary frequencies stay float32
            return auto_class.from_config(config, dtype=dtype, **build)
        with no_loading_bar():
            return auto_class.from_pretrained(
                source,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                **build,
                **(loading or {}),
            )
    except Exception as error:  # a damaged file can raise errors of every kind
        raise unloadable(backbone, error) from error


def load_text_tokenizer(backbone: str, table: nn.Embedding) -> PreTrainedTokenizerBase:
    """The text tokenizer of a folder or hub id.

    Args:
        backbone: folder or hub id.
        table: input embeddings of the language model, a row for each word.

    Raises:
        BackboneError: there is none, or it does not fit the language model.
    """
    from transformers import AutoTokenizer

    source = locate(backbone)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a damaged file can raise errors of every kind
        raise unloadable(backbone, error, "the files of its text tokenizer") from error
    check_text_tokenizer(backbone, tokenizer, len(table.weight))
    return tokenizer


def unloadable(
    backbone: str,
    reason: Exception | str,
    needed: str = "config.json and safetensors weights",
) -> BackboneError:
    """The error for files that transformers cannot load.

    Args:
        backbone: folder or hub id.
        reason: what transformers raised, or a sentence.
        needed: the files that a folder must hold.
    """
    lines = str(reason).strip().splitlines()
    first_line = lines[0] if lines else type(reason).__name__
    return BackboneError(
        f"The backbone {backbone!r} cannot be loaded: {first_line} It must be a folder with "
        f"{needed} (convert pickled .bin weights with save_pretrained), or a hub id that this "
        "machine can reach or has in its cache. Without either, backbone: scratch trains from "
        "random weights."
    )


def backbone_identity(backbone: str, ends_only: bool = False) -> str:
    """What names the weights: the content of a folder, else the key itself.

    Args:
        backbone: folder, hub id or ``scratch``.
        ends_only: as of :func:`folder_fingerprint`; earlier versions named weights so.
    """
    folder = Path(backbone).expanduser()
    if backbone != "scratch" and folder.is_dir():
        return folder_fingerprint(folder, ends_only=ends_only)
    return backbone


def is_identity_of(identity: str, backbone: str) -> bool:
    """Whether :func:`backbone_identity`, of this version or an earlier one, names these weights.

    Args:
        identity: what it gave once.
        backbone: folder, hub id or ``scratch``.
    """
    return identity in (backbone_identity(backbone), backbone_identity(backbone, ends_only=True))
