"""Cross-entropy among the children of nodes, without a copy of their vectors.

The children of a node stand side by side in the table of edges. Targets with one parent are so one
small product with a part of the table, whose logits and both gradients stay in the processor's
cache, as in :mod:`.cached_softmax`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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


def window_cross_entropy(states: Tensor, vectors: Tensor, bias: Tensor, windows: Windows) -> Tensor:
    """Sum over rows of the cross-entropy among the classes of their windows.

    Args:
        states: ``[R, d]``.
        vectors: of all classes ``[n, d]``.
        bias: of all classes ``[n]``.
        windows: two windows are the same or have no class in common.

    Returns:
        Scalar, float32 (float64 for float64 inputs).
    """
    # Rounded logits would let many classes tie.
    dtype = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        loss: Tensor = _WindowCrossEntropy.apply(
            states.to(dtype), vectors.to(dtype), bias.to(dtype), windows
        )
        return loss


class _WindowCrossEntropy(torch.autograd.Function):
    """One window after another, with the gradients in the same pass."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, vectors: Tensor, bias: Tensor, windows: Windows
    ) -> Tensor:
        """The loss; its gradients are kept for :meth:`backward`."""
        order = torch.argsort(windows.first, stable=True)
        first, target = windows.first[order], windows.target[order]
        sorted_states = states[order]
        starts, sizes = first.unique_consecutive(return_counts=True)
        widths = windows.width[order][sizes.cumsum(0) - 1]

        for_states = torch.empty_like(sorted_states)
        for_vectors = torch.zeros_like(vectors)
        for_bias = torch.zeros_like(bias)
        loss = -_target_logits(sorted_states, vectors, bias, target).sum()
        row = 0
        for start, size, width in zip(
            starts.tolist(), sizes.tolist(), widths.tolist(), strict=True
        ):
            rows = sorted_states[row : row + size]
            window = vectors[start : start + width]
            logits = torch.addmm(bias[start : start + width], rows, window.T)  # [size, width]
            mass = logits.logsumexp(1, keepdim=True)
            loss += mass.sum()
            share = logits.sub_(mass).exp_()
            torch.mm(share, window, out=for_states[row : row + size])
            torch.mm(share.T, rows, out=for_vectors[start : start + width])
            torch.sum(share, 0, out=for_bias[start : start + width])
            row += size

        for_states -= vectors[target]
        for_vectors.index_add_(0, target, sorted_states, alpha=-1)
        for_bias.index_add_(0, target, torch.ones_like(sorted_states[:, 0]), alpha=-1)
        unsorted = torch.empty_like(for_states)
        unsorted[order] = for_states
        ctx.save_for_backward(unsorted, for_vectors, for_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients times that of the loss."""
        gradients: list[Tensor | None] = [None] * 4
        for place, saved in enumerate(ctx.saved_tensors):
            if ctx.needs_input_grad[place]:
                gradients[place] = saved * gradient
        return tuple(gradients)


def _target_logits(states: Tensor, vectors: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    return (states * vectors[target]).sum(1) + bias[target]  # [R]
