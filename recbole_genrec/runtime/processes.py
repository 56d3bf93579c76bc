"""Several processes train one model: who am I, what is my part, and how parts become whole again.

The processes compute what one process would, up to float error:

* ``train_batch_size`` counts the rows of all processes together. Every process draws the same batches from the same seed and takes its
  part of each (:func:`own_part`), so each row is seen once an epoch, in the order of one process.
* A loss is a mean over rows or tokens, of which the parts hold different numbers: :func:`balanced` weighs them, and the mean of the
  gradients over the processes is then the gradient of the whole batch.
* In an evaluation each process takes a block of the users (:func:`own_block`) and :func:`gathered` puts the blocks together: every user
  counts once, and all processes see the same metrics.
* Randomness of the data (numpy, Python) is common to all; that of torch (dropout) is a process's own (:func:`own_stream`).

In a single process, and inside :func:`first_process_first`, every function here leaves its argument as it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_genrec.errors import ConfigError, ProcessError
from recbole_genrec.storage.digests import digest

PATIENCE = timedelta(days=2)  # how long process 0 may take to fit a tokenizer or refresh the codes
POLL_SECONDS = 0.1


class _Group:
    """The processes that this one has joined."""

    meeting: dist.Store | None = None  # where they find each other, once in the life of the process
    store: dist.Store | None = None  # of the present block ``joined``
    alone = False  # inside first_process_first
    joins = turns = 0


def started_with_others() -> bool:
    """Whether torchrun, or our launcher in the same way, has started this process as one of several."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() and int(
        os.environ["WORLD_SIZE"]
    ) > 1


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Be one of the processes that were started together, for the time of the block.

    Args:
        device: where the run computes; a GPU needs nccl beside gloo.
    """
    if not started_with_others() or _Group.store is not None:
        yield
        return
    if _Group.meeting is None:
        _Group.meeting, *_ = next(dist.rendezvous("env://"))
    _Group.joins += 1
    store = dist.PrefixStore(f"run {_Group.joins}", _Group.meeting)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=dist.PrefixStore("group", store), rank=rank, world_size=world_size
    )
    _Group.store = dist.PrefixStore("turns", store)
    yield
    _Group.store = None  # after an error the process ends, and waiting for the others could hang
    dist.destroy_process_group()


def size() -> int:
    """Number of processes that share the present work."""
    return 1 if _Group.alone or _Group.store is None else dist.get_world_size()


def rank() -> int:
    """Number of this process; 0 writes files, logs and the result."""
    return 0 if size() == 1 else dist.get_rank()


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process, or the CPU.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if size() == 1 or device.type != "cuda":
        return device
    number = int(os.environ["LOCAL_RANK"])
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"Process {number} has no GPU of its own: {torch.cuda.device_count()} can be seen. List one a process, for example "
            "--gpu_id=0,1 with --nproc=2, or use the CPU with --gpu_id=''."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """Process 0 runs the block by itself; the others run it when it is done, and find its files. For ``what`` stands in messages.

    Raises:
        ProcessError: in the others, when process 0 has failed, is gone, or takes longer than :data:`PATIENCE`.
    """
    if size() == 1:
        yield
        return
    _Group.turns += 1
    key, me = f"turn {_Group.turns}", rank()
    if me > 0:
        _wait(key, what)
    _Group.alone = True
    try:
        yield
    except BaseException as error:
        if me == 0:
            _Group.store.set(key, f"{type(error).__name__}: {error}")
        raise
    finally:
        _Group.alone = False
    if me == 0:
        _Group.store.set(key, "done")


def _wait(key: str, what: str) -> None:
    deadline = time.monotonic() + PATIENCE.total_seconds()
    try:
        while not _Group.store.check([key]):
            if time.monotonic() > deadline:
                raise ProcessError(f"Process 0 has not finished {what} within {PATIENCE}.")
            time.sleep(POLL_SECONDS)
        answer = _Group.store.get(key).decode()
    except RuntimeError as error:  # of torch: the connection is closed
        raise ProcessError(
            f"Process {rank()} lost the others while it waited for process 0 ({what})."
        ) from error
    if answer != "done":
        raise ProcessError(f"Process 0 failed while it was {what}: {answer}")


# --- training ---------------------------------------------------------------------------------------------------------------------------


def own_part(rows):
    """This process's rows of a batch that all processes know: every ``size()``-th one, so that rows sorted by length are shared evenly.

    Where a batch has fewer rows than there are processes each takes them all; :func:`balanced` then gives each an equal weight.

    Args:
        rows: a tensor, or an ``Interaction``, with the rows first.
    """
    n = size()
    return rows if n == 1 or len(rows) < n else rows[torch.arange(rank(), len(rows), n)]


def balanced(loss: Tensor, count: int) -> Tensor:
    """A mean over ``count`` terms of this process's part, weighted so that its mean over the processes is that over all their terms.

    ``loss * count * P / (sum of the counts)`` with P processes. Every mean of a loss that a method computes goes through here.
    """
    if size() == 1:
        return loss
    total = torch.tensor(float(count), device=loss.device)
    dist.all_reduce(total)
    return loss * (count * size() / total)


def from_first(tensor: Tensor) -> Tensor:
    """Random draws that all processes must share: those of process 0."""
    if size() > 1:
        tensor = tensor.contiguous()
        dist.broadcast(tensor, 0)
    return tensor


def own_stream(seed: int, saved: Tensor | None = None) -> None:
    """Give every process but the first a torch stream (dropout) of its own.

    Args:
        saved: from :func:`streams`; it continues if it is that of as many processes, else a new one starts.
    """
    if rank() == 0:
        return
    if saved is None or len(saved) != size():
        torch.manual_seed(int(digest(seed, rank()), 16))
        return
    cpu = len(torch.get_rng_state())
    torch.set_rng_state(
        saved[rank(), :cpu].clone()
    )  # torch 2.13 crashes on a view that does not begin its storage
    if saved.shape[1] > cpu:
        torch.cuda.set_rng_state(saved[rank(), cpu:].clone())


def streams() -> Tensor:
    """States of torch's generators in all processes, uint8 ``[size(), bytes]``: the CPU's, then that of the process's own GPU."""
    own = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        own.append(torch.cuda.get_rng_state())
    return gathered(torch.cat(own).unsqueeze(0))


# --- numbers and rows of all processes ----------------------------------------------------------------------------------------------------


def summed(values: Sequence[float]) -> list[float]:
    """Sums over the processes, number by number; also waits for all of them."""
    if size() == 1:
        return list(values)
    total = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def mean(values: Sequence[float]) -> list[float]:
    """Means over the processes, number by number."""
    return [value / size() for value in summed(values)]


def largest(values: Sequence[float]) -> list[float]:
    """Maxima over the processes, number by number."""
    if size() == 1:
        return list(values)
    found = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    summed([0.0])


def own_block(n: int) -> range:
    """This process's share of n users to evaluate: consecutive, and as many as the others have, up to one.

    Raises:
        ConfigError: a process would have none.
    """
    if n < size():
        raise ConfigError(
            f"{n} users cannot be evaluated by {size()} processes; use --nproc={n} or fewer."
        )
    return range(rank() * n // size(), (rank() + 1) * n // size())


def gathered(rows: Tensor) -> Tensor:
    """The rows ``[n_p, ...]`` (on the CPU) of all processes, ``[sum of n_p, ...]``, in the order of the processes."""
    if size() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    dist.all_gather(counts, torch.tensor([len(rows)]))
    padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
