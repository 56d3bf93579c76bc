"""The weights of ``setrec_t5.npz`` in our modules: item tokens, reader and language model.

=====================  ================================  =====================
golden                 ours                              shape
=====================  ================================  =====================
``w:ae_enc.i.*``       ``auto_encoder.encoder.{2i}.*``   ``[out, in]``
``w:ae_dec.i.*``       ``auto_encoder.decoder.{2i}.*``   ``[out, in]``
``w:cf_proj.*``        ``cf_projection.*``               ``[16, 6]``
``w:query_emb``        ``queries``                       ``[4, 16]``
``w:t5.shared.weight`` ``words.weight``                  ``[V, 16]``
``w:t5.*``             ``backbone.*``                    the same
=====================  ================================  =====================

Layer i has the number 2i because ReLU modules stand between the linear ones. Items of the file are
numbered from 0, ours from 1, and its histories are padded on the left, ours on the right.
"""

from __future__ import annotations

import torch
from golden.loading_t5 import arrays
from torch import Tensor, nn

from recbole_genrec.backbone import EncoderDecoderBackbone, load_encoder_decoder
from recbole_genrec.model.setrec.item_tokens import AutoEncoder, ItemTokens
from recbole_genrec.model.setrec.reader import SetReader

SHAPE = ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers", "vocab_size")


def golden_setrec() -> tuple[ItemTokens, SetReader, dict[str, Tensor]]:
    """``(tokens, reader, arrays)`` with the released program's masks and positions, float64."""
    golden = arrays("setrec_t5")
    n_sem, d_token = golden["n_sem"].item(), golden["d_model"].item()
    layers = [len(golden[f"w:ae_enc.{layer}.bias"]) for layer in (0, 1)]
    d_text, d_cf = golden["item_feature"].shape[1], golden["cf_table"].shape[1]
    tokens = ItemTokens(d_token, d_cf, AutoEncoder(d_text, layers, n_sem, d_token)).double()

    lm = load_encoder_decoder("scratch", {name: golden[name].item() for name in SHAPE})
    words = nn.Embedding.from_pretrained(golden["w:t5.shared.weight"].clone(), freeze=False)
    reader = SetReader(
        EncoderDecoderBackbone(lm),
        words,
        golden["instruction_ids"],
        golden["response_ids"],
        n_sem + 1,
        official_mask=True,
        slots=golden["history"].shape[1],
    ).double()
    for name, value in golden.items():
        if name.startswith("w:"):
            parameter_of(name.removeprefix("w:"), tokens, reader).data.copy_(value)
    return tokens.eval(), reader.eval(), golden


def parameter_of(name: str, tokens: ItemTokens, reader: SetReader) -> nn.Parameter:
    """Our parameter for the golden ``name`` without its prefix."""
    module, _, rest = name.partition(".")
    if module == "query_emb":
        return reader.queries
    if name == "t5.shared.weight":
        return reader.words.weight
    if module == "t5":
        return reader.backbone.get_parameter(rest)
    if module == "cf_proj":
        return tokens.cf_projection.get_parameter(rest)
    layer, _, kind = rest.partition(".")
    network = {"ae_enc": "encoder", "ae_dec": "decoder"}[module]
    return tokens.auto_encoder.get_parameter(f"{network}.{2 * int(layer)}.{kind}")


def from_the_left(history: Tensor) -> tuple[Tensor, Tensor]:
    """Histories padded on the left -> padded on the right, and their lengths."""
    length = (history > 0).sum(1)
    order = (history == 0).long().argsort(dim=1, stable=True)
    return history.gather(1, order), length


def with_padding_row(table: Tensor) -> Tensor:
    """Rows of items 0, 1, ... behind a row of zeros."""
    return torch.cat([torch.zeros_like(table[:1]), table])
