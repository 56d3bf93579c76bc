"""Causal language models from a configuration, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from recbole_genrec.backbone.causal.lora import base_facts
from recbole_genrec.backbone.causal.quantise import loading_options
from recbole_genrec.backbone.text_vocabulary import train_text_vocabulary, wrap_text_vocabulary
from recbole_genrec.errors import BackboneError
from recbole_genrec.storage.digests import folder_fingerprint


def load_causal_lm(
    backbone: str,
    settings: dict | None = None,
    texts: Sequence[str] = (),
    text_vocab_size: int = 8000,
    vocabulary: str | None = None,
    quantisation: str | None = None,
    device: torch.device | str = "cpu",
):
    """A causal language model and its text tokenizer.

    Args:
        backbone: ``scratch`` (random weights from ``settings``, vocabulary trained on ``texts``), a folder, or a hub id.
        settings: ``{model_type: opt | llama | qwen2 | qwen3 | ..., hidden_size: ..., ...}`` for ``scratch``.
        texts: what the vocabulary of ``scratch`` is trained on.
        vocabulary: stored vocabulary (JSON) to use instead of training one.
        quantisation: ``8bit`` or ``4bit`` for the linear layers, which then stay as they are; they are put on ``device``.

    Returns:
        ``(AutoModelForCausalLM, tokenizer)``.

    Raises:
        BackboneError: unknown model type or setting, missing folder, no network, files that are no causal language model, or
            quantisation that cannot be had.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if backbone == "scratch":
        if quantisation is not None:
            raise BackboneError(
                f"quantisation: {quantisation} is for pretrained weights; backbone: scratch has none. Use quantisation: ~."
            )
        settings = dict(settings or {})
        model_type = settings.pop("model_type", "opt")
        tokenizer = (
            wrap_text_vocabulary(vocabulary)
            if vocabulary
            else train_text_vocabulary(texts, text_vocab_size)
        )
        special = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": None,
        }
        try:
            known = AutoConfig.for_model(model_type)
            config = AutoConfig.for_model(
                model_type, vocab_size=len(tokenizer), **{**special, **settings}
            )
            for name in settings:  # transformers stores what it does not know
                if hasattr(config, name) and not hasattr(known, name):
                    raise ValueError(f"{model_type} has no setting {name}")
            return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"), tokenizer
        except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
            raise BackboneError(
                f"backbone: scratch cannot be built from backbone_config {{model_type: {model_type}, ...}}: {error}. "
                "Use a causal model type of transformers (opt, llama, qwen2, qwen3) and its own setting names."
            ) from error
    source = locate(backbone)
    safe = {
        "trust_remote_code": False,
        "attn_implementation": "sdpa",
        "use_safetensors": True,
        **loading_options(quantisation, device),
    }
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **safe)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the libraries raise whatever the damaged file leads to
        raise unloadable(
            backbone, error, "config.json, safetensors weights and a tokenizer"
        ) from error
    return model, tokenizer


def load_text_tokenizer(backbone: str):
    """The text tokenizer of a folder or hub id; :class:`BackboneError` when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(locate(backbone), trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise unloadable(backbone, error, "the files of its text tokenizer") from error


def locate(backbone: str) -> str:
    """The folder or hub id that ``backbone`` names; :class:`BackboneError` for a folder that does not exist."""
    folder = Path(backbone).expanduser()
    looks_local = (
        Path(backbone).is_absolute() or backbone.startswith((".", "~")) or backbone.count("/") > 1
    )
    if looks_local and not folder.is_dir():
        raise BackboneError(
            f"The backbone folder {backbone} does not exist. Give an existing folder, a hub id, or backbone: scratch."
        )
    return str(folder) if folder.is_dir() else backbone


def unloadable(backbone: str, error: Exception, needed: str) -> BackboneError:
    """What to do when transformers cannot load ``backbone``, of which it wants the files ``needed``."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BackboneError(
        f"The backbone {backbone!r} cannot be loaded: {reason} It must be a folder with {needed} (convert pickled .bin weights with "
        "save_pretrained), or a hub id that this machine can reach or has in its cache. Without either, backbone: scratch trains from "
        "random weights."
    )


def backbone_identity(backbone: str) -> str:
    """What names the weights: the content of a folder, else the key itself."""
    folder = Path(backbone).expanduser()
    return folder_fingerprint(folder) if backbone != "scratch" and folder.is_dir() else backbone


def build_backbone(config, texts: Sequence[str] = (), vocabulary: str | None = None):
    """``(CausalBackbone, tokenizer)`` as ``backbone``, ``backbone_config``, ``text_vocab_size`` and ``quantisation`` say.

    Raises:
        BackboneError: as :func:`load_causal_lm`; or quantised weights that ``tuning: full`` would have to train.
    """
    from recbole_genrec.backbone.causal.backbone import CausalBackbone

    backbone, quantisation = config["backbone"], config["quantisation"]
    if quantisation is not None and config["tuning"] != "lora":
        raise BackboneError(
            f"quantisation: {quantisation} freezes the weights, which tuning: full trains. Use tuning: lora."
        )
    lm, tokenizer = load_causal_lm(
        backbone,
        config["backbone_config"],
        texts,
        config["text_vocab_size"],
        vocabulary,
        quantisation,
        config["device"],
    )
    return CausalBackbone(lm, None if backbone == "scratch" else base_facts(lm)), tokenizer


def apply_tuning(backbone, config) -> None:
    """``tuning: full`` trains every weight; ``tuning: lora`` freezes them and attaches a fresh adapter. Text rows are among them."""
    if config["tuning"] == "lora":
        backbone.add_lora(
            config["lora_rank"],
            config["lora_alpha"],
            config["lora_dropout"],
            config["lora_targets"],
        )
    if config["gradient_checkpointing"]:
        backbone.checkpoint_gradients()
