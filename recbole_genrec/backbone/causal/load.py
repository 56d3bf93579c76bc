"""Causal language models from a configuration, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.causal.quantise import loading_options
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.sources import locate, unloadable
from recbole_genrec.backbone.text_vocabulary import train_text_vocabulary, wrap_text_vocabulary
from recbole_genrec.backbone.tokenizer_checks import check_text_tokenizer
from recbole_genrec.errors import BackboneError
from recbole_genrec.storage.backbone_files import has_no_weights


def load_causal_lm(
    backbone: str,
    settings: dict | None = None,
    texts: Sequence[str] = (),
    text_vocab_size: int = 8000,
    vocabulary: str | None = None,
    quantisation: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[TransformersModule, PreTrainedTokenizerBase]:
    """A causal language model and its text tokenizer.

    Args:
        backbone: ``scratch`` (random weights from ``settings``, vocabulary trained on ``texts``), a
            folder, or a hub id.
        settings: ``{model_type: opt | llama | qwen2 | qwen3 | ..., hidden_size: ..., ...}`` for
            ``scratch``.
        texts: what the vocabulary of ``scratch`` is trained on.
        text_vocab_size: largest number of tokens of that vocabulary.
        vocabulary: stored vocabulary (JSON) to use instead of training one.
        quantisation: ``8bit`` or ``4bit`` for the linear layers, which then stay as they are.
        device: where quantised weights are put.
        dtype: number format of pretrained weights.

    Returns:
        ``(AutoModelForCausalLM, tokenizer)``.

    Raises:
        BackboneError: unknown model type or setting, missing folder, no network, files that are no
            causal language model, a tokenizer that does not fit it, or quantisation that this
            machine cannot do.
    """
    if backbone != "scratch":
        return _stored_weights(backbone, quantisation, device, dtype)
    if quantisation is not None:
        raise BackboneError(
            f"quantisation: {quantisation} is for pretrained weights; backbone: scratch has none. "
            "Use quantisation: ~."
        )
    if vocabulary:
        tokenizer = wrap_text_vocabulary(vocabulary)
    else:
        tokenizer = train_text_vocabulary(texts, text_vocab_size)
    return _random_weights(dict(settings or {}), tokenizer), tokenizer


def _random_weights(settings: dict, tokenizer: PreTrainedTokenizerBase) -> TransformersModule:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type = settings.pop("model_type", "opt")
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    try:
        defaults = AutoConfig.for_model(model_type)
        options = {"vocab_size": len(tokenizer), **special, **settings}
        config = AutoConfig.for_model(model_type, **options)
        for name in settings:  # transformers stores settings that it does not know
            if hasattr(config, name) and not hasattr(defaults, name):
                raise ValueError(f"{model_type} has no setting {name}")
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise BackboneError(
            "backbone: scratch cannot be built from "
            f"backbone_config {{model_type: {model_type}, ...}}: {error}. "
            "Use a causal model type of transformers (opt, llama, qwen2, qwen3) "
            "and its own setting names."
        ) from error


def _stored_weights(
    backbone: str, quantisation: str | None, device: torch.device | str, dtype: torch.dtype
) -> tuple[TransformersModule, PreTrainedTokenizerBase]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = locate(backbone)
    options = {
        "trust_remote_code": False,
        "attn_implementation": "sdpa",
        "use_safetensors": True,
        **loading_options(quantisation, device),
    }
    try:
        if has_no_weights(source):
            shape = AutoConfig.from_pretrained(source, trust_remote_code=False)
            shape.dtype = dtype
            lm = AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa").to(dtype)
        else:
            lm = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a damaged file can raise errors of every kind
        needed = "config.json, safetensors weights and a tokenizer"
        raise unloadable(backbone, error, needed) from error
    check_text_tokenizer(backbone, tokenizer, len(lm.get_input_embeddings().weight))
    return lm, tokenizer
