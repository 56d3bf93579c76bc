"""Work on the live ones among padded queries, so that dead beams cost nothing but their memory."""

from __future__ import annotations

from torch import Tensor


class LiveQueries:
    """Turns ``[B, Q, ...]`` into the rows of its live queries ``[N, ...]`` and back; with ``live`` None both are the identity.

    Args:
        live: bool ``[B, Q]``. Counting the rows waits for the device.
    """

    def __init__(self, live: Tensor | None = None):
        self.shape = None if live is None else live.shape
        self.rows = None if live is None else live.flatten().nonzero().squeeze(1)

    def take(self, padded: Tensor) -> Tensor:
        """``[B, Q, ...]`` -> ``[N, ...]``"""
        return padded if self.rows is None else padded.flatten(0, 1).index_select(0, self.rows)

    def put(self, taken: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[B, Q, ...]``, 0 for the others."""
        if self.rows is None:
            return taken
        return (
            taken.new_zeros(self.shape.numel(), *taken.shape[1:])
            .index_copy_(0, self.rows, taken)
            .unflatten(0, self.shape)
        )


ALL = LiveQueries()
