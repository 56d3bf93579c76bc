"""The layers of T5 on the weights of transformers, attention with any positions and any mask.

T5 knows positions only as a bias of self-attention that depends on the distance between two tokens
(arXiv 1910.10683, section 2.1); cross-attention has none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.dropout import dropout
from recbole_genrec.backbone.encoder_decoder.path_cache import PathCache
from recbole_genrec.backbone.live_queries import ALL, LiveQueries
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.visibility import added_to


def position_bias(stack: TransformersModule, queries: Tensor, keys: Tensor, sees: Tensor) -> Tensor:
    """Bias of self-attention with its mask; block 0 holds the table of its stack.

    Args:
        stack: encoder or decoder of transformers.
        queries: positions ``[Q or 1]``, or ``[B, Q]``.
        keys: positions ``[N]``, or ``[B, N]``.
        sees: bool, or float added to the scores, ``[B, 1, Q or 1, N]`` or ``[Q, N]``.

    Returns:
        ``[B or 1, heads, Q or 1, N]``, -inf where a query does not see a key.
    """
    attention = stack.block[0].layer[0].SelfAttention
    buckets = attention._relative_position_bucket(
        keys.unsqueeze(-2) - queries.unsqueeze(-1),
        bidirectional=not stack.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )  # [Q, N] or [B, Q, N]
    bias = attention.relative_attention_bias(buckets).movedim(-1, -3)  # [.., heads, Q, N]
    if bias.dim() == 3:
        bias = bias.unsqueeze(0)
    return added_to(bias, sees)


def self_attention(layer: TransformersModule, hidden: Tensor, bias: Tensor) -> Tensor:
    """A self-attention layer with its norm, dropout and residual.

    Args:
        layer: first layer of a block of transformers.
        hidden: ``[B, Q, d_model]``.
        bias: from :func:`position_bias`.

    Returns:
        As ``hidden``.
    """
    weights = layer.SelfAttention
    normed = layer.layer_norm(hidden)
    keys = split_heads(weights.k(normed), weights)  # [B, heads, Q, d_kv]
    values = split_heads(weights.v(normed), weights)
    return hidden + layer.dropout(attention(weights, normed, keys, values, bias))


def path_attention(
    layer: TransformersModule,
    hidden: Tensor,
    bias: Tensor,
    cache: PathCache,
    index: int,
    paths: Tensor,
) -> Tensor:
    """Self-attention of single queries, each over its own path.

    Args:
        layer: first layer of a block of transformers.
        hidden: ``[..., d_model]``, N queries.
        bias: of the last step with each step of a path, ``[1, heads, 1, T]``.
        cache: rows of earlier queries, which those of ``hidden`` join.
        index: number of the layer in ``cache``.
        paths: int64 ``[N, T]``, the row of each step in ``cache``, the query's own last.

    Returns:
        As ``hidden``.
    """
    weights = layer.SelfAttention
    normed = layer.layer_norm(hidden).flatten(0, -2)  # [N, d_model]
    cache.append(index, weights.k(normed), weights.v(normed))
    keys, values = cache.read(index, paths)  # [N, T, heads * d_kv]
    keys = split_heads(keys, weights)  # [N, heads, T, d_kv]
    values = split_heads(values, weights)
    read = attention(weights, normed.unsqueeze(1), keys, values, bias)  # [N, 1, d_model]
    return hidden + layer.dropout(read).view_as(hidden)


def cross_attention(
    layer: TransformersModule,
    hidden: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    live: LiveQueries,
) -> Tensor:
    """A cross-attention layer with its norm, dropout and residual.

    Args:
        layer: second layer of a decoder block of transformers.
        hidden: ``[B, Q, d_model]``, or ``[N, d_model]`` of the ``live`` queries.
        keys: of the encoded source, ``[B, heads, S, d_kv]``.
        values: ``[B, heads, S, d_kv]``.
        mask: bool ``[B, 1, 1, S]``.
        live: which of the padded queries ``hidden`` holds.

    Returns:
        As ``hidden``.
    """
    normed = layer.layer_norm(hidden)
    read = attention(layer.EncDecAttention, normed, keys, values, mask, live)
    return hidden + layer.dropout(read)


def feed_forward(layer: TransformersModule, hidden: Tensor) -> Tensor:
    """A feed-forward layer with its norm, dropout and residual.

    The layer of transformers turns what enters the last product into the format of its weights,
    which autocast turns back.

    Args:
        layer: last layer of a block of transformers.
        hidden: ``[..., d_model]``.

    Returns:
        As ``hidden``.
    """
    dense = layer.DenseReluDense
    normed = layer.layer_norm(hidden)
    if hasattr(dense, "wi"):
        inner = dense.act(dense.wi(normed))
    else:  # gated, in T5 1.1
        inner = dense.act(dense.wi_0(normed)) * dense.wi_1(normed)
    return hidden + layer.dropout(dense.wo(dense.dropout(inner)))


def attention(
    weights: TransformersModule,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    live: LiveQueries = ALL,
) -> Tensor:
    """Attention without the factor 1/sqrt(d_kv), which T5 folds into its weights.

    Args:
        weights: ``T5Attention`` of transformers.
        queries: states ``[B, Q, d_model]``, or ``[N, d_model]`` of the ``live`` queries.
        keys: ``[B, heads, N, d_kv]``.
        values: ``[B, heads, N, d_kv]``.
        mask: bool, or float added to the scores, that fits ``[B, heads, Q, N]``.
        live: which of the padded queries ``queries`` holds.

    Returns:
        As ``queries``.
    """
    queries = split_heads(live.put(weights.q(queries)), weights)  # [B, heads, Q, d_kv]
    if weights.training and weights.dropout > 0:
        scores = queries @ keys.transpose(-1, -2)  # [B, heads, Q, N]
        if mask.is_floating_point():
            scores = scores + mask
        else:
            scores = scores.masked_fill(~mask, -torch.inf)
        read = dropout(scores.softmax(-1), weights.dropout) @ values
    else:
        read = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=1.0
        )
    joined = read.transpose(1, 2).flatten(2)  # [B, Q, heads * d_kv]
    return weights.o(live.take(joined))


def split_heads(projected: Tensor, weights: TransformersModule) -> Tensor:
    """``[B, N, heads * d_kv]`` -> ``[B, heads, N, d_kv]``."""
    return projected.unflatten(-1, (weights.n_heads, -1)).transpose(1, 2)
