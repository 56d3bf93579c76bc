"""What a language model such as LLaMA needs to encode sentences: padding, and a float32 mean."""

from __future__ import annotations

import json
from logging import getLogger
from pathlib import Path
from typing import Any

import torch

PADDING = "[PAD]"
MODULES = "modules.json"
"""The file in which sentence-transformers stores how states become a vector."""
logger = getLogger(__name__)


def give_padding(model: Any, encoder: str) -> None:
    """Pad on the right, with a word that is there or else an added one; nothing attends to it.

    On the right the positions of a text are those that it has alone, and a causal model sees no
    padding.

    Args:
        model: a ``SentenceTransformer``.
        encoder: value of the key ``text_encoder``, for the log.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    if not hasattr(tokenizer, "pad_token"):
        return
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is not None:
        return

    word = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    kind = "its end token"
    if word != tokenizer.eos_token:
        kind = "the token"
    if word is None:
        word = PADDING
        tokenizer.add_special_tokens({"pad_token": word})
        model[0].auto_model.resize_token_embeddings(len(tokenizer))
    tokenizer.pad_token = word
    logger.info("text_encoder: %s has no padding token; %s %s is used.", encoder, kind, word)


def is_plain_decoder(folder: Path) -> bool:
    """Whether a folder holds a decoder-only language model and does not say how to pool.

    A folder that was saved by sentence-transformers says it.
    """
    config = folder / "config.json"
    if (folder / MODULES).is_file() or not config.is_file():
        return False
    try:
        architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures")
    except ValueError:
        return False  # whoever loads it says what is wrong
    return bool(architectures) and str(architectures[0]).endswith("ForCausalLM")


def pool_by_mean(model: Any) -> None:
    """Take the mean of the states of a text's tokens.

    For a decoder-only model the library would take the last token; the published vectors of LC-Rec
    and LETTER are means.

    Args:
        model: a ``SentenceTransformer`` from a folder that :func:`is_plain_decoder`.
    """
    from sentence_transformers.models import Pooling

    for name, module in list(model.named_children()):
        if isinstance(module, Pooling):
            setattr(model, name, Pooling(module.embedding_dimension, "mean"))


def pool_in_float32(model: Any) -> None:
    """Hand the states of a model in half precision to the pooling in float32.

    A sum over a thousand tokens in bf16 would lose all but its first digits.
    """
    if not isinstance(model, torch.nn.Sequential):
        return
    if any(weight.dtype in (torch.bfloat16, torch.float16) for weight in model.parameters()):
        model[0].register_forward_hook(_in_float32)


def _in_float32(module: torch.nn.Module, inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    states = features["token_embeddings"]
    return {**features, "token_embeddings": states.float()}
