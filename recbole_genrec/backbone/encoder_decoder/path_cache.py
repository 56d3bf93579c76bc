"""Keys and values of the queries of a search, read along the path of each query."""

from __future__ import annotations

from torch import Tensor


class PathCache:
    """One row for each query that was ever asked, in buffers that only grow.

    A query reads the rows of its ancestors and its own, which are as many as its path has steps,
    however many beams there are. Nothing is reordered when beams are. Gradients do not pass.

    Attributes:
        size: rows of the blocks that all layers have.
        buffers: keys and values of each layer, ``[capacity, heads * d_kv]``.
    """

    def __init__(self) -> None:
        self.size = 0
        self.buffers: list[tuple[Tensor, Tensor]] = []

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values of a block of queries behind those of the layer.

        The block counts when :meth:`close_block` was called after the last layer.

        Args:
            layer: number of the layer.
            keys: ``[N, heads * d_kv]``.
            values: ``[N, heads * d_kv]``.
        """
        end = self.size + len(keys)
        if layer == len(self.buffers):
            self.buffers.append((_grown(keys, 0, end), _grown(values, 0, end)))
        key_buffer, value_buffer = self.buffers[layer]
        if end > len(key_buffer):
            key_buffer = _grown(key_buffer, self.size, 2 * end)
            value_buffer = _grown(value_buffer, self.size, 2 * end)
            self.buffers[layer] = key_buffer, value_buffer
        key_buffer[self.size : end] = keys
        value_buffer[self.size : end] = values

    def read(self, layer: int, paths: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values along paths.

        Args:
            layer: number of the layer.
            paths: int64 ``[N, T]``, rows of each query's ancestors and its own.

        Returns:
            Both ``[N, T, heads * d_kv]``.
        """
        keys, values = self.buffers[layer]
        rows = paths.flatten()
        shape = (*paths.shape, keys.shape[1])
        return keys.index_select(0, rows).view(shape), values.index_select(0, rows).view(shape)

    def close_block(self, count: int) -> None:
        """Count the ``count`` rows that every layer has got."""
        self.size += count

    def rewind(self, size: int) -> None:
        """Forget everything after the first ``size`` rows."""
        self.size = size

    def select(self, rows: Tensor) -> PathCache:
        """A cache that holds some of the rows alone."""
        selected = PathCache()
        selected.size = len(rows)
        for keys, values in self.buffers:
            selected.buffers.append((keys.index_select(0, rows), values.index_select(0, rows)))
        return selected


def _grown(tensor: Tensor, size: int, capacity: int) -> Tensor:
    """A buffer like ``tensor`` with ``capacity`` rows that starts with its first ``size``."""
    buffer = tensor.new_empty(capacity, tensor.shape[1])
    buffer[:size] = tensor[:size]
    return buffer
