"""Encoder-decoder language models from a configuration, a folder, or a hub id."""

from __future__ import annotations

from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.scratch import from_settings, unbuildable
from recbole_genrec.backbone.sources import from_source, stored_config, unloadable

FAMILIES = ("t5", "mt5")
NO_TEXT = {"model_type": "t5", "vocab_size": 1, "eos_token_id": None}
"""Settings of a model without a text vocabulary, where others are not given."""
ADVICE = (
    f"Use model_type {' or '.join(FAMILIES)} and the setting names of transformers "
    "(d_model, d_kv, d_ff, num_heads, ...)."
)


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
    from transformers import AutoModelForSeq2SeqLM

    if backbone != "scratch":
        model_type = stored_config(backbone).model_type
        if model_type not in FAMILIES:
            reason = f"its model_type is {model_type}, not {' or '.join(FAMILIES)}."
            raise unloadable(backbone, reason)
        return from_source(AutoModelForSeq2SeqLM, backbone)
    settings = settings or {}
    model_type = settings.get("model_type", "t5")
    if model_type not in FAMILIES:
        raise unbuildable(model_type, f"{model_type} is not of the T5 family", ADVICE)
    return from_settings(AutoModelForSeq2SeqLM, settings, NO_TEXT, ADVICE)
