"""Causal language models from a configuration, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.causal.plain_tables import check_plain_tables
from recbole_genrec.backbone.causal.quantise import loading_options
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.scratch import from_settings, with_text_rows
from recbole_genrec.backbone.sources import from_source, load_text_tokenizer
from recbole_genrec.backbone.text_vocabulary import text_vocabulary
from recbole_genrec.errors import BackboneError

ADVICE = (
    "Use a causal model type of transformers (opt, llama, qwen2, qwen3) and its own setting names."
)
ATTENTION = {"attn_implementation": "sdpa"}


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
            ``scratch``. The vocabulary alone decides ``vocab_size``.
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
            causal language model, a tokenizer that does not fit it, tables that are scaled
            (``plain_tables.py``), or quantisation that this machine cannot do.
    """
    from transformers import AutoModelForCausalLM

    if backbone != "scratch":
        loading = loading_options(quantisation, device)
        lm = from_source(AutoModelForCausalLM, backbone, dtype, loading, **ATTENTION)
        check_plain_tables(lm)
        return lm, load_text_tokenizer(backbone, lm.get_input_embeddings())
    if quantisation is not None:
        raise BackboneError(
            f"quantisation: {quantisation} is for pretrained weights; backbone: scratch has none. "
            "Use quantisation: ~."
        )
    tokenizer = text_vocabulary(texts, text_vocab_size, vocabulary)
    defaults = {
        "model_type": "opt",
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    # Larger tables are harmless, and checkpoints have them.
    n_rows = max(len(tokenizer), (settings or {}).get("vocab_size") or 0)
    settings = with_text_rows(settings, n_rows)
    lm = from_settings(AutoModelForCausalLM, settings, defaults, ADVICE, **ATTENTION)
    check_plain_tables(lm)
    return lm, tokenizer
