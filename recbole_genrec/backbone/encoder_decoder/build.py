"""An encoder-decoder that reads text, with its text tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from recbole_genrec.backbone.encoder_decoder.load import load_encoder_decoder
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.scratch import with_text_rows
from recbole_genrec.backbone.sources import load_text_tokenizer
from recbole_genrec.backbone.text_vocabulary import text_vocabulary

SHAPE = (
    "model_type",
    "d_model",
    "d_kv",
    "d_ff",
    "num_heads",
    "dropout_rate",
    "feed_forward_proj",
    "layer_norm_epsilon",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
)


def load_text_encoder_decoder(
    backbone: str,
    settings: dict | None,
    texts: Sequence[str],
    vocabulary_size: int,
    vocabulary: str | None = None,
) -> tuple[TransformersModule, PreTrainedTokenizerBase]:
    """A language model of the T5 family and its text tokenizer.

    Args:
        backbone: ``scratch``, a folder, or a hub id.
        settings: of ``scratch``, as for ``load_encoder_decoder``.
        texts: what the text vocabulary of ``scratch`` is trained on.
        vocabulary_size: largest number of its tokens.
        vocabulary: stored vocabulary (JSON) to use instead of training one.

    Raises:
        BackboneError: as ``load_encoder_decoder`` and ``load_text_tokenizer``.
    """
    if backbone != "scratch":
        lm = load_encoder_decoder(backbone)
        return lm, load_text_tokenizer(backbone, lm.get_input_embeddings())
    tokenizer = text_vocabulary(texts, vocabulary_size, vocabulary)
    return load_encoder_decoder("scratch", with_text_rows(settings, len(tokenizer))), tokenizer


def narrow_settings(config: PreTrainedConfig, layers: int) -> dict:
    """Settings of a ``scratch`` model of the same width with another number of layers.

    Args:
        config: of the model whose width is wanted.
        layers: of the encoder; the decoder has one.
    """
    settings = {name: getattr(config, name) for name in SHAPE}
    return {**settings, "num_layers": layers, "num_decoder_layers": 1}
