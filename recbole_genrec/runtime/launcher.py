"""``--nproc=2``: RecBole's launcher (``torch.multiprocessing.spawn``), which here also watches its processes.

The processes find each other like those of torchrun, through the same environment variables; from there on the two ways are one
(:mod:`recbole_genrec.runtime.processes`). Several machines: the same command on each, with ``--world_size``, ``--group_offset``, ``--ip``
and ``--port``, and ``data_path`` and ``checkpoint_dir`` on a disk that they share.
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

GRACE_SECONDS = 5  # for the others to end by themselves once one has failed, then after SIGTERM


def launches(config) -> bool:
    """Whether a run with these settings wants several processes."""
    return max(config["nproc"], config["world_size"]) > 1


def launch(config, run: Callable[..., dict], arguments: dict) -> dict:
    """The result of ``run(**arguments)``, carried out by ``nproc`` processes.

    Args:
        config: a ``GenRecConfig``; reads ``nproc``, ``world_size``, ``group_offset``, ``ip`` and ``port``.
        run: a function at the top of a module, which each process imports.
        arguments: what it is called with.

    Raises:
        GenRecError: the error of the process that failed first.
        ProcessError: a process was killed, or failed for an unknown reason.
    """
    nproc = config["nproc"]
    world_size = max(config["world_size"], nproc)
    if config["group_offset"] + nproc > world_size:
        raise errors.ConfigError(
            f"group_offset {config['group_offset']} and nproc {nproc} give processes beyond world_size {world_size}: "
            "world_size counts the processes of all machines."
        )
    reports = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(nproc)}
    if world_size == nproc:  # they meet in the store that is here already
        environment |= {
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(reports.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
    else:
        environment |= {
            "MASTER_ADDR": config["ip"],
            "MASTER_PORT": str(config["port"]),
            "TORCHELASTIC_USE_AGENT_STORE": "False",
        }
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # each process would warn that find_unused_parameters costs time
    given = (config["group_offset"], reports.port, environment, run, arguments)
    _watch(mp.spawn(run_recboles, given, nprocs=nproc, join=False).processes, reports)
    if not reports.check(["result"]):
        raise errors.ProcessError("The processes were interrupted before they had a result.")
    return json.loads(reports.get("result"))


def run_recboles(
    local_rank: int,
    offset: int,
    report_port: int,
    environment: dict[str, str],
    run: Callable[..., dict],
    arguments: dict,
) -> None:
    """One of the processes (RecBole's name); its result, or the first error among the processes, goes to the store of the launcher."""
    from recbole_genrec.runtime.memory import keep_freed_memory
    from recbole_genrec.runtime.recbole_repairs import quiet_pandas_warnings

    reports = dist.TCPStore("localhost", report_port, is_master=False)
    os.environ.update(environment, LOCAL_RANK=str(local_rank), RANK=str(offset + local_rank))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(environment["LOCAL_WORLD_SIZE"])))
    keep_freed_memory()
    quiet_pandas_warnings()
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
    """Wait until all processes have done their work; as soon as one has failed, end the others and raise its error."""
    try:
        while (running := [p for p in processes if p.exitcode is None]) and not any(
            p.exitcode for p in processes
        ):
            wait([p.sentinel for p in running])
        codes = [p.exitcode for p in processes]
    except Interrupted as asked:
        announce(asked.status - 128)
        for process in processes:
            process.terminate()  # they save and end together; a second signal ends this waiting
        for process in processes:
            process.join()
        raise
    finally:
        _end(processes)
    if not any(codes):
        return
    killed = [(number, -code) for number, code in enumerate(codes) if code is not None and code < 0]
    if killed:  # the others fail too, because they lose it
        number, signum = killed[0]
        name = _signal_name(signum)
        memory = " The system does so when memory runs out." if name == "SIGKILL" else ""
        raise errors.ProcessError(
            f"Process {number} of {len(processes)} was killed ({name}).{memory} The others were ended. "
            "Nothing is lost up to the last finished epoch: the same command with --resume continues."
        )
    if reports.check(["error"]):
        name, text = json.loads(reports.get("error"))
        raise getattr(errors, name)(text)
    number = next(number for number, code in enumerate(codes) if code)
    if codes[number] > 128:
        raise Interrupted(codes[number] - 128)
    raise errors.ProcessError(
        f"Process {number} of {len(processes)} ended with status {codes[number]} and without a message."
    )


def _end(processes: list) -> None:
    """Let the processes that still run end, then ask them to, then kill them."""
    for urge in (None, "terminate", "kill"):
        for process in processes:
            if urge and process.exitcode is None:
                getattr(process, urge)()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
