"""Several processes train one model: which one is this, and what is its part of the work.

The processes compute what one process would, up to float error:

* ``train_batch_size`` counts the rows of all processes together. Every process draws the same
  batches from the same seed and takes its part of each (:func:`own_part`), so each row is seen
  once an epoch, in the order of one process.
* A loss is a mean over rows or tokens, of which the parts hold different numbers.
  :func:`balanced` weighs them, and the mean of the gradients over the processes is then the
  gradient of the complete batch.
* In an evaluation each process takes a block of the users (:func:`own_block`) and
  :func:`gathered` puts the blocks together: every user counts once, and all processes see the
  same metrics.
* Randomness of the data (numpy, Python) is common to all processes; that of torch (dropout)
  differs between them (:func:`own_stream`).

With ``local_steps`` each process computes on batches of its own (:func:`apart`), and what they have
learned is averaged now and then (:mod:`recbole_genrec.training.local_steps`).

In a single process, and inside :func:`first_process_first` and :func:`apart`, every function here
leaves its argument as it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_genrec.errors import ConfigError, ProcessError
from recbole_genrec.storage.digests import digest

PATIENCE = timedelta(days=2)
"""How long process 0 may take to fit a tokenizer or to refresh the codes."""

POLL_SECONDS = 0.1


class ProcessSettings(Protocol):
    """The keys of a run that say how many processes it has."""

    nproc: int
    world_size: int


class _Group:
    """The processes that this one has joined."""

    meeting: dist.Store | None = None  # where they find each other, once in a process's life
    store: dist.Store | None = None  # of the present block ``joined``
    alone = False  # inside first_process_first
    joins = 0
    turns = 0


def started_with_others() -> bool:
    """Whether torchrun, or our launcher in the same way, started this process as one of several."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys():
        return False
    return int(os.environ["WORLD_SIZE"]) > 1


def is_first_started() -> bool:
    """Whether this process is the first of those started together, also before they have joined."""
    return not started_with_others() or os.environ["RANK"] == "0"


def planned_size(settings: ProcessSettings) -> int:
    """Number of processes of a run, also before they are started.

    Args:
        settings: of the run.
    """
    if started_with_others():
        return int(os.environ["WORLD_SIZE"])
    return max(settings.nproc, settings.world_size, 1)


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
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    _Group.store = dist.PrefixStore("turns", store)

    # Not after an error: this process then ends, and waiting for the others could hang.
    yield
    _Group.store = None
    dist.destroy_process_group()


def size() -> int:
    """Number of processes that share the present work."""
    if _Group.alone or _Group.store is None:
        return 1
    return dist.get_world_size()


def rank() -> int:
    """Number of this process; process 0 writes files, logs and the result."""
    return 0 if size() == 1 else dist.get_rank()


def own_device(device: torch.device) -> torch.device:
    """The device of this process.

    Args:
        device: where the run computes.

    Returns:
        The GPU of this process, or the CPU.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if size() == 1 or device.type != "cuda":
        return device
    number = int(os.environ["LOCAL_RANK"])
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"Process {number} has no GPU of its own: {torch.cuda.device_count()} can be seen. "
            "List one a process, for example --gpu_id=0,1 with --nproc=2, or use the CPU with "
            "--gpu_id=''."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextlib.contextmanager
def first_process_first(task: str) -> Iterator[None]:
    """Process 0 runs the block alone; then the others run it, and find the files of process 0.

    Args:
        task: what the block does, for messages ("fitting the tokenizer").

    Raises:
        ProcessError: in the others, when process 0 has failed, is gone, or takes longer than
            :data:`PATIENCE`.
    """
    store = _Group.store
    if size() == 1 or store is None:
        yield
        return

    _Group.turns += 1
    key = f"turn {_Group.turns}"
    first = rank() == 0
    if not first:
        _wait(store, key, task)
    _Group.alone = True
    try:
        yield
    except BaseException as error:
        if first:
            store.set(key, f"{type(error).__name__}: {error}")
        raise
    finally:
        _Group.alone = False
    if first:
        store.set(key, "done")


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """The block computes on this process's part alone; nothing in it meets the others."""
    before = _Group.alone
    _Group.alone = True
    try:
        yield
    finally:
        _Group.alone = before


def _wait(store: dist.Store, key: str, task: str) -> None:
    """Wait until process 0 has set ``key``."""
    deadline = time.monotonic() + PATIENCE.total_seconds()
    try:
        while not store.check([key]):
            if time.monotonic() > deadline:
                raise ProcessError(f"Process 0 has not finished {task} within {PATIENCE}.")
            time.sleep(POLL_SECONDS)
        answer = store.get(key).decode()
    except RuntimeError as error:  # of torch: the connection is closed
        raise ProcessError(
            f"Process {rank()} lost the others while it waited for process 0 ({task})."
        ) from error
    if answer != "done":
        raise ProcessError(f"Process 0 failed while it was {task}: {answer}")


# --- training -------------------------------------------------------------------------------------


def own_part(rows):
    """This process's rows of a batch that all processes know.

    It takes every ``size()``-th row, so that rows sorted by length are shared evenly. Where a
    batch has fewer rows than there are processes, each process takes them all; :func:`balanced`
    then gives each an equal weight.

    Args:
        rows: a tensor, or an ``Interaction``, with the rows first.

    Returns:
        The same type with fewer rows.
    """
    count = size()
    if count == 1 or len(rows) < count:
        return rows
    return rows[torch.arange(rank(), len(rows), count)]


def balanced(loss: Tensor, count: int) -> Tensor:
    """Weigh a mean over the terms of this process's part.

    The mean of the results over the processes is the mean over all terms of all processes. Every
    mean of a loss that a method computes goes through here.

    Args:
        loss: the mean over this process's terms, scalar.
        count: the number of its terms.

    Returns:
        ``loss * count * P / (sum of the counts)`` with P processes.
    """
    if size() == 1:
        return loss
    total = torch.tensor(float(count), device=loss.device)
    dist.all_reduce(total)
    return loss * (count * size() / total)


def from_first(tensor: Tensor) -> Tensor:
    """Random draws that all processes must share: those of process 0.

    Args:
        tensor: the draws of this process.

    Returns:
        The draws of process 0.
    """
    if size() > 1:
        tensor = tensor.contiguous()
        dist.broadcast(tensor, 0)
    return tensor


def own_stream(seed: int, saved: Tensor | None = None) -> None:
    """Give every process but the first a torch stream (dropout) of its own.

    Args:
        seed: of the run; each process derives its stream from it.
        saved: from :func:`streams`. It continues when it is that of as many processes, else a new
            stream starts.
    """
    if rank() == 0:
        return
    if saved is None or len(saved) != size():
        torch.manual_seed(int(digest(seed, rank()), 16))
        return

    cpu = len(torch.get_rng_state())
    # torch 2.13 crashes on a view that does not begin its storage
    torch.set_rng_state(saved[rank(), :cpu].clone())
    if saved.shape[1] > cpu:
        torch.cuda.set_rng_state(saved[rank(), cpu:].clone())


def streams() -> Tensor:
    """States of torch's generators in all processes.

    Returns:
        uint8 ``[size(), bytes]``: the CPU's state, then that of the process's own GPU.
    """
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return gathered(torch.cat(states).unsqueeze(0))


# --- numbers and rows of all processes ------------------------------------------------------------


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
    maxima = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return maxima.tolist()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    summed([0.0])


def own_block(n_users: int) -> range:
    """This process's share of the users to evaluate.

    Args:
        n_users: number of users of all processes.

    Returns:
        Consecutive users, as many as the other processes have, up to one.

    Raises:
        ConfigError: a process would have no users.
    """
    if n_users < size():
        raise ConfigError(
            f"{n_users} users cannot be evaluated by {size()} processes; "
            f"use --nproc={n_users} or fewer."
        )
    return range(rank() * n_users // size(), (rank() + 1) * n_users // size())


def gathered(rows: Tensor) -> Tensor:
    """Put the rows of all processes together.

    Args:
        rows: those of this process, ``[n_p, ...]`` on the CPU.

    Returns:
        ``[sum of n_p, ...]``, in the order of the processes.
    """
    if size() == 1:
        return rows
    counts = exchanged(torch.tensor([len(rows)]))
    padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])  # [max of n_p, ...]
    padded[: len(rows)] = rows
    blocks = exchanged(padded)
    filled = [block[: int(count)] for block, count in zip(blocks, counts, strict=True)]
    return torch.cat(filled)


def exchanged(block: Tensor) -> list[Tensor]:
    """The blocks of all processes.

    Args:
        block: that of this process, ``[...]`` on the CPU; all processes have the same shape.

    Returns:
        One ``[...]`` for each process, in their order.
    """
    if size() == 1:
        return [block]
    blocks = [torch.empty_like(block) for _ in range(size())]
    dist.all_gather(blocks, block)
    return blocks
