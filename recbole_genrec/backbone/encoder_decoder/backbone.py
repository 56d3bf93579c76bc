"""Encoder-decoder language models of the T5 family behind the protocol of all backbones.

A user's source is encoded once, its cross-attention keys and values are computed once, and any
number of decoder queries read them: cross-attention has no position bias in T5 (arXiv 1910.10683,
section 2.1), so beams of one user are further queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from recbole_genrec.backbone.dropout import cheapen
from recbole_genrec.backbone.encoder_decoder.layers import (
    cross_attention,
    feed_forward,
    path_attention,
    position_bias,
    self_attention,
    split_heads,
)
from recbole_genrec.backbone.encoder_decoder.load import FAMILIES
from recbole_genrec.backbone.encoder_decoder.path_cache import PathCache
from recbole_genrec.backbone.live_queries import ALL, LiveQueries
from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.backbone.visibility import causal, restricted
from recbole_genrec.errors import BackboneError


@dataclass
class EncoderMemory:
    """What decoder queries read of B sources.

    Attributes:
        layers: keys and values of each decoder layer, ``[B, heads, S, d_kv]``.
        mask: bool ``[B, 1, 1, S]``, False for padding.
    """

    layers: list[tuple[Tensor, Tensor]]
    mask: Tensor

    def select(self, rows: Tensor) -> EncoderMemory:
        """The memory of some of the users."""
        layers = [(keys[rows], values[rows]) for keys, values in self.layers]
        return EncoderMemory(layers, self.mask[rows])


class EncoderDecoderBackbone(nn.Module):
    """A model of the T5 family seen as *embeddings in, states out* (``protocol.Backbone``).

    Takes over the stacks of ``lm`` with the parameter names of transformers.

    Args:
        lm: from ``load_encoder_decoder``.
        text: with the text table and the output layer over it; without, both are left behind and
            are no parameters of this module.

    Attributes:
        d_in: width of the input embeddings.
        d_out: width of the states.
        d_model: the same width.
        output_scale: factor on the states before an output layer, ``d_model^-0.5`` in T5.
    """

    max_positions = None

    def __init__(self, lm: TransformersModule, text: bool = False):
        super().__init__()
        if lm.config.model_type not in FAMILIES:
            raise BackboneError(
                f"{type(lm).__name__} is not of the T5 family. "
                f"Use a model whose model_type is {' or '.join(FAMILIES)}."
            )
        table = lm.get_input_embeddings()
        head = lm.get_output_embeddings()
        self._tied = head.weight is table.weight
        self.shared: nn.Embedding | None = None
        self.lm_head: nn.Linear | None = None
        if text:
            self.shared = table
        if text and not self._tied:
            self.lm_head = head

        self.encoder: TransformersModule = lm.encoder
        self.decoder: TransformersModule = lm.decoder
        self.encoder.embed_tokens = None
        self.decoder.embed_tokens = None
        self.d_model = lm.config.d_model
        self.d_in = self.d_model
        self.d_out = self.d_model
        self.output_scale = 1.0
        if _scales_outputs(lm.config):
            self.output_scale = self.d_model**-0.5
        cheapen(self)

    # --- text -------------------------------------------------------------------------------

    @property
    def text_table(self) -> nn.Embedding:
        """As ``Backbone.text_table``.

        Raises:
            BackboneError: the backbone was built without it.
        """
        if self.shared is None:
            raise BackboneError(
                "This backbone was built without its text table. "
                "Build it with EncoderDecoderBackbone(lm, text=True)."
            )
        return self.shared

    @property
    def tied(self) -> bool:
        """As ``Backbone.tied``."""
        return self._tied

    def text_logits(self, states: Tensor) -> Tensor:
        """As ``Backbone.text_logits``."""
        weight = self.text_table.weight
        if self.lm_head is not None:
            weight = self.lm_head.weight
        return nn.functional.linear(states * self.output_scale, weight)

    # --- sources ----------------------------------------------------------------------------

    def read(
        self,
        source: Tensor,
        valid: Tensor,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> EncoderMemory:
        """As ``Backbone.read``; ``positions`` and ``sees`` as in :meth:`encode`."""
        return self.memory(self.encode(source, valid, positions, sees), valid)

    def encode(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> Tensor:
        """States of the encoder.

        Args:
            embeddings: ``[B, S, d_model]``.
            mask: bool ``[B, S]``, False for padding; at least one True in each row.
            positions: ``[S]`` or ``[B, S]``, whose distances give the position bias; ``None`` = 0,
                1, 2, ...
            sees: bool, or float added to the scores, ``[S, S]`` or ``[B, S, S]``; each token must
                see one that is not padding. ``None`` = all tokens.

        Returns:
            ``[B, S, d_model]``; states of padding have no meaning.
        """
        if positions is None:
            positions = torch.arange(embeddings.shape[1], device=embeddings.device)
        visible = mask[:, None, None]  # [B, 1, 1, S]
        if sees is not None:
            visible = restricted(sees.unsqueeze(-3), visible)  # [B, 1, S, S]
        bias = position_bias(self.encoder, positions, positions, visible)

        hidden = self.encoder.dropout(embeddings)
        for block in self.encoder.block:
            hidden = self_attention(block.layer[0], hidden, bias)
            hidden = feed_forward(block.layer[-1], hidden)
        return self.encoder.dropout(self.encoder.final_layer_norm(hidden))

    def memory(self, states: Tensor, mask: Tensor) -> EncoderMemory:
        """Cross-attention keys and values of encoder states.

        Args:
            states: ``[B, S, d_model]`` from :meth:`encode`.
            mask: bool ``[B, S]``, as in :meth:`encode`.
        """
        layers = []
        for block in self.decoder.block:
            weights = block.layer[1].EncDecAttention
            keys = split_heads(weights.k(states), weights)  # [B, heads, S, d_kv]
            values = split_heads(weights.v(states), weights)
            layers.append((keys, values))
        return EncoderMemory(layers, mask[:, None, None])

    # --- queries ----------------------------------------------------------------------------

    def decode(
        self,
        queries: Tensor,
        memory: EncoderMemory,
        positions: Tensor | None = None,
        sees: Tensor | None = None,
    ) -> Tensor:
        """As ``Backbone.decode``: without ``sees``, step t sees steps 0 to t (teacher forcing).

        The states ``[B, Q, d_model]`` come after the final norm and without a scale.
        """
        count = queries.shape[1]
        if positions is None:
            positions = torch.arange(count, device=queries.device)
        if sees is None:
            sees = causal(count, queries.device)
        elif sees.dim() == 3:
            sees = sees.unsqueeze(1)  # [B, 1, T, T]
        bias = position_bias(self.decoder, positions, positions, sees)
        return self._decode(queries, memory, bias)

    def extend(
        self,
        embeddings: Tensor,
        memory: EncoderMemory,
        cache: PathCache,
        paths: Tensor,
        live: LiveQueries = ALL,
    ) -> Tensor:
        """States of the queries of one search step; their keys and values join ``cache``.

        Args:
            embeddings: ``[B, Q, d_model]``, or ``[N, d_model]`` of the ``live`` queries alone.
            memory: from :meth:`read`.
            cache: keys and values of earlier queries.
            paths: int64 ``[N, T]``, the row in ``cache`` of each step on the path of a query, its
                own last; N = B * Q, or the live ones.
            live: which of the padded queries ``embeddings`` holds.

        Returns:
            As ``embeddings``.
        """
        steps = torch.arange(paths.shape[1], device=paths.device)  # [T]
        sees = torch.ones_like(steps, dtype=torch.bool).unsqueeze(0)  # [1, T]
        bias = position_bias(self.decoder, steps[-1:], steps, sees)  # [1, heads, 1, T]
        states = self._extend(embeddings, memory, bias, cache, paths, live)
        cache.close_block(len(paths))
        return states

    def _decode(self, embeddings: Tensor, memory: EncoderMemory, bias: Tensor) -> Tensor:
        hidden = self.decoder.dropout(embeddings)
        layers = zip(self.decoder.block, memory.layers, strict=True)
        for block, (keys, values) in layers:
            hidden = self_attention(block.layer[0], hidden, bias)
            hidden = cross_attention(block.layer[1], hidden, keys, values, memory.mask, ALL)
            hidden = feed_forward(block.layer[-1], hidden)
        return self.decoder.dropout(self.decoder.final_layer_norm(hidden))

    def _extend(
        self,
        embeddings: Tensor,
        memory: EncoderMemory,
        bias: Tensor,
        cache: PathCache,
        paths: Tensor,
        live: LiveQueries,
    ) -> Tensor:
        hidden = self.decoder.dropout(embeddings)
        layers = zip(self.decoder.block, memory.layers, strict=True)
        for index, (block, (keys, values)) in enumerate(layers):
            hidden = path_attention(block.layer[0], hidden, bias, cache, index, paths)
            hidden = cross_attention(block.layer[1], hidden, keys, values, memory.mask, live)
            hidden = feed_forward(block.layer[-1], hidden)
        return self.decoder.dropout(self.decoder.final_layer_norm(hidden))

    # --- search -----------------------------------------------------------------------------

    def compile_search(self) -> None:
        """Let ``torch.compile`` translate what the search runs.

        Training stays as it is, which on a CPU is the faster way.

        Raises:
            BackboneError: there is no working compiler.
        """
        device = self.decoder.final_layer_norm.weight.device
        try:
            torch.compile(torch.sin)(torch.ones(2, device=device))
        except Exception as error:  # compilers raise errors of every kind
            reason = str(error).strip().splitlines()[0][:200]
            raise BackboneError(
                "compile_search: True needs a compiler that torch.compile can use, "
                f"a C++ compiler for the CPU: {reason}. Install one, or leave compile_search out."
            ) from error
        for name in ("encode", "_extend"):
            eager = getattr(self, name)
            compiled = torch.compile(eager, dynamic=True)
            setattr(self, name, _in_search(self, eager, compiled))


def _scales_outputs(config: PreTrainedConfig) -> bool:
    """Whether the model multiplies decoder states by ``d_model^-0.5`` before its output layer."""
    tied_t5 = config.model_type == "t5" and config.tie_word_embeddings
    return getattr(config, "scale_decoder_outputs", tied_t5)


def _in_search(module: nn.Module, eager: Callable, compiled: Callable) -> Callable:
    """A function that is compiled in evaluation mode only."""

    def run(*arguments, **options) -> Tensor:
        if module.training:
            return eager(*arguments, **options)
        return compiled(*arguments, **options)

    return run
