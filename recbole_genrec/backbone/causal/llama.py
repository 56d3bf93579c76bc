"""The layers of Llama on the weights of transformers, for the passes of a search.

A search makes many short passes, for which transformers does much around its layers, and of a
prompt it reads the state of the last token alone. The pass here computes what the models of
transformers do, and in the last layer only the states that are read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from recbole_genrec.backbone.beam_cache import BeamCache
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.visibility import as_numbers

FAMILIES = ("LlamaModel", "Qwen2Model", "Qwen3Model")
"""Models of transformers with these layers; Qwen3 also norms its queries and keys."""


def is_llama(stack: TransformersModule) -> bool:
    """Whether :func:`llama_states` does what a model of transformers does.

    Args:
        stack: the model without its output layer.
    """
    config = stack.config
    slides = getattr(config, "use_sliding_window", False)
    attends = config._attn_implementation == "sdpa" and not slides
    return type(stack).__name__ in FAMILIES and attends and not stack.training


def llama_states(
    stack: TransformersModule,
    hidden: Tensor,
    mask: Tensor | None,
    positions: Tensor,
    cache: BeamCache,
    ends: Tensor | None = None,
) -> Tensor:
    """One pass over a block of tokens.

    Args:
        stack: a model of :func:`is_llama`.
        hidden: embeddings ``[B, S, d]``.
        mask: added to the scores, ``[B or 1, 1, S, N + S]``; None = causal, with N = 0.
        positions: position ids ``[B or 1, S]``.
        cache: N tokens before the block; the block is added.
        ends: ``[B]``, the token of each causal row whose state is read; None = all.

    Returns:
        States ``[B, S, d]``, or ``[B, 1, d]`` with ``ends``.
    """
    last = len(stack.layers) - 1
    cos, sin = _turns(stack, hidden, positions)  # [B or 1, S, d_head]
    for number, layer in enumerate(stack.layers):
        attention = layer.self_attn
        normed = _normed(hidden, layer.input_layernorm)
        keys = _rotated(_heads(attention, normed, "k"), cos, sin)
        values = _heads(attention, normed, "v")
        keys, values = cache.update(keys, values, number)  # [B, heads, N + S, d_head]

        if number == last and ends is not None:
            mask = _up_to(ends, keys.shape[2], hidden)
            hidden = _tokens(hidden, ends)  # [B, 1, d]
            normed = _tokens(normed, ends)  # [B, 1, d]
            cos = _tokens(cos, ends)
            sin = _tokens(sin, ends)
        queries = _rotated(_heads(attention, normed, "q"), cos, sin)
        read, _ = sdpa_attention_forward(
            attention, queries, keys, values, mask, scaling=attention.scaling
        )  # [B, S or 1, heads, d_head]
        hidden = hidden + attention.o_proj(read.flatten(2))
        hidden = hidden + layer.mlp(_normed(hidden, layer.post_attention_layernorm))
    return _normed(hidden, stack.norm)


def _normed(hidden: Tensor, norm: TransformersModule) -> Tensor:
    """The norm of Llama by torch, in fewer passes over the states."""
    return rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _heads(attention: TransformersModule, normed: Tensor, name: str) -> Tensor:
    """Queries ``q``, keys ``k`` or values ``v`` of all heads, ``[B, heads, S, d_head]``."""
    projected = getattr(attention, f"{name}_proj")(normed)
    heads = projected.unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    if norm is not None:
        heads = norm(heads)
    return heads.transpose(1, 2)


def _turns(stack: TransformersModule, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions, ``[B or 1, S, d_head]``; the first half's sines negated."""
    cos, sin = stack.rotary_emb(hidden, position_ids=positions)
    half = sin.shape[-1] // 2
    return cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys turned by their positions (arXiv 2104.09864), as of :func:`_turns`.

    The halves of a head are the two coordinates of its pairs. Each head's tokens come together
    first, so that the products go through memory in long runs.
    """
    heads = heads.contiguous()
    other = heads.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * cos.unsqueeze(1), other, sin.unsqueeze(1))


def _tokens(values: Tensor, ends: Tensor) -> Tensor:
    """One token of each row: ``[B or 1, S, d]`` -> ``[B, 1, d]``."""
    rows = torch.arange(len(ends), device=ends.device)
    return values.expand(len(ends), -1, -1)[rows, ends].unsqueeze(1)


def _up_to(ends: Tensor, size: int, block: Tensor) -> Tensor:
    """The mask ``[B, 1, 1, N + S]`` of one token of each row, which sees what stands before it.

    Args:
        ends: its place in the block ``[B]``.
        size: N + S.
        block: of S tokens.
    """
    places = torch.arange(size, device=ends.device) - (size - block.shape[1])
    return as_numbers((places <= ends.unsqueeze(1))[:, None, None], block.dtype)
