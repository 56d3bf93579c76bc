"""What the speed benchmarks measure with: CPU time by part, useful arithmetic, the speed of
matrix products, peak memory.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path

import torch


class Parts:
    """CPU seconds by named part of a program; a part inside another one is not counted in the
    outer one.

    Functions are replaced by timed ones while :meth:`installed`; what runs inside a ``closed`` part
    belongs to it.
    """

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.stack, self.since = [("rest", False)], 0.0

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self.stack[-1][0]] += now - self.since
        self.since = now

    def _timed(self, function: Callable, part: str, closed: bool) -> Callable:
        @wraps(function)
        def inner(*args, **kwargs):
            if self.stack[-1][1]:
                return function(*args, **kwargs)
            self._switch()
            self.stack.append((part, closed))
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self.stack.pop()

        return inner

    @contextmanager
    def installed(self, *places: tuple[object, str, str, bool]) -> Iterator[None]:
        """Time ``(owner, name of its function, part, closed)`` until the end of the block."""
        before = [(owner, name, vars(owner)[name]) for owner, name, *_ in places]
        for (owner, name, part, closed), (_, _, function) in zip(places, before, strict=True):
            setattr(owner, name, self._timed(function, part, closed))
        self.since = time.process_time()
        try:
            yield
        finally:
            self._switch()
            for owner, name, function in before:
                setattr(owner, name, function)

    def shares(self) -> dict[str, float]:
        """Share of each part, largest first."""
        total = sum(self.seconds.values())
        return {
            part: value / total
            for part, value in sorted(self.seconds.items(), key=lambda pair: -pair[1])
        }


def ceiling(sizes: Sequence[tuple[int, int, int]], repeats: int = 5) -> dict[str, float]:
    """GFLOP/s of float32 products ``[m, k] x [k, n]``, the best of ``repeats`` turns each: what
    a product reaches when nothing disturbs.
    """
    best: dict[str, float] = {}
    for _ in range(repeats):
        for m, k, n in sizes:
            left, right, flops = torch.randn(m, k), torch.randn(n, k), 2 * m * k * n
            torch.nn.functional.linear(left, right)
            count, started = max(2, int(1e9 / flops)), time.process_time()
            for _ in range(count):
                torch.nn.functional.linear(left, right)
            speed = count * flops / (time.process_time() - started) / 1e9
            best[f"{m}x{k}x{n}"] = max(speed, best.get(f"{m}x{k}x{n}", 0.0))
    return best


def t5_flops(
    settings: dict, tokens: torch.Tensor, steps: Sequence[tuple[int, int]], outputs: int
) -> float:
    """Floating-point operations of a T5 that no implementation of these sequences can leave out:
    no padding, no masked pairs.

    Args:
        settings: of transformers. tokens: encoder tokens of each sequence ``[B]``.
        steps: ``(queries, tokens that each one sees in self-attention)`` of each decoder step.
        outputs: width of the output layer.
    """
    d, inner, wide, layers = (
        settings["d_model"],
        settings["num_heads"] * settings["d_kv"],
        settings["d_ff"],
        settings["num_layers"],
    )
    read = tokens.double()
    encoder = read * 2 * (4 * d * inner + 2 * d * wide) + 4 * inner * read**2
    memory = read * 2 * 2 * d * inner
    total = layers * (encoder + memory)
    for queries, seen in steps:
        one = (
            layers * (2 * (6 * d * inner + 2 * d * wide) + 4 * inner * (seen + read))
            + 2 * d * outputs
        )
        total = total + queries * one
    return float(total.sum())


def causal_flops(
    settings: dict, tokens: torch.Tensor, steps: Sequence[tuple[int, int]], outputs: int
) -> float:
    """As :func:`t5_flops` for a plain pass of a decoder-only model that reads ``tokens`` ``[B]``
    and then takes ``steps``; the last token gives step 0.

    Ours leaves out some of these operations: the last layer's states of all other prompt tokens,
    and all but one copy of a beginning that prompts share.
    """
    d, layers = settings["hidden_size"], settings["num_hidden_layers"]
    feed_forward = (
        2 * d * settings["ffn_dim"]
        if "ffn_dim" in settings
        else 3 * d * settings["intermediate_size"]
    )  # OPT; Llama
    read = tokens.double()
    one = 2 * (4 * d * d + feed_forward)
    total = layers * (read * one + 4 * d * read * (read + 1) / 2) + 2 * d * outputs
    for queries, seen in steps:
        total = total + queries * (layers * (one + 4 * d * (seen + read)) + 2 * d * outputs)
    return float(total.sum())


def apart(functions: dict[Hashable, Callable[[], float]]) -> dict[Hashable, Callable[[], float]]:
    """The same functions, each call carried out by one copy of this process as it is now (before
    ``keep_freed_memory``, say).
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def serve() -> None:
        while True:
            there.send(functions[there.recv()]())

    def call(name: Hashable) -> float:
        here.send(name)
        return here.recv()

    process = context.Process(target=serve, daemon=True)
    process.start()
    there.close()  # so that the end of the copy ends the wait for its answer
    return {name: partial(call, name) for name in functions}


def peak_mib(function: Callable[[], object]) -> float:
    """MiB by which resident memory grows at most while ``function`` runs once, in a child
    process.
    """

    def child(answer) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        function()
        answer.put(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            - pages * resource.getpagesize() / 2**20
        )

    ctypes.CDLL(None).malloc_trim(
        0
    )  # else the child fills memory that the parent has freed and kept
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=child, args=(answer,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"The measurement of memory failed with exit status {process.exitcode}.")
    return answer.get()
