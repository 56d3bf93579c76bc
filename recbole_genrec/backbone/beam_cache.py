"""Keys and values of beams that share a prompt, and which of them a beam may read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

RESERVE = 128
"""Tokens for which a cache has room behind its prompts at once."""


class KeysAreWritten(Exception):  # noqa: N818 - the end of a pass, no error
    """Ends a pass whose states nobody reads, see :attr:`BeamCache.ends_after`."""


class BeamCache(DynamicCache):
    """Keys and values in buffers that are allocated once.

    They are written in place, read as views and cut back by :meth:`rewind`; they are never
    reordered or copied when beams are. Gradients do not pass through it.

    Args:
        reserve: tokens for which a new buffer has room beyond its first block.

    Attributes:
        ends_after: number of a layer; when it has written its keys and values, the pass ends with
            :class:`KeysAreWritten`. None = no pass ends early.
    """

    def __init__(self, reserve: int):
        super().__init__()
        self.reserve = reserve
        self.buffers: list[tuple[Tensor, Tensor]] = []
        self.lengths: list[int] = []
        self.ends_after: int | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values of a block of tokens to a layer.

        Args:
            key_states: ``[B, heads, Q, d]``.
            value_states: ``[B, heads, Q, d]``.
            layer_idx: number of the layer.
            *args: what transformers adds; not read.
            **kwargs: what transformers adds; not read.

        Returns:
            Keys and values of all tokens of the layer, ``[B, heads, N, d]``, as views.

        Raises:
            KeysAreWritten: the layer is the one of :attr:`ends_after`.
        """
        added = key_states.shape[2]
        if layer_idx == len(self.buffers):
            capacity = added + self.reserve
            self.buffers.append(
                (_grown(key_states, 0, capacity), _grown(value_states, 0, capacity))
            )
            self.lengths.append(0)

        start = self.lengths[layer_idx]
        end = start + added
        keys, values = self.buffers[layer_idx]
        if end > keys.shape[2]:
            keys = _grown(keys, start, 2 * end)
            values = _grown(values, start, 2 * end)
            self.buffers[layer_idx] = keys, values

        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.lengths[layer_idx] = end
        if layer_idx == self.ends_after:
            raise KeysAreWritten
        return keys[:, :, :end], values[:, :, :end]  # [B, heads, N, d]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens in a layer."""
        if not self.lengths:
            return 0
        return self.lengths[layer_idx]

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        self.lengths = [length] * len(self.lengths)

    def repeated(self, rows: int, room: int) -> BeamCache:
        """A cache in which each of several rows starts with the tokens of the only row of this one.

        Args:
            rows: how many.
            room: tokens for which a row has room behind them.
        """
        length = self.get_seq_length()
        repeated = BeamCache(self.reserve)
        for keys, values in self.buffers:
            keys = keys.expand(rows, -1, -1, -1)
            values = values.expand(rows, -1, -1, -1)
            repeated.buffers.append(
                (_grown(keys, length, length + room), _grown(values, length, length + room))
            )
        repeated.lengths = [length] * len(repeated.buffers)
        return repeated

    def select(self, rows: Tensor, length: int) -> BeamCache:
        """A cache with the first ``length`` tokens of some rows."""
        selected = BeamCache(self.reserve)
        capacity = length + self.reserve
        for keys, values in self.buffers:
            keys = _grown(keys[rows, :, :length], length, capacity)
            values = _grown(values[rows, :, :length], length, capacity)
            selected.buffers.append((keys, values))
        selected.lengths = [length] * len(selected.buffers)
        return selected

    @classmethod
    def joined(
        cls, caches: Sequence[BeamCache], rows: Sequence[Tensor], length: int, reserve: int
    ) -> BeamCache:
        """A cache of all rows of several caches, which hold up to ``length`` tokens.

        Shorter rows end in zeros, which a mask must hide.

        Args:
            caches: of the same model.
            rows: the rows of each of them in the new cache, together each row once.
            length: tokens of the new cache.
            reserve: tokens for which it has room behind them.
        """
        count = sum(len(part) for part in rows)
        cache = cls(reserve)
        for pairs in zip(*(part.buffers for part in caches), strict=True):
            keys = _joined([keys for keys, _ in pairs], rows, count, length, reserve)
            values = _joined([values for _, values in pairs], rows, count, length, reserve)
            cache.buffers.append((keys, values))
        cache.lengths = [length] * len(cache.buffers)
        return cache


def _joined(
    buffers: Sequence[Tensor], rows: Sequence[Tensor], count: int, length: int, reserve: int
) -> Tensor:
    """Full buffers ``[b, heads, n, d]`` as rows of one ``[count, heads, length + reserve, d]``."""
    _, heads, _, width = buffers[0].shape
    joined = buffers[0].new_empty(count, heads, length + reserve, width)
    for part, places in zip(buffers, rows, strict=True):
        end = part.shape[2]
        joined[:, :, :end].index_copy_(0, places, part)
        joined[:, :, end:length].index_fill_(0, places, 0)
    return joined


def _grown(tensor: Tensor, length: int, capacity: int) -> Tensor:
    """A buffer like ``tensor`` with ``capacity`` tokens that starts with its first ``length``."""
    buffer = tensor.new_empty(*tensor.shape[:2], capacity, tensor.shape[3])
    buffer[:, :, :length] = tensor[:, :, :length]
    return buffer


def visible_paths(sees: Tensor, parents: Tensor) -> Tensor:
    """What a new block of queries sees of all blocks so far: the path of its parent, and itself.

    Args:
        sees: bool ``[B, Q_before, N]``, what the previous block sees.
        parents: ``[B, Q]``, number of each query's parent in the previous block.

    Returns:
        bool ``[B, Q, N + Q]``.
    """
    count = parents.shape[1]
    index = parents.unsqueeze(-1).expand(-1, -1, sees.shape[-1])
    ancestors = sees.gather(1, index)  # [B, Q, N]
    itself = torch.eye(count, dtype=torch.bool, device=sees.device)
    itself = itself.expand(len(sees), -1, -1)  # [B, Q, Q]
    return torch.cat([ancestors, itself], dim=-1)
