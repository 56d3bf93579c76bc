"""The language model of SETRec, encoder-decoder or decoder-only, and the words of its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from recbole_genrec.backbone import (
    CausalBackbone,
    EncoderDecoderBackbone,
    apply_tuning,
    build_backbone,
    load_encoder_decoder,
    load_text_tokenizer,
    token_ids,
)
from recbole_genrec.backbone.encoder_decoder.load import FAMILIES
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.scratch import with_text_rows
from recbole_genrec.backbone.sources import stored_config
from recbole_genrec.backbone.text_vocabulary import split_words
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.setrec.keys import SETRecSettings

INSTRUCTION = "What will a customer probably buy next after:"
SEPARATOR = "? ;"


def is_encoder_decoder(settings: SETRecSettings) -> bool:
    """Whether the backbone is of the T5 family.

    Args:
        settings: of the run.

    Raises:
        BackboneError: there is no such backbone.
        ConfigError: it is, but other keys are for decoder-only models, or the other way round.
    """
    model_type = _model_type(settings)
    encodes = model_type in FAMILIES
    if encodes and settings.tuning == "lora":
        raise ConfigError(
            f"tuning: lora is for decoder-only models, and this backbone is a {model_type}. "
            "Use tuning: full."
        )
    if encodes and settings.gradient_checkpointing:
        raise ConfigError(
            f"gradient_checkpointing is for decoder-only models, and this backbone is a "
            f"{model_type}. Leave it out."
        )
    if not encodes and settings.setrec_mask == "official_t5":
        raise ConfigError(
            f"setrec_mask: official_t5 is for T5, and this backbone is a {model_type}. "
            "Use setrec_mask: paper."
        )
    return encodes


def _model_type(settings: SETRecSettings) -> str:
    if settings.backbone == "scratch":
        return settings.backbone_config.get("model_type", "t5")
    return stored_config(settings.backbone).model_type


def load_language_model(
    config, encodes: bool
) -> tuple[CausalBackbone | EncoderDecoderBackbone, nn.Embedding, list[Tensor]]:
    """The backbone, the embeddings of the prompt's words, and their rows.

    Other words are never read, so the table holds these alone.

    Args:
        config: a ``GenRecConfig``.
        encodes: whether the backbone is of the T5 family.

    Returns:
        The backbone; the table; rows of the instruction and of the separator.

    Raises:
        BackboneError: as ``build_backbone`` and ``load_encoder_decoder``.
    """
    if encodes:
        lm, ids = _encoder_decoder(SETRecSettings.of(config))
        words, rows = word_table(lm, ids)
        return EncoderDecoderBackbone(lm), words, rows

    backbone, tokenizer = build_backbone(config, [INSTRUCTION, SEPARATOR])
    words, rows = word_table(backbone.lm, _ids(partial(token_ids, tokenizer)))
    apply_tuning(backbone, config)
    if backbone.has_lora:
        words.requires_grad_(False)
    return backbone, words, rows


def _encoder_decoder(settings: SETRecSettings) -> tuple[TransformersModule, list[list[int]]]:
    """A model of the T5 family, and the ids of the prompt's words."""
    if settings.backbone != "scratch":
        lm = load_encoder_decoder(settings.backbone)
        tokenizer = load_text_tokenizer(settings.backbone, lm.get_input_embeddings())
        return lm, _ids(partial(token_ids, tokenizer))
    words = sorted({*split_words(INSTRUCTION), *split_words(SEPARATOR)})
    ids = _ids(lambda text: [words.index(word) for word in split_words(text)])
    shape = with_text_rows(settings.backbone_config, len(words))
    return load_encoder_decoder("scratch", shape), ids


def _ids(tokenise: Callable[[str], list[int]]) -> list[list[int]]:
    return [tokenise(INSTRUCTION), tokenise(SEPARATOR)]


def word_table(
    lm: TransformersModule, texts: Sequence[Sequence[int]]
) -> tuple[nn.Embedding, list[Tensor]]:
    """The input embeddings of the words of some texts as a table of their own.

    Args:
        lm: a language model of transformers.
        texts: word ids of each text.

    Returns:
        The table, and the rows ``[length]`` of each text in it.
    """
    used = sorted(set().union(*texts))
    with torch.no_grad():
        # called, not read: some families scale their embeddings
        rows = lm.get_input_embeddings()(torch.tensor(used, device=lm.device)).float()
    place = {word: row for row, word in enumerate(used)}
    places = []
    for text in texts:
        rows_of_text = [place[word] for word in text]
        places.append(torch.tensor(rows_of_text))
    return nn.Embedding.from_pretrained(rows.clone(), freeze=False), places
