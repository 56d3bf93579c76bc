"""``--nproc=2``: RecBole's launcher (``torch.multiprocessing.spawn``), which also watches here.

The processes find each other like those of torchrun, through the same environment variables; from
there on the two ways are one (:mod:`recbole_genrec.runtime.processes`). Several machines: the same
command on each, with ``--world_size``, ``--group_offset``, ``--ip`` and ``--port``, and
``data_path`` and ``checkpoint_dir`` on a disk that they share.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recbole_genrec import errors
from recbole_genrec.runtime.interrupts import Interrupted, announce, handled_signals

GRACE_SECONDS = 5
"""How long the others may take to end by themselves once one has failed, then after SIGTERM."""


def launches(config) -> bool:
    """Whether a run with these settings wants several processes.

    Args:
        config: a ``GenRecConfig``; reads ``nproc`` and ``world_size``.
    """
    return max(config.settings.nproc, config.settings.world_size) > 1


def launch(config, run: Callable[..., dict], arguments: dict) -> dict:
    """The result of ``run(**arguments)``, carried out by ``nproc`` processes.

    Args:
        config: a ``GenRecConfig``; reads ``nproc``, ``world_size``, ``group_offset``, ``ip`` and
            ``port``.
        run: a function at the top of a module, which each process imports.
        arguments: what it is called with.

    Returns:
        What ``run`` returned in the first process of this machine.

    Raises:
        GenRecError: the error of the process that failed first.
        ProcessError: a process was killed, or failed for an unknown reason.
    """
    nproc = config.settings.nproc
    reports = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = _environment(config, reports.port)

    # Without it each process would warn that find_unused_parameters costs time.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    job = (config.settings.group_offset, reports.port, environment, run, arguments)
    _watch(mp.spawn(run_recboles, job, nprocs=nproc, join=False).processes, reports)
    if not reports.check(["result"]):
        raise errors.ProcessError("The processes were interrupted before they had a result.")
    return json.loads(reports.get("result"))


def _environment(config, report_port: int) -> dict[str, str]:
    """Environment variables by which the processes of all machines find each other."""
    nproc = config.settings.nproc
    world_size = max(config.settings.world_size, nproc)
    if config.settings.group_offset + nproc > world_size:
        raise errors.ConfigError(
            f"group_offset {config.settings.group_offset} and nproc {nproc} give processes beyond "
            f"world_size {world_size}: world_size counts the processes of all machines."
        )

    environment = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(nproc)}
    if world_size == nproc:  # they meet in the store that is here already
        return {
            **environment,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(report_port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
    return {
        **environment,
        "MASTER_ADDR": config.settings.ip,
        "MASTER_PORT": str(config.settings.port),
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }


def run_recboles(
    local_rank: int,
    offset: int,
    report_port: int,
    environment: dict[str, str],
    run: Callable[..., dict],
    arguments: dict,
) -> None:
    """Body of one process (RecBole's name for it).

    Its result, or the first error among the processes, goes to the store of the launcher.

    Args:
        local_rank: number of the process on this machine.
        offset: number of processes on the machines before this one.
        report_port: port of the launcher's store.
        environment: variables that all processes share.
        run: the function to carry out.
        arguments: what it is called with.
    """
    from recbole_genrec.runtime.memory import keep_freed_memory

    reports = dist.TCPStore("localhost", report_port, is_master=False)
    os.environ.update(environment, LOCAL_RANK=str(local_rank), RANK=str(offset + local_rank))
    if "OMP_NUM_THREADS" not in os.environ:
        cores = os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(environment["LOCAL_WORLD_SIZE"])))
    keep_freed_memory()
    try:
        with handled_signals(watched=True):
            result = run(**arguments)
    except Interrupted as error:
        sys.exit(error.status)
    except errors.GenRecError as error:
        reports.compare_set("error", "", json.dumps([type(error).__name__, str(error)]))
        sys.exit(1)
    except Exception:
        text = f"Process {os.environ['RANK']} failed:\n{traceback.format_exc()}"
        reports.compare_set("error", "", json.dumps(["ProcessError", text]))
        sys.exit(1)
    if local_rank == 0:
        reports.set("result", json.dumps(result, default=str))


def _watch(processes: list, reports: dist.TCPStore) -> None:
    """Wait until all processes have done their work.

    As soon as one has failed, end the others and raise its error.
    """
    try:
        codes = _exit_codes(processes)
    except Interrupted as interrupted:
        announce(interrupted.status - 128)
        # They save and end together; a second signal ends this waiting.
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise
    finally:
        _end(processes)
    if any(codes):
        _raise_failure(codes, reports)


def _exit_codes(processes: list) -> list[int | None]:
    """Exit codes once all processes have ended, or once one has failed."""
    while True:
        codes = [process.exitcode for process in processes]
        pairs = zip(processes, codes, strict=True)
        running = [process.sentinel for process, code in pairs if code is None]
        if not running or any(codes):
            return codes
        wait(running)


def _raise_failure(codes: list[int | None], reports: dist.TCPStore) -> None:
    """Raise the error of the process that failed first."""
    # A killed process comes first: the others fail too, because they lose it.
    for number, code in enumerate(codes):
        if code is None or code >= 0:
            continue
        name = _signal_name(-code)
        memory = " The system does so when memory runs out." if name == "SIGKILL" else ""
        raise errors.ProcessError(
            f"Process {number} of {len(codes)} was killed ({name}).{memory} The others were "
            "ended. Nothing is lost up to the last finished epoch: the same command with "
            "--resume continues."
        )

    if reports.check(["error"]):
        name, text = json.loads(reports.get("error"))
        raise getattr(errors, name)(text)

    number, code = next((number, code) for number, code in enumerate(codes) if code)
    if code > 128:
        raise Interrupted(code - 128)
    raise errors.ProcessError(
        f"Process {number} of {len(codes)} ended with status {code} and without a message."
    )


def _end(processes: list) -> None:
    """Let the processes that still run end, then ask them to, then kill them."""
    for method in (None, "terminate", "kill"):
        for process in processes:
            if method and process.exitcode is None:
                getattr(process, method)()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
