"""Encoder-decoder language models from a configuration, a folder, or a hub id."""

from __future__ import annotations

import torch

from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.sources import locate, unloadable
from recbole_genrec.errors import BackboneError
from recbole_genrec.storage.backbone_files import has_no_weights

FAMILIES = ("t5", "mt5")


def load_encoder_decoder(
    backbone: str = "scratch", settings: dict | None = None
) -> TransformersModule:
    """A language model of the T5 family.

    Args:
        backbone: ``scratch`` (random weights from ``settings``), a folder, or a hub id.
        settings: ``{model_type: t5 | mt5, d_model: ..., num_layers: ..., ...}`` for ``scratch``.
            Without ``vocab_size`` the text table has one row, since item codes have a table of
            their own.

    Returns:
        ``AutoModelForSeq2SeqLM`` in float32.

    Raises:
        BackboneError: unknown model type or setting, missing folder, no network, or files that are
            no model of the T5 family.
    """
    if backbone == "scratch":
        return _random_weights(settings or {})
    return _stored_weights(backbone)


def _random_weights(settings: dict) -> TransformersModule:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    settings = {"model_type": "t5", "vocab_size": 1, "eos_token_id": None, **settings}
    model_type = settings.pop("model_type")
    try:
        if model_type not in FAMILIES:
            raise ValueError(f"{model_type} is not of the T5 family")
        defaults = AutoConfig.for_model(model_type)
        for name in settings:  # transformers stores settings that it does not know
            if not hasattr(defaults, name):
                raise ValueError(f"{model_type} has no setting {name}")
        config = AutoConfig.for_model(model_type, **settings)
        return AutoModelForSeq2SeqLM.from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise BackboneError(
            "backbone: scratch cannot be built from "
            f"backbone_config {{model_type: {model_type}, ...}}: {error}. "
            f"Use model_type {' or '.join(FAMILIES)} and the setting names of transformers "
            "(d_model, d_kv, d_ff, num_heads, ...)."
        ) from error


def _stored_weights(backbone: str) -> TransformersModule:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    source = locate(backbone)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.model_type not in FAMILIES:
            raise ValueError(f"its model_type is {config.model_type}, not {' or '.join(FAMILIES)}.")
        if has_no_weights(source):
            config.dtype = torch.float32
            return AutoModelForSeq2SeqLM.from_config(config)
        return AutoModelForSeq2SeqLM.from_pretrained(
            source, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
    except Exception as error:  # a damaged file can raise errors of every kind
        raise unloadable(backbone, error, "config.json and safetensors weights") from error
