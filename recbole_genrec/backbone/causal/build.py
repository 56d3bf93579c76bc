"""A causal backbone as the keys of a run describe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.causal.load import load_causal_lm
from recbole_genrec.backbone.causal.lora import base_facts
from recbole_genrec.errors import BackboneError
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.tokenizer_keys import TokenizerSettings


def build_backbone(
    config: Mapping,
    texts: Sequence[str] = (),
    vocabulary: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[CausalBackbone, PreTrainedTokenizerBase]:
    """The language model and its text tokenizer.

    Args:
        config: reads ``backbone``, ``backbone_config``, ``text_vocab_size``, ``quantisation``,
            ``tuning`` and ``device``.
        texts: what the vocabulary of ``backbone: scratch`` is trained on.
        vocabulary: stored vocabulary (JSON) to use instead of training one.
        dtype: number format of pretrained weights.

    Raises:
        BackboneError: as :func:`load_causal_lm`; or quantised weights that ``tuning: full`` would
            have to train.
    """
    settings = CausalBackboneKeys.of(config)
    if settings.quantisation is not None and settings.tuning != "lora":
        raise BackboneError(
            f"quantisation: {settings.quantisation} freezes the weights, which tuning: full "
            "trains. Use tuning: lora."
        )
    lm, tokenizer = load_causal_lm(
        settings.backbone,
        settings.backbone_config,
        texts,
        settings.text_vocab_size,
        vocabulary,
        settings.quantisation,
        TokenizerSettings.of(config).device,
        dtype,
    )
    origin = None
    if settings.backbone != "scratch":
        origin = base_facts(lm)
    return CausalBackbone(lm, origin), tokenizer


def apply_tuning(backbone: CausalBackbone, config: Mapping) -> None:
    """Choose the weights that train.

    ``tuning: full`` trains every weight, text rows among them; ``tuning: lora`` freezes them and
    attaches a fresh adapter.

    Args:
        backbone: is changed.
        config: reads ``tuning``, the ``lora_`` keys and ``gradient_checkpointing``.
    """
    settings = CausalBackboneKeys.of(config)
    if settings.tuning == "lora":
        backbone.add_lora(
            settings.lora_rank,
            settings.lora_alpha,
            settings.lora_dropout,
            settings.lora_targets,
        )
    if settings.gradient_checkpointing:
        backbone.checkpoint_gradients()
