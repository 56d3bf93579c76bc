"""Decoders along the codes of one item, which start from one state.

The transformer follows the depth transformer of the RQ-Transformer (arXiv 2203.01941). The MLP is
our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recbole_genrec.backbone.visibility import causal


class StateAlone:
    """A decoder whose queries carry their user's state: nothing depends on the codes before."""

    def begin(self, states: Tensor) -> Tensor:
        """What a query carries at the root, ``[..., d]``."""
        return states

    def read(self, carried: Tensor, level: int) -> Tensor:
        """The state that gives the logits of a level, ``[..., d]``."""
        return carried

    def advance(self, carried: Tensor, codes: Tensor, level: int) -> Tensor:
        """What a query carries after one more code: the same."""
        return carried


class DepthMLP(nn.Module):
    """``s_l = s_{l-1} + MLP_l([s_{l-1} ; D_l[c_l]])``.

    The state before level l, normalised, gives the logits of level l.

    Args:
        sizes: alphabet size of each level.
        d: width.
        dropout: after the code embeddings and inside the MLPs.
    """

    def __init__(self, sizes: Sequence[int], d: int, dropout: float, *_):
        super().__init__()
        self.first = [sum(sizes[:level]) for level in range(len(sizes))]
        self.embedding = nn.Parameter(torch.randn(sum(sizes), d) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in sizes)
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * d, 2 * d),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * d, d),
            )
            for _ in sizes[1:]
        )

    def begin(self, states: Tensor) -> Tensor:
        """What a query carries at the root.

        Args:
            states: ``[..., d]``.
        """
        return states

    def read(self, carried: Tensor, level: int) -> Tensor:
        """The state that gives the logits of a level.

        Args:
            carried: what the queries carry.
            level: number of the level, counted from 0.

        Returns:
            ``[..., d]``.
        """
        return self.norms[level](carried)

    def advance(self, carried: Tensor, codes: Tensor, level: int) -> Tensor:
        """What a query carries after one more code.

        Args:
            carried: what the queries carry.
            codes: codes of the level ``[...]``.
            level: number of the level, counted from 0.
        """
        embedded = self._embed(codes, level)  # [..., d]
        return carried + self.mlps[level](torch.cat([carried, embedded], dim=-1))

    def teach(self, states: Tensor, codes: Tensor) -> Iterator[Tensor]:
        """Teacher forcing: the states that give the logits of each level.

        Args:
            states: ``[P, d]``.
            codes: codes of the items ``[P, L]``.

        Yields:
            ``[P, d]`` for each level.
        """
        n_levels = len(self.first)
        carried = self.begin(states)
        for level in range(n_levels):
            yield self.read(carried, level)
            if level + 1 < n_levels:
                carried = self.advance(carried, codes[:, level], level)

    def _embed(self, codes: Tensor, level: int) -> Tensor:
        return self.dropout(embedding(codes + self.first[level], self.embedding))


class DepthTransformer(DepthMLP):
    """A causal transformer over ``[h, D_1[c_1], D_2[c_2], ...]``.

    A query carries this short sequence.

    Args:
        sizes: alphabet size of each level.
        d: width.
        dropout: after the code embeddings and inside the transformer.
        n_heads: attention heads.
        n_layers: layers.
    """

    def __init__(self, sizes: Sequence[int], d: int, dropout: float, n_heads: int, n_layers: int):
        super().__init__(sizes, d, dropout)
        del self.mlps  # the layers below stand in their place
        self.position = nn.Parameter(torch.randn(len(sizes), d) * 0.02)
        layer = nn.TransformerEncoderLayer(
            d, n_heads, 4 * d, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)

    def begin(self, states: Tensor) -> Tensor:
        """A sequence of one state.

        Args:
            states: ``[..., d]``.

        Returns:
            ``[..., 1, d]``.
        """
        return (states + self.position[0]).unsqueeze(-2)

    def read(self, carried: Tensor, level: int) -> Tensor:
        """The last state of the sequence.

        Args:
            carried: ``[..., level + 1, d]``.
            level: number of the level, counted from 0.

        Returns:
            ``[..., d]``.
        """
        return self.norms[level](self._run(carried)[..., -1, :])

    def advance(self, carried: Tensor, codes: Tensor, level: int) -> Tensor:
        """Append the embeddings of codes.

        Args:
            carried: ``[..., level + 1, d]``.
            codes: codes of the level ``[...]``.
            level: number of the level, counted from 0.

        Returns:
            ``[..., level + 2, d]``.
        """
        embedded = self._embed(codes, level) + self.position[level + 1]  # [..., d]
        return torch.cat([carried, embedded.unsqueeze(-2)], dim=-2)

    def teach(self, states: Tensor, codes: Tensor) -> Iterator[Tensor]:
        """As the base's, in one pass.

        Args:
            states: ``[P, d]``.
            codes: codes of the items ``[P, L]``.

        Yields:
            ``[P, d]`` for each level.
        """
        carried = self.begin(states)
        for level in range(len(self.first) - 1):
            carried = self.advance(carried, codes[:, level], level)
        outputs = self._run(carried)  # [P, L, d]
        for norm, state in zip(self.norms, outputs.unbind(-2), strict=True):
            yield norm(state)

    def _run(self, carried: Tensor) -> Tensor:
        later = ~causal(carried.shape[-2], carried.device)
        sequences = carried.flatten(0, -3)  # [P, length, d]
        return self.layers(sequences, mask=later, is_causal=True).view_as(carried)
