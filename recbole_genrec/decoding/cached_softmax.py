"""Cross-entropy over all items or codes whose logits stay in the processor's cache.

``cross_entropy(states @ vectors.T, target)`` writes a logit for each row and item to memory and
reads it back several times. Here a few rows at a time get their logits, their loss and both
gradients while the logits are still in the cache. Loss and gradients are those of torch.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

CHUNK_ROWS = 64
"""Rows whose logits are computed together (the fastest of our measurements)."""

BASE_2 = 1 / math.log(2)
"""Turns logits into those of powers of 2, which take a third of the time of powers of e."""


def cached_cross_entropy(
    states: Tensor,
    vectors: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    label_smoothing: float = 0.0,
    chunk_rows: int = CHUNK_ROWS,
) -> Tensor:
    """Mean over rows of ``-log softmax(states @ vectors.T)[target]``.

    On a GPU the kernels of Liger or cut-cross-entropy do it where they are installed, else torch.

    Args:
        states: ``[P, d]``.
        vectors: of all classes (items or codes), ``[n, d]``.
        target: class of each row, int64 ``[P]``.
        mask: bool ``[n]`` or ``[P, n]``; True = the class does not compete. A target must.
        label_smoothing: share of the probability that is spread evenly over the classes that
            compete.
        chunk_rows: rows whose logits are computed together.

    Returns:
        Scalar, float32 (float64 for float64 inputs); zero without rows.
    """
    if not len(states):
        return 0.0 * (states.sum() + vectors.sum())
    # Rounded logits would let many classes tie.
    dtype = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        if states.is_cuda:
            return _on_gpu(states, vectors, target, mask, label_smoothing)
        loss: Tensor = _CachedCrossEntropy.apply(
            states.to(dtype), vectors.to(dtype), target, mask, label_smoothing, chunk_rows
        )
        return loss


class _CachedCrossEntropy(torch.autograd.Function):
    """Sums of a chunk; classes are the rows of its logits ``[n, rows]``, the faster layout."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        vectors: Tensor,
        target: Tensor,
        mask: Tensor | None,
        label_smoothing: float,
        chunk_rows: int,
    ) -> Tensor:
        """The loss; its gradients are kept for :meth:`backward`."""
        states = states.contiguous()
        vectors = vectors.contiguous()
        n_rows = len(states)
        n_classes = len(vectors)
        sums = _Sums(states, vectors, mask, label_smoothing, any(ctx.needs_input_grad[:2]))
        chunk_rows = min(chunk_rows, n_rows)
        buffer = states.new_empty(n_classes * chunk_rows)
        for start in range(0, n_rows, chunk_rows):
            rows = slice(start, min(start + chunk_rows, n_rows))
            size = rows.stop - rows.start
            sums.add(rows, buffer[: n_classes * size].view(n_classes, size))
        sums.add_targets(target)
        ctx.save_for_backward(sums.for_states, sums.for_vectors)
        return sums.loss / n_rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients times that of the loss."""
        gradients: list[Tensor | None] = [None] * 6
        for place, saved in enumerate(ctx.saved_tensors):
            if ctx.needs_input_grad[place]:
                gradients[place] = saved * (gradient / len(ctx.saved_tensors[0]))
        return tuple(gradients)


class _Sums:
    """The loss and its gradients, summed over the chunks.

    Args:
        states: ``[P, d]``.
        vectors: ``[n, d]``.
        mask: as in :func:`cached_cross_entropy`.
        smoothing: label smoothing.
        learns: whether gradients are needed.
    """

    def __init__(
        self,
        states: Tensor,
        vectors: Tensor,
        mask: Tensor | None,
        smoothing: float,
        learns: bool,
    ) -> None:
        self.states = states
        self.vectors = vectors
        self.mask = mask
        self.smoothing = smoothing
        self.learns = learns
        self.loss = states.new_zeros(())
        self.for_states: Tensor | None = None
        self.for_vectors: Tensor | None = None
        if learns:
            self.for_states = torch.empty_like(states)
            self.for_vectors = torch.zeros_like(vectors)

    def add(self, rows: slice, logits: Tensor) -> None:
        """A chunk, without what only the targets give.

        Args:
            rows: the rows of the chunk.
            logits: memory for them, ``[n, rows]``; they are to base 2.
        """
        states = self.states[rows]
        turned = states.T * BASE_2  # [d, rows]
        torch.mm(self.vectors, turned, out=logits)
        hidden = self._hidden(rows)
        if hidden is not None:
            logits.masked_fill_(hidden, -torch.inf)

        smoothed = self._smoothed(logits, hidden)
        top = logits.amax(0)
        logits.sub_(top).exp2_()
        mass = logits.sum(0)
        self.loss += (top + mass.log2()).sum() / BASE_2
        if smoothed is not None:
            share, sum_of_logits = smoothed
            self.loss -= (share * sum_of_logits).sum() / BASE_2
        if not self.learns:
            return
        assert self.for_states is not None
        assert self.for_vectors is not None

        # Dividing the narrow sides is cheaper than dividing all logits.
        scale = 1 / mass  # [rows]
        if smoothed is not None:
            logits.mul_(scale).sub_(share)
            scale = torch.ones_like(mass)
            if hidden is not None:
                logits.masked_fill_(hidden, 0)
        out = self.for_states[rows]
        torch.mm(logits.T, self.vectors, out=out)
        out.mul_(scale.unsqueeze(1))
        self.for_vectors.addmm_(logits, states * scale.unsqueeze(1))

    def _hidden(self, rows: slice) -> Tensor | None:
        """The classes of a chunk that do not compete, ``[n, 1]`` or ``[n, rows]``."""
        if self.mask is None:
            return None
        if self.mask.dim() == 1:
            return self.mask.unsqueeze(1)
        return self.mask[rows].T

    def _smoothed(self, logits: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """The probability ``[rows]`` that smoothing gives a class, and the sum of their logits."""
        if not self.smoothing:
            return None
        count = torch.full_like(logits[0], len(logits))
        if hidden is None:
            return self.smoothing / count, logits.sum(0)
        count = count - hidden.sum(0)
        return self.smoothing / count, logits.masked_fill(hidden, 0).sum(0)

    def add_targets(self, target: Tensor) -> None:
        """What the targets give: their logits, once for all rows.

        Args:
            target: int64 ``[P]``.
        """
        share = 1 - self.smoothing
        vectors = self.vectors[target]  # [P, d]
        logits = (self.states * vectors).sum(1)
        self.loss -= share * logits.sum()
        if self.for_states is not None and self.for_vectors is not None:
            self.for_states.sub_(vectors, alpha=share)
            self.for_vectors.index_add_(0, target, self.states, alpha=-share)


# --- GPU ------------------------------------------------------------------------------------------


def _on_gpu(
    states: Tensor,
    vectors: Tensor,
    target: Tensor,
    mask: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """The same loss by a kernel that is installed, or by torch."""
    dtype = torch.promote_types(states.dtype, torch.float32)
    if mask is None:
        liger = _installed("liger_kernel.transformers")
        if liger is not None:
            # it computes logits in the type of the states
            fused = liger.LigerFusedLinearCrossEntropyLoss(label_smoothing=label_smoothing)
            return fused(vectors.to(dtype), states.to(dtype), target)
        cut = _installed("cut_cross_entropy")
        is_half = states.dtype in HALF and vectors.dtype == states.dtype  # nothing is rounded
        if cut is not None and not label_smoothing and is_half:
            return cut.linear_cross_entropy(states, vectors, target)
    return _by_torch(states.to(dtype), vectors.to(dtype), target, mask, label_smoothing)


HALF = (torch.float16, torch.bfloat16)
"""Types that the kernels of cut-cross-entropy take."""


def _by_torch(
    states: Tensor,
    vectors: Tensor,
    target: Tensor,
    mask: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    logits = states @ vectors.T
    if mask is None:
        return cross_entropy(logits, target, label_smoothing=label_smoothing)
    log_probs = logits.masked_fill(mask, -torch.inf).log_softmax(1)
    of_target = log_probs.gather(1, target.unsqueeze(1)).mean()
    if not label_smoothing:
        return -of_target
    competes = (~mask).expand_as(log_probs)
    means = log_probs.masked_fill(mask, 0).sum(1) / competes.sum(1)
    return -(1 - label_smoothing) * of_target - label_smoothing * means.mean()


def _installed(module: str) -> Any:
    """A module of an optional package, or ``None``."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
