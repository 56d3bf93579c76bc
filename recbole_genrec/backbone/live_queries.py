"""Work on the live ones among padded queries: dead beams then cost nothing but their memory."""

from __future__ import annotations

from torch import Tensor


class LiveQueries:
    """Turns ``[B, Q, ...]`` into the rows of its live queries ``[N, ...]`` and back.

    Args:
        live: bool ``[B, Q]``; ``None`` = all, and both ways change nothing. Counting the rows waits
            for the device.
    """

    def __init__(self, live: Tensor | None = None):
        self.rows: Tensor | None = None
        if live is not None:
            self.shape = live.shape
            self.rows = live.flatten().nonzero().squeeze(1)  # [N]

    def take(self, padded: Tensor) -> Tensor:
        """``[B, Q, ...]`` -> ``[N, ...]``."""
        if self.rows is None:
            return padded
        return padded.flatten(0, 1).index_select(0, self.rows)

    def put(self, live: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[B, Q, ...]``, 0 for the queries that are not live."""
        if self.rows is None:
            return live
        padded = live.new_zeros(self.shape.numel(), *live.shape[1:])  # [B * Q, ...]
        padded.index_copy_(0, self.rows, live)
        return padded.unflatten(0, self.shape)


ALL = LiveQueries()
