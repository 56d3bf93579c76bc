"""Processes that a test starts: two that work together, commands that are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recbole_genrec.runtime import processes

ROOT = Path(__file__).parent.parent


def together(work: Callable, *arguments, nproc: int = 2, start_method: str = "spawn") -> None:
    """``work(*arguments)`` in joined processes; an assertion that fails in one of them fails
    here. ``start_method: fork`` takes arguments that cannot be pickled.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    member = (nproc, store.port, work, arguments)
    mp.start_processes(_member, member, nprocs=nproc, start_method=start_method)


def _member(rank: int, nproc: int, port: int, work: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "MASTER_ADDR": "localhost",
    }
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    with processes.joined(torch.device("cpu")):
        work(*arguments)
    # on a busy machine threads of torch sometimes abort the end of an interpreter
    os._exit(0)


def start(*arguments: str, module: str = "recbole_genrec.cli") -> subprocess.Popen:
    """A command in the working folder; its output is read with ``communicate``."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, **pipes)


def workers(process: subprocess.Popen) -> list[int]:
    """Process ids of the workers of a command with ``--nproc`` or of torchrun, in the order of
    their numbers.
    """
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in listed}
    return sorted(
        pid
        for pid, command in commands.items()
        if "spawn_main" in command or "run_recbole_genrec" in command
    )


def wait_until(
    happened: Callable[[], bool], process: subprocess.Popen, seconds: float = 300
) -> None:
    """Wait for an event in the work of ``process``."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
