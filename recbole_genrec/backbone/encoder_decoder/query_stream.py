"""Layers of T5 in which one stream of queries reads another sequence.

The weak decoder that restores a text from its codes (LMIndexer, arXiv 2310.07815, reconstructor;
RetroMAE, arXiv 2205.12035, enhanced decoding).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.dropout import cheapen
from recbole_genrec.backbone.encoder_decoder.layers import (
    attention,
    feed_forward,
    position_bias,
    split_heads,
)
from recbole_genrec.backbone.protocol import TransformersModule


class QueryStream(nn.Module):
    """The encoder layers of a T5 with the residual path of a query stream.

    What a token holds can reach its own state only through the queries and the visible part of the
    sequence, because the residual path starts at the queries.

    Args:
        lm: from ``load_encoder_decoder``; its encoder is taken over with the parameter names of
            transformers, its text table is left behind.
    """

    is_decoder = False

    def __init__(self, lm: TransformersModule):
        super().__init__()
        self.block: TransformersModule = lm.encoder.block
        self.final_layer_norm: TransformersModule = lm.encoder.final_layer_norm
        self.dropout: TransformersModule = lm.encoder.dropout
        cheapen(self)

    def forward(self, queries: Tensor, sequence: Tensor, sees: Tensor) -> Tensor:
        """States of all tokens.

        Every layer starts again from the queries; from the second layer on its keys and values
        come from the layer before.

        Args:
            queries: ``[B, S, d_model]``, or ``[B, 1, d_model]`` for the same at every token.
            sequence: ``[B, S, d_model]``.
            sees: bool, or float added to the scores, ``[S, S]`` or ``[B, S, S]``.

        Returns:
            ``[B, S, d_model]``, after the final norm and without a scale.
        """
        positions = torch.arange(sequence.shape[1], device=sequence.device)
        bias = position_bias(self, positions, positions, sees.unsqueeze(-3))
        queries = self.dropout(queries).expand_as(sequence)  # [B, S, d_model]
        hidden = self.dropout(sequence)
        for block in self.block:
            layer = block.layer[0]
            weights = layer.SelfAttention
            normed = layer.layer_norm(hidden)
            keys = split_heads(weights.k(normed), weights)  # [B, heads, S, d_kv]
            values = split_heads(weights.v(normed), weights)
            read = attention(weights, layer.layer_norm(queries), keys, values, bias)
            hidden = queries + layer.dropout(read)
            hidden = feed_forward(block.layer[-1], hidden)
        return self.dropout(self.final_layer_norm(hidden))
