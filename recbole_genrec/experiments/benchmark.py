"""Many runs from one YAML: each in a process of its own, resumable, collected into one leaderboard.

::

    data_path: dataset            # where the datasets are; as on the command line
    output: results/beauty        # results, ranks, logs, checkpoints and the leaderboard
    baseline: SASRec              # name of the run that the others are tested against
    processes: 2                  # runs at once (default 1)
    threads: 1                    # threads of each (default: all cores shared out)
    datasets: [amazon-beauty]
    seeds: [2020, 2021, 2022]
    settings: {topk: [5, 10, 20], STORE.epochs: 30}
    runs:
      - {name: SASRec, model: SASRec, settings: {loss_type: CE}}
      - {name: timeline-store, model: TimelineRec, tokenizer: store, seeds: [2020]}

On the command line ``--seeds=[2020]`` and the like replace what the file says, and ``--only=[SASRec]`` carries out the runs of these names.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, GenRecError
from recbole_genrec.model.outside import outside_names
from recbole_genrec.model.registry import get_model_class, model_name, needs_tokenizer
from recbole_genrec.report.ranks import ranks_folder
from recbole_genrec.report.runs import STATE
from recbole_genrec.settings.classification import benchmark_keys
from recbole_genrec.settings.declaration import Key, Settings, key
from recbole_genrec.settings.parsing import parse_value, read_yaml
from recbole_genrec.settings.rules import check_value, did_you_mean
from recbole_genrec.storage.artefacts import META, read_json, write_json


class RunEntryKeys(Settings):
    """Keys of one run in a benchmark file."""

    name: str = key("letters, digits, '-', '_', '+', '.'")
    model: str = key("name of a model, or package.module:Class")
    tokenizer: str | None = key("item tokenizer")
    settings: dict = key("keys and values for every run")
    datasets: list[str] = key("names of dataset folders")
    seeds: list[int] = key("random seeds", ge=0, le=2**32 - 1)


class BenchmarkKeys(Settings):
    """Keys of a benchmark file."""

    data_path: str | None = key("folder that holds the datasets' folders")
    output: str = key("folder for results, logs and the leaderboard")
    baseline: str | None = key("name of the run that the others are tested against")
    processes: int = key("runs at once", ge=1)
    threads: int | None = key("threads of each run", ge=1)
    datasets: list[str] = key("names of dataset folders")
    seeds: list[int] = key("random seeds", ge=0, le=2**32 - 1)
    settings: dict = key("keys and values for every run")
    runs: list[dict] = key("one mapping a run: name, model, tokenizer, settings, datasets, seeds")


class ArgumentKeys(Settings):
    """Arguments of the command beside the keys of the file."""

    only: list[str] | None = key("names of the runs to carry out")


@dataclass(frozen=True)
class PlannedRun:
    """One (run, dataset, seed): its arguments, and the name that its settings and data give the checkpoint."""

    name: str
    model: str
    tokenizer: str | None
    dataset: str
    seed: int
    argv: tuple[str, ...]
    run_name: str

    @property
    def id(self) -> str:
        """Stem of the files of this run."""
        return f"{self.name}-{self.dataset}-{self.seed}"


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark file asks for; ``runs`` is the full list of (run, dataset, seed), ``only`` names those to carry out."""

    output: Path
    baseline: str | None
    processes: int
    threads: int
    runs: tuple[PlannedRun, ...]
    only: tuple[str, ...]

    def result(self, run: PlannedRun) -> Path:
        """The result file of a run."""
        return self.output / "results" / f"{run.id}.json"

    def log(self, run: PlannedRun) -> Path:
        """Everything that a run printed."""
        return self.output / "logs" / f"{run.id}.log"

    def is_done(self, run: PlannedRun) -> bool:
        """Whether the result of the same settings and data, and its ranks, are there."""
        file = self.result(run)
        try:
            checkpoint = read_json(file).get("checkpoint") if file.is_file() else None
        except ArtefactError:
            return False
        return (
            bool(checkpoint)
            and Path(checkpoint).stem == run.run_name
            and (ranks_folder(file) / META).is_file()
        )


def read_benchmark(file: str | os.PathLike, **changes: object) -> Benchmark:
    """Read a benchmark file and check every setting of every run.

    Args:
        changes: keys of the file with other values, and ``only``, the names of the runs to carry out.

    Raises:
        ConfigError: an unknown or missing key, a bad value, two runs of one name, or a run whose settings cannot work.
    """
    only = changes.pop("only", None)
    content = {"processes": 1, "settings": {}, **read_yaml(file), **changes}
    _check(content, BenchmarkKeys.declared(), str(file))
    check_value(ArgumentKeys.declared()["only"], only)
    planned: list[PlannedRun] = []
    names, entries = [], []
    for number, entry in enumerate(content["runs"], start=1):
        where = f"{file}, run {entry.get('name', number)}"
        entry = {
            "settings": {},
            "datasets": content["datasets"],
            "seeds": content["seeds"],
            **entry,
        }
        _check(entry, RunEntryKeys.declared(), where)
        try:  # all classes first: a key like Mine.epochs in the settings of every run needs its name
            get_model_class(entry["model"])
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if not re.fullmatch(r"[\w+.-]+", entry["name"]) or entry["name"] in names:
            raise ConfigError(
                f"{where}: a name must be unique and of letters, digits, '-', '_', '+', '.'; it becomes a file name."
            )
        names.append(entry["name"])
        entries.append((entry, where))
    for entry, where in entries:
        planned += _runs(content, entry, where)
    baseline, only = content.get("baseline"), tuple(only or names)
    for option, name in [("baseline", baseline), *(("only", name) for name in only)]:
        if name is not None and name not in names:
            hint = did_you_mean(name, names)
            raise ConfigError(f"{file}: {option} {name!r} is no run.{hint}")
    if len({run.id for run in planned}) < len(planned):
        raise ConfigError(
            f"{file}: a dataset or a seed is listed twice, or two names and datasets join to the same file name."
        )
    threads = content.get("threads") or max(1, (os.cpu_count() or 1) // content["processes"])
    return Benchmark(
        Path(content["output"]), baseline, content["processes"], threads, tuple(planned), only
    )


def _check(content: dict, keys: dict[str, Key], where: str) -> None:
    for name in content:
        if name not in keys:
            raise ConfigError(f"{where}: unknown key {name!r}.{did_you_mean(name, keys)}")
    try:
        for name, declared in keys.items():
            check_value(declared, content.get(name))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _runs(content: dict, entry: dict, where: str) -> list[PlannedRun]:
    """The runs of one entry over its datasets and seeds."""
    model, own = entry["model"], dict(entry["settings"])
    name = model_name(model)
    shared = {
        key: value
        for key, value in content["settings"].items()
        if key.removeprefix(f"{name}.") not in own
        # the run's process does not know the other classes from outside
        and (key.startswith(f"{name}.") or key.partition(".")[0] not in outside_names())
    }
    settings = {**shared, **own}
    taken = [key for key in settings if key.rpartition(".")[2] in benchmark_keys()]
    if taken:
        raise ConfigError(
            f"{where}: {', '.join(taken)} in settings; the benchmark sets these keys itself."
        )
    if entry.get("tokenizer") is not None:
        settings["tokenizer"] = entry["tokenizer"]
    if content.get("data_path") is not None:
        settings["data_path"] = content["data_path"]
    output, planned = Path(content["output"]), []
    checkpoints = _checkpoints(output, entry["name"])
    for dataset in entry["datasets"]:
        for seed in entry["seeds"]:
            stem = f"{entry['name']}-{dataset}-{seed}"
            files = {
                "result_file": output / "results" / f"{stem}.json",
                "checkpoint_dir": checkpoints,
            }
            chosen = {
                "model": model,
                "dataset": dataset,
                "seed": seed,
                **settings,
                **files,
                "save_ranks": True,
                "show_progress": False,
            }
            argv = [f"--{key}={argument(value)}" for key, value in chosen.items()] + ["--resume"]
            try:
                config = GenRecConfig(model, dataset, argv=argv)
            except GenRecError as error:
                raise ConfigError(f"{where}: {error}") from error
            if entry.get("tokenizer") is not None and not needs_tokenizer(config.model_class):
                raise ConfigError(f"{where}: {model} has no item tokenizer; leave tokenizer out.")
            tokenizer = config["tokenizer"] if needs_tokenizer(config.model_class) else None
            planned.append(
                PlannedRun(
                    entry["name"], name, tokenizer, dataset, seed, tuple(argv), config.run_name()
                )
            )
    return planned


def _checkpoints(output: Path, name: str) -> Path:
    """Folder of a run's checkpoints; the files are named after the settings, which two runs may share."""
    return output / "checkpoints" / name


def argument(value: object) -> str:
    """``value`` as the text that :func:`~recbole_genrec.settings.parsing.parse_value` reads back."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
    return text if parse_value(text) == value else repr(value)


def run_benchmark(benchmark: Benchmark, report: Callable[[str], None] = tqdm.write) -> int:
    """Carry out the runs that are not done yet and return how many failed.

    Each run is a process; its output goes to a log file. An interrupted benchmark continues with the same call: finished runs are
    kept, the others resume at their last epoch. ``runs.json`` in the output folder holds the state.
    """
    environment = {
        **os.environ,
        **dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(benchmark.threads)
        ),
    }
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package, environment.get("PYTHONPATH")])
    )
    status = {run: "done" if benchmark.is_done(run) else "pending" for run in benchmark.runs}
    errors: dict[PlannedRun, str] = {}
    waiting = deque(
        run for run in benchmark.runs if status[run] == "pending" and run.name in benchmark.only
    )
    running: dict[PlannedRun, tuple[subprocess.Popen, int]] = {}
    write_state(benchmark, status, errors)
    # nohup ignores SIGHUP; Windows does not have it
    numbers = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]
    stops = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in stops
    }  # end the runs as well
    finished = list(status.values()).count("done")
    bar = tqdm(total=finished + len(waiting), initial=finished, desc="runs", unit="run")
    try:
        while waiting or running:
            while waiting and len(running) < benchmark.processes:
                run = waiting.popleft()
                running[run] = _start(benchmark, run, environment)
                bar.set_postfix_str(", ".join(run.id for run in running))
            for run, (process, offset) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                status[run] = (
                    "done" if process.returncode == 0 and benchmark.is_done(run) else "failed"
                )
                if status[run] == "done":
                    (
                        _checkpoints(benchmark.output, run.name) / f"{run.run_name}.resume.pth"
                    ).unlink(missing_ok=True)
                else:
                    errors[run] = last_error(benchmark.log(run), offset, process.returncode)
                    report(f"FAILED {run.id}: {errors[run]} (log: {benchmark.log(run)})")
                write_state(benchmark, status, errors)
                bar.update()
            time.sleep(0.1)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
        bar.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return len(errors)


def _start(
    benchmark: Benchmark, run: PlannedRun, environment: dict
) -> tuple[subprocess.Popen, int]:
    """Start a run; returns its process and where in the log file its output begins."""
    benchmark.result(run).unlink(missing_ok=True)  # of other settings
    log = benchmark.log(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "recbole_genrec.cli", "run", *run.argv]
    with open(log, "ab") as stream:
        offset = stream.tell()
        # a session of its own: Ctrl-C reaches the benchmark, which asks its runs once; they save what they have and end
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
    """The last line of the log after ``offset`` that names an error, else the last line, and how the process ended."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = [
        line.strip()
        for line in log.read_bytes()[offset:].decode("utf-8", "replace").splitlines()
        if line.strip()
    ]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or lines or [f"exit status {code} without a message"])[-1]


def write_state(
    benchmark: Benchmark, status: dict[PlannedRun, str], errors: dict[PlannedRun, str]
) -> None:
    """Write ``runs.json``: which runs there are, how each stands, and where its files are."""
    rows = [
        {
            **{key: getattr(run, key) for key in ("name", "model", "tokenizer", "dataset", "seed")},
            "status": status[run],
            "error": errors.get(run),
            "result": str(benchmark.result(run).relative_to(benchmark.output)),
            "log": str(benchmark.log(run).relative_to(benchmark.output)),
        }
        for run in benchmark.runs
    ]
    write_json(
        benchmark.output / STATE,
        {"baseline": benchmark.baseline, "threads": benchmark.threads, "runs": rows},
    )
