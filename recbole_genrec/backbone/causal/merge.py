"""One language model for other software: the adapter merged, the codes as words."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.code_vocabulary import CodeVocabulary
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.errors import BackboneError


@torch.no_grad()
def merged_lm(
    backbone: CausalBackbone, vocabulary: CodeVocabulary, text_tokenizer: PreTrainedTokenizerBase
) -> tuple[TransformersModule, PreTrainedTokenizerBase]:
    """A causal language model of transformers and its tokenizer.

    Token ``V + k`` is the code with flat index ``k``, where V is the number of text rows.
    Tokenizers with fewer words get ``<unused_i>`` in between. Needs memory for a second model.

    Args:
        backbone: the language model, with or without an adapter.
        vocabulary: of the codes.
        text_tokenizer: of the language model.

    Raises:
        BackboneError: quantised weights, or a tokenizer that already has a word of a code.
    """
    if getattr(backbone.lm, "is_quantized", False):
        raise BackboneError(
            "Quantised weights cannot be merged. Export without merging, "
            "and add adapter/ to the full weights with peft."
        )
    lm = copy.deepcopy(backbone.lm)
    if backbone.has_lora:
        lm = lm.merge_and_unload()
    n_text = backbone.text_table.num_embeddings
    tokenizer = _with_words(text_tokenizer, n_text, vocabulary.words)

    if backbone.tied and not vocabulary.tied:
        head = lm.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.clone())
        lm.config.tie_word_embeddings = False
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    lm.get_input_embeddings().weight[n_text:] = vocabulary.inputs
    head = lm.get_output_embeddings()
    head.weight[n_text:] = vocabulary.classifier
    if head.bias is not None:
        head.bias[n_text:] = 0
    return lm, tokenizer


def _with_words(
    text_tokenizer: PreTrainedTokenizerBase, n_text: int, words: list[str]
) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer in which ``words`` are the tokens from ``n_text`` on."""
    tokenizer = copy.deepcopy(text_tokenizer)
    unused = [f"<unused_{number}>" for number in range(len(tokenizer), n_text)]
    added = tokenizer.add_tokens(unused + words)
    if added < len(unused) + len(words) or len(tokenizer) != n_text + len(words):
        raise BackboneError(
            f"The tokenizer already has words like {words[0]}, so the codes cannot be added to it. "
            "Use a backbone whose tokenizer has none of them."
        )
    return tokenizer
