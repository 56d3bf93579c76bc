"""The causal transformer over the items of a history.

With ``positions: absolute`` it is torch's encoder. With ``positions: relative`` a learned bias for
each head and distance is added to the attention scores, as in T5 (arXiv 1910.10683, section 2.1)
but without buckets, so that no position is rare.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from recbole_genrec.backbone.dropout import dropout


class Slots(NamedTuple):
    """Where the items of right-padded histories stand.

    Attributes:
        places: of the items among all slots, row after row, int64 ``[N]``.
        shape: rows B and slots of a row T.
    """

    places: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, history: Tensor) -> Slots:
        """The slots of item ids ``[B, T]``; 0 = no item."""
        n_rows, n_slots = history.shape
        return cls(history.flatten().nonzero().squeeze(1), (n_rows, n_slots))

    @property
    def positions(self) -> Tensor:
        """The position of each item in its history, from 0, ``[N]``."""
        return self.places % self.shape[1]

    def padded(self, values: Tensor) -> Tensor:
        """Values of items ``[N, d]`` as ``[B, T, d]``, 0 in empty slots."""
        if len(values) == self.shape[0] * self.shape[1]:
            return values.unflatten(0, self.shape)
        blank = values.new_zeros(self.shape[0] * self.shape[1], values.shape[1])
        return blank.index_copy(0, self.places, values).unflatten(0, self.shape)

    def without_padding(self, values: Tensor) -> Tensor:
        """Values of slots ``[B, T, d]`` as those of items ``[N, d]``."""
        flat = values.flatten(0, 1)
        if len(self.places) == len(flat):
            return flat
        return flat.index_select(0, self.places)


def last_items(states: Tensor, length: Tensor) -> Tensor:
    """The states of the last item of each history.

    Args:
        states: ``[B, T, d]``.
        length: number of items in each history ``[B]``.

    Returns:
        ``[B, d]``.
    """
    rows = torch.arange(len(length), device=length.device)
    return states[rows, length - 1]


class RelativeBlock(nn.Module):
    """Self-attention with a bias, then an MLP of width 4 d.

    Args:
        d: width.
        n_heads: attention heads.
        dropout: of the attention weights, inside the MLP and after both.
        norm: ``pre`` or ``post``, where the layer norms stand.
    """

    def __init__(self, d: int, n_heads: int, dropout: float, norm: str):
        super().__init__()
        self.n_heads = n_heads
        self.pre_norm = norm == "pre"
        self.attention_dropout = dropout
        self.projection = nn.Linear(d, 3 * d)
        self.output = nn.Linear(d, d)
        self.mlp = nn.Sequential(
            nn.Linear(d, 4 * d),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * d, d),
        )
        self.attention_norm = nn.LayerNorm(d)
        self.mlp_norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, slots: Slots) -> Tensor:
        """Outputs of all items.

        Args:
            x: ``[N, d]``.
            bias: added to the attention scores ``[heads, T, T]``, -inf hides a position.
            slots: where the items stand.

        Returns:
            ``[N, d]``.
        """
        if self.pre_norm:
            x = x + self._attend(self.attention_norm(x), bias, slots)
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self._attend(x, bias, slots))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))

    def _attend(self, x: Tensor, bias: Tensor, slots: Slots) -> Tensor:
        joined = slots.padded(self.projection(x))  # [B, T, 3 d]
        heads = joined.unflatten(-1, (3, self.n_heads, -1))  # [B, T, 3, heads, d_h]
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # [B, heads, T, d_h]
        rate = self.attention_dropout if self.training else 0.0
        mixed = attention(query, key, value, bias, rate)
        of_items = slots.without_padding(mixed.transpose(1, 2).flatten(2))  # [N, d]
        return self.dropout(self.output(of_items))


class RelativeTransformer(nn.Module):
    """Causal layers that know how far back an item lies, not where it stands.

    Distances beyond the table share its last entry, so histories may have any length.

    Args:
        d: width.
        n_heads: attention heads.
        n_layers: layers.
        dropout: see :class:`RelativeBlock`.
        norm: see :class:`RelativeBlock`.
        n_distances: distances that have a bias of their own.
    """

    def __init__(
        self, d: int, n_heads: int, n_layers: int, dropout: float, norm: str, n_distances: int
    ):
        super().__init__()
        self.distance = nn.Parameter(torch.zeros(n_heads, n_distances))
        blocks = [RelativeBlock(d, n_heads, dropout, norm) for _ in range(n_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.last_norm = nn.LayerNorm(d) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """States of all items; that of item t of a history knows items 1 to t.

        Only the attention sees padding.

        Args:
            x: ``[N, d]``.
            slots: where the items stand.

        Returns:
            ``[N, d]``.
        """
        bias = self.bias(slots.shape[1])  # [heads, T, T]
        for block in self.blocks:
            x = block(x, bias, slots)
        return self.last_norm(x)

    def bias(self, n_slots: int) -> Tensor:
        """What is added to the attention scores, ``[heads, T, T]``; -inf hides later positions."""
        position = torch.arange(n_slots, device=self.distance.device)
        distance = position.unsqueeze(1) - position  # [T, T]
        known = distance.clamp(0, self.distance.shape[1] - 1)
        return self.distance[:, known].masked_fill(distance < 0, -torch.inf)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, rate: float) -> Tensor:
    """Softmax attention with dropout of its weights.

    Args:
        query: ``[B, heads, T, d_h]``.
        key: likewise.
        value: likewise.
        bias: added to the scores ``[heads, T, T]``; every position sees at least itself.
        rate: of the dropout.

    Returns:
        ``[B, heads, T, d_h]``.
    """
    if not rate or query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, bias.to(query.dtype), rate)
    # torch's own draws a float for each weight there, and looks for positions that see none.
    with torch.autocast("cpu", enabled=False):
        scores = query.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5
        weights = dropout((scores + bias).softmax(-1), rate)
    return weights.to(value.dtype) @ value


def input_layers(
    transformer: nn.Module, d: int, norm: str, dropout: float
) -> tuple[nn.Dropout, nn.Module]:
    """Dropout and norm of the vectors that enter a transformer.

    With ``norm: post`` they are normed, and the transformer starts small.

    Args:
        transformer: what they enter.
        d: width.
        norm: ``pre`` or ``post``.
        dropout: of the vectors.
    """
    if norm == "pre":
        return nn.Dropout(dropout), nn.Identity()
    _start_small(transformer)
    return nn.Dropout(dropout), nn.LayerNorm(d)


def _start_small(module: nn.Module) -> None:
    """Start the weights of all linear layers with a standard deviation of .02, biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention):
            nn.init.normal_(layer.in_proj_weight, std=0.02)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
