"""Encoder-decoder language models of the T5 family: the weights of transformers, with the queries of a step as one block.

A user's history is encoded once, its cross-attention keys and values are computed once, and any number of decoder queries read them:
cross-attention has no position bias in T5 (arXiv 1910.10683, section 2.1), so beams of one user are simply further queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_genrec.backbone.causal.backbone import BeamCache
from recbole_genrec.backbone.causal.load import locate, unloadable
from recbole_genrec.backbone.dropout import cheapen, dropout
from recbole_genrec.backbone.live_queries import ALL, LiveQueries
from recbole_genrec.errors import BackboneError

FAMILIES = ("t5", "mt5")


def load_encoder_decoder(backbone: str = "scratch", settings: dict | None = None):
    """A language model of the T5 family.

    Args:
        backbone: ``scratch`` (random weights from ``settings``), a folder, or a hub id.
        settings: ``{model_type: t5 | mt5, d_model: ..., num_layers: ..., ...}`` for ``scratch``. Without ``vocab_size`` the text table
            has one row, since item codes have a table of their own.

    Returns:
        ``AutoModelForSeq2SeqLM`` in float32.

    Raises:
        BackboneError: unknown model type or setting, missing folder, no network, or files that are no model of the T5 family.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    if backbone == "scratch":
        settings = {"model_type": "t5", "vocab_size": 1, "eos_token_id": None, **(settings or {})}
        model_type = settings.pop("model_type")
        try:
            if model_type not in FAMILIES:
                raise ValueError(f"{model_type} is not of the T5 family")
            known = AutoConfig.for_model(model_type)
            for name in settings:  # transformers stores what it does not know
                if not hasattr(known, name):
                    raise ValueError(f"{model_type} has no setting {name}")
            return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, **settings))
        except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
            raise BackboneError(
                f"backbone: scratch cannot be built from backbone_config {{model_type: {model_type}, ...}}: {error}. "
                f"Use model_type {' or '.join(FAMILIES)} and the setting names of transformers (d_model, d_kv, d_ff, num_heads, ...)."
            ) from error
    source = locate(backbone)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.model_type not in FAMILIES:
            raise ValueError(f"its model_type is {config.model_type}, not {' or '.join(FAMILIES)}.")
        return AutoModelForSeq2SeqLM.from_pretrained(
            source, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
    except Exception as error:  # the libraries raise whatever the damaged file leads to
        raise unloadable(backbone, error, "config.json and safetensors weights") from error


@dataclass
class Memory:
    """What decoder queries read of B histories: keys and values ``[B, heads, S, d_kv]`` per layer, ``mask`` bool ``[B, 1, 1, S]``."""

    layers: list[tuple[Tensor, Tensor]]
    mask: Tensor

    def select(self, rows: Tensor) -> Memory:
        """The memory of some of the users."""
        return Memory([(keys[rows], values[rows]) for keys, values in self.layers], self.mask[rows])


class EncoderDecoderBackbone(nn.Module):
    """A model of the T5 family seen as *embeddings in, states out*, with the parameter names of transformers.

    Takes over the stacks of ``lm``; its text table and output layer are left behind and are no parameters of this module.

    Args:
        lm: from :func:`load_encoder_decoder`.

    Attributes:
        d_model: width of embeddings and states.
    """

    def __init__(self, lm: nn.Module):
        super().__init__()
        if lm.config.model_type not in FAMILIES:
            raise BackboneError(
                f"{type(lm).__name__} is not of the T5 family; model_type must be {' or '.join(FAMILIES)}."
            )
        self.encoder, self.decoder = lm.encoder, lm.decoder
        self.encoder.embed_tokens = self.decoder.embed_tokens = None
        self.d_model = lm.config.d_model
        cheapen(self)

    def compile_search(self) -> None:
        """Let ``torch.compile`` translate what the search runs; training stays as it is, which on a CPU is the faster way.

        Raises:
            BackboneError: there is no working compiler.
        """
        try:
            torch.compile(torch.sin)(
                torch.ones(2, device=self.decoder.final_layer_norm.weight.device)
            )
        except Exception as error:  # the compilers raise whatever they like
            reason = str(error).strip().splitlines()[0][:200]
            raise BackboneError(
                f"compile_search: True needs a compiler that torch.compile can use, a C++ compiler for the CPU: {reason}. Install one, or "
                "leave compile_search out."
            ) from error
        for name in ("encode", "_decode"):
            eager = getattr(self, name)
            setattr(self, name, _in_search(self, eager, torch.compile(eager, dynamic=True)))

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """``[B, S, d_model]`` -> states ``[B, S, d_model]``.

        Args:
            mask: bool ``[B, S]``, False for padding (on the right); at least one True in each row. States of padding mean nothing.
        """
        steps = torch.arange(embeddings.shape[1], device=embeddings.device)
        bias = _position_bias(self.encoder, steps, steps, mask[:, None, None])
        hidden = self.encoder.dropout(embeddings)
        for block in self.encoder.block:
            hidden = block.layer[-1](_self_attention(block.layer[0], hidden, bias))
        return self.encoder.dropout(self.encoder.final_layer_norm(hidden))

    def memory(self, states: Tensor, mask: Tensor) -> Memory:
        """Cross-attention keys and values of encoder ``states`` ``[B, S, d_model]``; ``mask`` as in :meth:`encode`."""
        layers = [block.layer[1].EncDecAttention for block in self.decoder.block]
        return Memory(
            [(_heads(x.k(states), x), _heads(x.v(states), x)) for x in layers], mask[:, None, None]
        )

    def decode(self, embeddings: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: ``[B, T, d_model]``, one sequence per user, -> states ``[B, T, d_model]``; step t sees steps 0 to t."""
        steps = torch.arange(embeddings.shape[1], device=embeddings.device)
        bias = _position_bias(self.decoder, steps, steps, steps <= steps.unsqueeze(1))
        return self._decode(embeddings, memory, bias)

    def extend(
        self,
        embeddings: Tensor,
        memory: Memory,
        cache: BeamCache,
        steps: Tensor,
        sees: Tensor,
        live: LiveQueries = ALL,
    ) -> Tensor:
        """States of Q queries per user at the same step; their keys and values are appended to ``cache``.

        Args:
            embeddings: ``[B, Q, d_model]``, or ``[N, d_model]`` of the ``live`` queries alone; the states have the same shape.
            steps: ``[M]`` step of each token in the cache, the Q new ones last.
            sees: bool ``[B, Q, M]``, the tokens on the path of each query, itself included.
        """
        bias = _position_bias(self.decoder, steps[-1:], steps, sees.unsqueeze(1))
        return self._decode(embeddings, memory, bias, cache, live)

    def _decode(
        self,
        embeddings: Tensor,
        memory: Memory,
        bias: Tensor,
        cache: BeamCache | None = None,
        live: LiveQueries = ALL,
    ) -> Tensor:
        hidden = self.decoder.dropout(embeddings)
        for index, (block, (keys, values)) in enumerate(
            zip(self.decoder.block, memory.layers, strict=True)
        ):
            hidden = _self_attention(block.layer[0], hidden, bias, cache, index, live)
            cross = block.layer[1]
            hidden = hidden + cross.dropout(
                _attention(
                    cross.EncDecAttention, cross.layer_norm(hidden), keys, values, memory.mask, live
                )
            )
            hidden = block.layer[-1](hidden)
        return self.decoder.dropout(self.decoder.final_layer_norm(hidden))


def _in_search(module: nn.Module, eager: Callable, compiled: Callable) -> Callable:
    return lambda *arguments: (eager if module.training else compiled)(*arguments)


def _position_bias(stack: nn.Module, queries: Tensor, keys: Tensor, sees: Tensor) -> Tensor:
    """Bias of self-attention ``[B or 1, heads, Q, N]``, -inf where a query does not see a key; block 0 holds the table of its stack.

    ``queries`` ``[Q or 1]`` and ``keys`` ``[N]`` are steps, ``sees`` bool ``[B, 1, Q or 1, N]`` or ``[Q, N]``.
    """
    attention = stack.block[0].layer[0].SelfAttention
    buckets = attention._relative_position_bucket(
        keys - queries.unsqueeze(1),
        bidirectional=not stack.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias = attention.relative_attention_bias(buckets).permute(2, 0, 1).unsqueeze(0)
    return torch.where(sees, bias, -torch.inf)


def _self_attention(
    layer: nn.Module,
    hidden: Tensor,
    bias: Tensor,
    cache: BeamCache | None = None,
    index: int = 0,
    live: LiveQueries = ALL,
) -> Tensor:
    attention, normed = layer.SelfAttention, layer.layer_norm(hidden)
    keys, values = (
        _heads(live.put(project(normed)), attention) for project in (attention.k, attention.v)
    )
    if cache is not None:
        keys, values = cache.update(keys, values, index)
    return hidden + layer.dropout(_attention(attention, normed, keys, values, bias, live))


def _attention(
    attention: nn.Module,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    live: LiveQueries = ALL,
) -> Tensor:
    """Attention without the factor 1/sqrt(d_kv), which T5 folds into its weights."""
    queries = _heads(live.put(attention.q(queries)), attention)
    if attention.training and attention.dropout > 0:
        scores = queries @ keys.transpose(-1, -2)
        scores = (
            scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
        )
        read = dropout(scores.softmax(-1), attention.dropout) @ values
    else:
        read = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=1.0
        )
    return attention.o(live.take(read.transpose(1, 2).flatten(2)))


def _heads(projected: Tensor, attention: nn.Module) -> Tensor:
    """``[B, N, heads * d_kv]`` -> ``[B, heads, N, d_kv]``."""
    return projected.unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)
