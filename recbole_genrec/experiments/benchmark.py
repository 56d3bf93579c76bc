"""Many runs, each in a process of its own, resumable, collected into one leaderboard."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm.auto import tqdm

from recbole_genrec.experiments.benchmark_plan import Benchmark, PlannedRun
from recbole_genrec.report.runs import STATE, Run, state_row
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import held_alone

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
POLL_SECONDS = 0.1


def run_benchmark(benchmark: Benchmark, report: Callable[[str], None] = tqdm.write) -> int:
    """Carry out the runs that are not done yet.

    Each run is a process; its output goes to a log file. An interrupted benchmark continues with
    the same call: finished runs are kept, the others resume at their last epoch. ``runs.json`` in
    the output folder holds the state.

    Args:
        benchmark: the runs.
        report: what shows a failure.

    Returns:
        How many runs failed.

    Raises:
        HeldError: another process carries out a benchmark in the same folder.
    """
    state = benchmark.output / STATE
    refusal = (
        f"Another process carries out a benchmark in {benchmark.output}: it writes {state}. Wait "
        "until it has ended or stop it, or name another --output."
    )
    with held_alone(state, refusal, report), _ending_on_signals():
        schedule = Schedule(benchmark, report)
        try:
            schedule.carry_out()
        finally:
            schedule.stop()
    return len(schedule.errors)


class Schedule:
    """The runs of a benchmark on their way from waiting to done or failed.

    Args:
        benchmark: the runs.
        report: what shows a failure.

    Attributes:
        status: ``done``, ``failed`` or ``pending``, by run.
        errors: why a run failed.
        waiting: runs that are still to be started.
        running: processes, and where in the log file their output begins.
    """

    def __init__(self, benchmark: Benchmark, report: Callable[[str], None]) -> None:
        self.benchmark = benchmark
        self.report = report
        self.environment = _environment(benchmark.threads)
        self.status: dict[PlannedRun, str] = {}
        self.errors: dict[PlannedRun, str] = {}
        self.waiting: deque[PlannedRun] = deque()
        self.running: dict[PlannedRun, tuple[subprocess.Popen[bytes], int]] = {}
        for run in benchmark.runs:
            done = benchmark.is_done(run)
            self.status[run] = "done" if done else "pending"
            if not done and run.name in benchmark.only:
                self.waiting.append(run)
        self._write_state()
        finished = list(self.status.values()).count("done")
        total = finished + len(self.waiting)
        self.bar = tqdm(total=total, initial=finished, desc="runs", unit="run")

    def carry_out(self) -> None:
        """Start and watch processes until no run is left."""
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.benchmark.processes:
                self._start_next()
            for run, (process, offset) in list(self.running.items()):
                if process.poll() is not None:
                    self._finish(run, process.returncode, offset)
            time.sleep(POLL_SECONDS)

    def _start_next(self) -> None:
        run = self.waiting.popleft()
        self.running[run] = _start(self.benchmark, run, self.environment)
        self.bar.set_postfix_str(", ".join(run.id for run in self.running))

    def _finish(self, run: PlannedRun, returncode: int, offset: int) -> None:
        """Note how the process of a run ended."""
        del self.running[run]
        if returncode == 0 and self.benchmark.is_done(run):
            self.status[run] = "done"
            self.benchmark.resume_file(run).unlink(missing_ok=True)
        else:
            log = self.benchmark.log(run)
            self.status[run] = "failed"
            self.errors[run] = last_error(log, offset, returncode)
            self.report(f"FAILED {run.id}: {self.errors[run]} (log: {log})")
        self._write_state()
        self.bar.update()

    def _write_state(self) -> None:
        """Write ``runs.json``: which runs there are, how each stands, and where its files are."""
        benchmark = self.benchmark
        rows = []
        for run in benchmark.runs:
            result = str(benchmark.result(run).relative_to(benchmark.output))
            about = run.name, run.dataset, run.seed, run.model, run.tokenizer
            row = state_row(Run(*about, self.status[run], self.errors.get(run)), result)
            row["log"] = str(benchmark.log(run).relative_to(benchmark.output))
            rows.append(row)
        state = {"baseline": benchmark.baseline, "threads": benchmark.threads, "runs": rows}
        write_json(benchmark.output / STATE, state)

    def stop(self) -> None:
        """End what still runs; it saves what it has."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.wait()
        self.bar.close()


def _environment(threads: int) -> dict[str, str]:
    """Variables of the runs: their threads, and where this package is."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    folders = [str(Path(__file__).resolve().parents[2])]
    if environment.get("PYTHONPATH"):
        folders.append(environment["PYTHONPATH"])
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    return environment


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Leave the block on SIGTERM and SIGHUP, so that the runs are ended too."""
    # nohup ignores SIGHUP; Windows does not have it.
    numbers = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, _exit) for number in heeded}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _start(
    benchmark: Benchmark, run: PlannedRun, environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a run.

    Returns:
        Its process, and where in the log file its output begins.
    """
    benchmark.result(run).unlink(missing_ok=True)  # of other settings
    log = benchmark.log(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "recbole_genrec.cli", "run", *run.argv]
    with open(log, "ab") as stream:
        offset = stream.tell()
        # A session of its own: Ctrl-C reaches the benchmark, which asks its runs once; they save
        # what they have and end.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, offset


def last_error(log: Path, offset: int, code: int) -> str:
    """Why a run failed.

    Args:
        log: its log file.
        offset: where its output begins.
        code: exit status of its process, negative after a signal.

    Returns:
        The signal, or the last line that names an error, else the last line.
    """
    if code < 0:
        return f"killed by signal {-code}"
    text = log.read_bytes()[offset:].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    if errors:
        return errors[-1]
    if lines:
        return lines[-1]
    return f"exit status {code} without a message"
