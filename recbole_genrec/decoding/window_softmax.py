"""Cross-entropy among the children of nodes, without a copy of their vectors.

The children of a node stand side by side in the table of edges. Targets with one parent are so one
small product with a part of the table, whose logits and both gradients stay in the processor's
cache, as in :mod:`.cached_softmax`. Windows too small to be worth a product are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

MOST_PAIRS = 2**16
"""Pairs of a row and a class that are computed together; bounds the memory (our choice)."""


class Windows(NamedTuple):
    """The classes among which each row competes.

    Attributes:
        first: first class of each row's window, int64 ``[R]``.
        width: classes of the window, a function of ``first``, int64 ``[R]``.
        target: the class that is right, int64 ``[R]``.
    """

    first: Tensor
    width: Tensor
    target: Tensor

    def of(self, rows: Tensor) -> Windows:
        """Those of some rows, int64 ``[n]`` or bool ``[R]``."""
        return Windows(self.first[rows], self.width[rows], self.target[rows])


class Hidden(NamedTuple):
    """Classes that do not compete in some rows; a target must.

    Attributes:
        labels: the label of each class, int64 ``[n]``.
        of_rows: which labels do not compete, bool ``[R, V]``.
    """

    labels: Tensor
    of_rows: Tensor

    def among(self, rows: slice, classes: slice) -> Tensor:
        """Which of some classes do not compete, bool ``[rows, classes]``."""
        return self.of_rows[rows].index_select(1, self.labels[classes])

    def at(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Whether the class of each pair does not compete, bool of their shape."""
        return self.of_rows[rows, self.labels[classes]]


def window_cross_entropy(
    states: Tensor,
    vectors: Tensor,
    bias: Tensor,
    windows: Windows,
    few_cells: int = 0,
    smoothing: float = 0.0,
    hidden: Hidden | None = None,
) -> Tensor:
    """Sum over rows of the cross-entropy among the classes of their windows.

    Args:
        states: ``[R, d]``.
        vectors: of all classes ``[n, d]``.
        bias: of all classes ``[n]``.
        windows: two windows are the same or have no class in common.
        few_cells: windows with at most so many logits, those of all their rows, are computed
            together, because each of the others costs a few calls.
        smoothing: share of the probability that is spread evenly over the classes that compete.
        hidden: classes that do not compete.

    Returns:
        Scalar, float32 (float64 for float64 inputs).
    """
    # Rounded logits would let many classes tie.
    dtype = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        loss: Tensor = _WindowCrossEntropy.apply(
            states.to(dtype),
            vectors.to(dtype),
            bias.to(dtype),
            windows,
            few_cells,
            smoothing,
            hidden,
        )
        return loss


class _WindowCrossEntropy(torch.autograd.Function):
    """The loss with the gradients in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        vectors: Tensor,
        bias: Tensor,
        windows: Windows,
        few_cells: int,
        smoothing: float,
        hidden: Hidden | None,
    ) -> Tensor:
        """The loss; its gradients are kept for :meth:`backward`."""
        order = torch.argsort(windows.first, stable=True)
        windows = windows.of(order)
        sorted_states = states[order]
        if hidden is not None:
            hidden = hidden._replace(of_rows=hidden.of_rows[order])
        work = _Pass(sorted_states, vectors, bias, smoothing, hidden)
        target = windows.target
        of_target = (sorted_states * vectors[target]).sum(1) + bias[target]
        loss = (smoothing - 1) * of_target.sum()
        for mass in work.masses(windows, few_cells):
            loss += mass

        unsorted = torch.empty_like(work.for_states)
        unsorted[order] = work.for_states
        ctx.save_for_backward(unsorted, work.for_vectors, work.for_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients times that of the loss."""
        gradients: list[Tensor | None] = [None] * 7
        for place, saved in enumerate(ctx.saved_tensors):
            if ctx.needs_input_grad[place]:
                gradients[place] = saved * gradient
        return tuple(gradients)


class _Pass:
    """Log-normalisers of rows less what smoothing gives, and the gradients of the loss.

    Args:
        states: rows sorted by window ``[R, d]``.
        vectors: of all classes ``[n, d]``.
        bias: of all classes ``[n]``.
        smoothing: see :func:`window_cross_entropy`.
        hidden: classes that do not compete, of the sorted rows.

    Attributes:
        for_states: gradient of ``states``; likewise ``for_vectors`` and ``for_bias``.
    """

    def __init__(
        self,
        states: Tensor,
        vectors: Tensor,
        bias: Tensor,
        smoothing: float,
        hidden: Hidden | None,
    ) -> None:
        self.states = states
        self.vectors = vectors
        self.bias = bias
        self.smoothing = smoothing
        self.hidden = hidden
        self.of_target = 1 - smoothing
        self.for_states = torch.empty_like(states)
        self.for_vectors = torch.zeros_like(vectors)
        self.for_bias = torch.zeros_like(bias)

    def masses(self, windows: Windows, few_cells: int) -> Iterator[Tensor]:
        """Sums of log-normalisers, which together are those of all rows.

        Args:
            windows: of the rows, sorted.
            few_cells: see :func:`window_cross_entropy`.
        """
        starts, sizes = windows.first.unique_consecutive(return_counts=True)
        widths = windows.width[sizes.cumsum(0) - 1]
        rows = sizes.cumsum(0) - sizes
        alone = torch.ones_like(starts, dtype=torch.bool)
        is_alone = torch.ones_like(windows.first, dtype=torch.bool)  # of each row
        if few_cells:
            alone = sizes * widths > few_cells
            is_alone = alone.repeat_interleave(sizes)
            together = (~is_alone).nonzero().squeeze(1)
            for some in _in_blocks(together, windows.width[together]):
                yield self._together(some, windows.of(some))
        numbers = torch.stack([starts, rows, sizes, widths], 1)[alone]
        for start, row, size, width in numbers.tolist():
            yield self._alone(slice(row, row + size), slice(start, start + width))

        single = is_alone.nonzero().squeeze(1)
        target = windows.target[single]
        states = self.states[single]
        share = self.of_target
        self.for_states[single] -= share * self.vectors[target]
        self.for_vectors.index_add_(0, target, states, alpha=-share)
        self.for_bias.index_add_(0, target, torch.ones_like(states[:, 0]), alpha=-share)

    def _alone(self, rows: slice, classes: slice) -> Tensor:
        """The sum over the rows of one window, whose logits are a small product."""
        states = self.states[rows]
        window = self.vectors[classes]
        logits = torch.addmm(self.bias[classes], states, window.T)  # [size, width]
        if self.hidden is not None:
            logits.masked_fill_(self.hidden.among(rows, classes), -torch.inf)
        log_probs = logits.log_softmax(1)
        # without hidden classes the difference is that of any class
        mass = logits[:, 0] - log_probs[:, 0] if self.hidden is None else logits.logsumexp(1)
        share = log_probs.exp_()
        if self.smoothing:
            spread, smoothed = self._spread(logits)
            mass -= smoothed
            share -= spread.unsqueeze(1) * (logits > -torch.inf)
        torch.mm(share, window, out=self.for_states[rows])
        torch.mm(share.T, states, out=self.for_vectors[classes])
        torch.sum(share, 0, out=self.for_bias[classes])
        return mass.sum()

    def _spread(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What smoothing gives a class of each row, and what it takes from the row's loss.

        Args:
            logits: ``[size, width]``, -inf where a class does not compete.

        Returns:
            Each ``[size]``.
        """
        competes = logits > -torch.inf
        spread = self.smoothing / competes.sum(1)
        return spread, spread * logits.masked_fill(~competes, 0).sum(1)

    def _together(self, rows: Tensor, windows: Windows) -> Tensor:
        """The sum over rows of small windows, as one list of pairs of a row and a class.

        Args:
            rows: their numbers ``[n]``, rising.
            windows: theirs.
        """
        first, width, _ = windows
        begin = width.cumsum(0) - width
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(width)  # [pairs]
        slot = torch.arange(len(row), device=rows.device) - begin[row]
        label = first[row] + slot
        states = self.states[rows]
        logits = (states.index_select(0, row) * self.vectors.index_select(0, label)).sum(1)
        logits += self.bias[label]
        # The gradients of two targets below equal edges cancel. In float32 a rest would stay, which
        # depends on what else is in the batch and which Adam takes for a gradient.
        logits = logits.double()
        if self.hidden is not None:
            logits.masked_fill_(self.hidden.at(rows[row], label), -torch.inf)
        padded = logits.new_full((len(rows), int(width.max())), -torch.inf)
        padded[row, slot] = logits
        mass = padded.logsumexp(1)
        share = (logits - mass[row]).exp()  # [pairs]
        if self.smoothing:
            spread, smoothed = self._spread(padded)
            mass -= smoothed
            share -= spread[row] * (logits > -torch.inf)
        share[begin + windows.target - first] -= self.of_target
        for_bias = torch.zeros_like(self.bias, dtype=torch.float64)
        self.for_bias += for_bias.index_add_(0, label, share).to(self.bias.dtype)
        share = share.to(states.dtype)

        self.for_states[rows] = _weighted_sums(label, self.vectors, begin, share)
        order = torch.argsort(label, stable=True)
        labels, counts = label[order].unique_consecutive(return_counts=True)
        ends = counts.cumsum(0)
        sums = _weighted_sums(row[order], states, ends - counts, share[order])
        self.for_vectors[labels] += sums
        return mass.sum().to(states.dtype)


def _in_blocks(rows: Tensor, widths: Tensor) -> list[Tensor]:
    """Rows in blocks of about :data:`MOST_PAIRS` classes.

    Args:
        rows: their numbers ``[n]``.
        widths: classes of each ``[n]``.
    """
    blocks = (widths.cumsum(0) - 1) // MOST_PAIRS
    return list(rows.split(blocks.unique_consecutive(return_counts=True)[1].tolist()))


def _weighted_sums(rows: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table; see ``embedding_bag``."""
    return embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)
