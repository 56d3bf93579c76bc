"""Time of a cross-entropy over all items with both its gradients: the softmax in cache against
torch's on the whole matrix of logits.

The inputs are those of a training step of amazon-beauty. Both ways take turns; loss and gradients
are compared before. Memory that is freed goes back to the system, as torch comes, or is kept, as in
our commands; what is given back costs page faults each time.

    OMP_NUM_THREADS=1 python benchmarks/softmax.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from common import arguments, medians, spread, write_result
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.decoding.cached_softmax import cached_cross_entropy
from recbole_genrec.runtime.memory import keep_freed_memory

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
USUAL = "torch, whole matrix"


def whole(states: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
    """Torch's loss."""
    return cross_entropy(states @ vectors.T, target)


def in_cache(chunk_rows: int) -> Loss:
    """Ours, with so many rows a chunk."""

    def loss(states: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
        return cached_cross_entropy(states, vectors, target, chunk_rows=chunk_rows)

    return loss


def gradients(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Loss, and its gradients for states and vectors."""
    states, vectors, target = inputs
    value = loss(states, vectors, target)
    return [value.detach(), *torch.autograd.grad(value, [states, vectors])]


def timed(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> Callable[[], float]:
    """CPU seconds of a loss and its gradients."""

    def run() -> float:
        started = time.process_time()
        gradients(loss, inputs)
        return time.process_time() - started

    return run


def main() -> None:
    options = arguments(__doc__, items=12101, width=64, rows=1000, repeats=5)
    torch.manual_seed(0)
    states = torch.randn(options.rows, options.width, requires_grad=True)
    vectors = (0.1 * torch.randn(options.items, options.width)).requires_grad_()
    inputs = states, vectors, torch.randint(options.items, (options.rows,))

    ways = {USUAL: whole}
    ways |= {f"in cache, {rows} rows a chunk": in_cache(rows) for rows in (32, 64, 128)}
    exact = gradients(whole, inputs)
    gap = 0.0
    for loss in ways.values():
        for mine, theirs in zip(gradients(loss, inputs), exact, strict=True):
            difference = (mine - theirs).abs().max() / theirs.abs().max()
            gap = max(gap, difference.item())
    if gap > 1e-6:
        raise SystemExit(f"Loss or gradients disagree by {gap:.1e}, so the ratios mean nothing.")

    conditions: dict[str, dict[str, list[float]]] = {}
    rows = []
    for memory in ("as torch comes", "kept"):
        if memory == "kept":
            keep_freed_memory()
        seconds = medians(options.repeats, *(timed(loss, inputs) for loss in ways.values()))
        times = dict(zip(ways, seconds, strict=True))
        conditions[memory] = times
        usual = statistics.median(times[USUAL])
        for name, values in times.items():
            rows.append([memory, name, spread(values), usual / statistics.median(values)])
    notes = (
        f"{options.items:,} items, width {options.width}, {options.rows:,} rows: loss and "
        "gradients of states and item vectors, float32. CPU seconds, median (range) of "
        f"{options.repeats} turns. Largest difference from torch's, relative to the largest "
        f"entry: {gap:.1e}."
    )
    result = {
        "items": options.items,
        "width": options.width,
        "rows": options.rows,
        "largest_difference": gap,
        "cpu_seconds": conditions,
    }
    header = ["freed memory", "cross-entropy", "CPU seconds", "torch = 1"]
    write_result("softmax", "Cross-entropy over all items", result, header, rows, notes)


if __name__ == "__main__":
    main()
