"""Language models with random weights, from settings by the names of transformers."""

from __future__ import annotations

from typing import Any

from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.errors import BackboneError


def from_settings(
    auto_class: Any, settings: dict, defaults: dict, advice: str, **build: Any
) -> TransformersModule:
    """A language model with random weights.

    Args:
        auto_class: of transformers, for example ``AutoModelForCausalLM``.
        settings: by the names of transformers, ``model_type`` among them.
        defaults: what holds where ``settings`` say nothing, with a ``model_type``.
        advice: what can be used, for the error.
        **build: options of ``from_config``.

    Raises:
        BackboneError: unknown model type or setting, or a value that cannot be used.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    completed = {**defaults, **settings}
    model_type = completed["model_type"]
    try:
        known = AutoConfig.for_model(model_type)
        config = AutoConfig.for_model(**completed)
        for name in settings:  # transformers stores settings that it does not know
            if hasattr(config, name) and not hasattr(known, name):
                raise ValueError(f"{model_type} has no setting {name}")
        return auto_class.from_config(config, **build)
    except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise unbuildable(model_type, error, advice) from error


def with_text_rows(settings: dict | None, n_rows: int) -> dict:
    """Settings of a model whose text table has so many rows, whatever their ``vocab_size`` is.

    Ids behind the table are those of item codes, so words without a row would be read as codes.

    Args:
        settings: by the names of transformers.
        n_rows: at least the number of words that the model reads.
    """
    return {**(settings or {}), "vocab_size": n_rows}


def unbuildable(model_type: str, reason: Exception | str, advice: str) -> BackboneError:
    """The error for settings that give no language model.

    Args:
        model_type: of transformers.
        reason: what transformers raised, or a sentence.
        advice: what can be used.
    """
    return BackboneError(
        "backbone: scratch cannot be built from "
        f"backbone_config {{model_type: {model_type}, ...}}: {reason}. {advice}"
    )
