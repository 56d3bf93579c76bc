"""Each step of a run as the catalogue and the interactions grow: time and memory.

    OMP_NUM_THREADS=1 python benchmarks/scale_up.py --items=1000000 --keep=yes --processes=2

Without ``--targets`` this is the whole of it at a million items: an epoch, the lists of 20,000
users, ``recommend``, then the epoch and the lists again by two processes under ``torchrun``
(``--shared_targets`` ends that epoch early, ``--local_steps`` gives each process batches of its
own). ``--keep=yes`` leaves the other rows of the table; ``--name`` is that of the result files.

Synthetic data of ``benchmarks/synthetic.py``: as many users as items, vectors of the items given
instead of sentence embeddings. TimelineRec with ``sparse_tables`` on codes of residual k-means: one
epoch, or ``--targets`` of one, in batches of ``--batch_targets``, then the lists of ``--users``
users by beam search for the metrics, then ``recommend`` for as many to Parquet. Above 100,000 items
100,000 of them, drawn with the seed, give the centroids. Every step runs in a process of its own
or, from the reading of the data to the evaluation, in one after the other; memory is the largest
resident memory of that process up to the end of the step, of several processes that of the largest.
CPU-seconds are those of all processes; s is wall time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, arguments, write_result

from recbole_genrec.errors import GenRecError
from recbole_genrec.storage.artefacts import read_json

STEPS = {
    "write": "data written",
    "read": "data read and split",
    "codes": "codes, trie, model",
    "train": "training",
    "evaluate": "evaluation",
    "checkpoint": "checkpoint",
    "recommend": "recommend",
}
SHARED = ("train", "evaluate")
"""Steps that several processes share."""

SETTINGS = {
    "tokenizer": "rkmeans",
    "ema_decay": 0,
    "item_parts": None,
    "input_id": True,
    "output_id": False,
    "input_text": False,
    "sparse_tables": True,
    "item_vectors_use": "instead",
    "item_text_fields": ["title"],
    "score_mode": "beam",
    "score_type": "renormalised",
    "beam_width": 20,
    "topk": [10],
    "valid_metric": "NDCG@10",
    "exclude_history": False,
    "save_ranks": False,
    "epochs": 1,
    "kmeans_rows": 100_000,
    "group_by_length": True,
    "search_batch_size": 256,
    "show_progress": False,
    "gpu_id": "",
    "state": "WARNING",
}


def settings_of(options: Any, n_items: int, folder: Path) -> dict[str, Any]:
    """The settings of the run on ``n_items`` items."""
    data = Path(options.data) / name_of(n_items)
    return {
        **SETTINGS,
        "valid_users": options.users,
        "batch_targets": options.batch_targets,
        "local_steps": options.local_steps,
        "data_path": str(options.data),
        "item_vectors": str(data / f"{name_of(n_items)}.npy"),
        "checkpoint_dir": str(folder),
        "cache_dir": str(folder.parent / "codes"),
        "result_file": str(folder / "result.json"),
    }


def name_of(n_items: int) -> str:
    """Name of a dataset."""
    return f"synthetic-{n_items}"


# --- steps, each run of this file one process -----------------------------------------------------


def write_data(options: Any, n_items: int, _: Path) -> None:
    """Write the data, unless it is there."""
    from synthetic import Shop, write

    n_events = n_items * options.events_per_user
    write(Shop(n_items, n_items, n_events), Path(options.data), name_of(n_items))


def train(options: Any, n_items: int, folder: Path) -> None:
    """Read the data, make the codes, train and evaluate, alone or as one of several processes."""
    from recbole_genrec.runtime.processes import joined

    with joined(torch.device("cpu")):
        train_here(options, n_items, folder)


def train_here(options: Any, n_items: int, folder: Path) -> None:
    """:func:`train` in a process that has joined the others."""
    from recbole_genrec.experiments.single import SingleRun
    from recbole_genrec.runtime.processes import size

    run = SingleRun(
        True,
        [],
        model="TimelineRec",
        dataset=name_of(n_items),
        config_file_list=None,
        config_dict=settings_of(options, n_items, folder),
    )
    run.prepare()
    said(run.stages, "read", "data")
    run.build()
    said(run.stages, "codes", "model_and_tokenizer")
    n_targets = int(run.train._targets.sum())
    trained = n_targets
    wanted = options.targets
    if size() > 1:
        wanted = options.shared_targets or wanted
    if wanted and wanted < n_targets:
        trained = wanted
        run.train = Part(run.train, -(-wanted // run.config["batch_targets"]))
    started = time.perf_counter(), time.process_time()
    run.fit()
    wall = time.perf_counter() - started[0]
    cpu = time.process_time() - started[1]
    trainer = run.trainer
    valid = trainer.history[-1]["valid"]
    step = {"targets": trained, "of": n_targets, "loss": trainer.history[-1]["loss"][0]}
    memory = run.stages.memory["fit"]["cpu"]
    report("train", trainer.seconds["train"], trainer.cpu_seconds["train"], memory, **step)
    report(
        "evaluate",
        trainer.seconds["valid"],
        trainer.cpu_seconds["valid"],
        memory,
        users=len(run.valid._dataset),
        recall=valid["recall@10"],
        ndcg=valid["ndcg@10"],
    )
    rest = wall - sum(trainer.seconds.values()), cpu - sum(trainer.cpu_seconds.values())
    size_mib = os.path.getsize(trainer.saved_model_file) / 2**20
    report("checkpoint", *rest, memory, size_mib=size_mib)


class Part:
    """The first batches of a loader."""

    def __init__(self, loader: Any, n_batches: int) -> None:
        self._loader = loader
        self._n_batches = n_batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._loader):
            if number == self._n_batches:
                return
            yield batch


def recommend(options: Any, n_items: int, folder: Path) -> None:
    """Write the lists of some users to a Parquet file."""
    from recbole_genrec.serving.lists import recommend_to_file

    checkpoints = folder.glob("TimelineRec-*.pth")
    checkpoint = next(file for file in checkpoints if not file.stem.endswith(".resume"))
    users = [f"u{number}" for number in range(min(options.users, n_items))]
    started = time.perf_counter(), time.process_time()
    written = recommend_to_file(str(checkpoint), folder / "lists.parquet", users, k=10)
    assert written.listed == len(users)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    report("recommend", wall, cpu, None, users=len(users))


def said(stages: Any, step: str, name: str) -> None:
    """Report a stage of a run."""
    values = stages.seconds[name], stages.cpu_seconds[name], stages.memory[name]["cpu"]
    report(step, *values)


def report(step: str, wall: float, cpu: float, memory: float | None, **more: Any) -> None:
    """Print what a step used, as a line that the parent process reads.

    Of several processes the first one prints, for all of them.
    """
    from recbole_genrec.runtime.memory import peak_memory_mb
    from recbole_genrec.runtime.processes import largest, rank, summed

    (memory,) = largest([memory or peak_memory_mb()])
    (cpu,) = summed([cpu])
    figures = {"step": step, "seconds": wall, "cpu_seconds": cpu, "peak_mib": memory, **more}
    if rank() == 0:
        print("STEP " + json.dumps(figures), flush=True)


# --- the table ------------------------------------------------------------------------------------


def measured(
    options: Any, part: str, n_items: int, folder: Path, n_processes: int = 1
) -> list[dict[str, Any]]:
    """What the steps of one part report.

    Args:
        options: of the command.
        part: key of :data:`PARTS`.
        n_items: number of items.
        folder: for checkpoints and codes.
        n_processes: how many processes share the part.
    """
    words = [f"--{name}={value}" for name, value in vars(options).items() if value is not None]
    words += [f"--part={part}", f"--items={n_items}", f"--folder={folder}"]
    python = [sys.executable, "-W", "ignore"]
    if n_processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        python += [*launcher, f"--nproc_per_node={n_processes}"]
    started = time.perf_counter()
    done = subprocess.run([*python, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        raise GenRecError(f"{part} at {n_items} items failed:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("STEP ")]
    steps = [json.loads(line.removeprefix("STEP ")) for line in lines]
    wall = time.perf_counter() - started
    print(n_items, part, n_processes, f"{wall:.0f} s", steps, flush=True)
    return steps


def measured_parts(options: Any, n_items: int, folder: Path) -> dict[str, dict[str, Any]]:
    """What the steps of all parts report, by name; ``train@2`` is that of two processes."""
    steps = []
    for part in PARTS:
        there = Path(options.data) / name_of(n_items) / f"{name_of(n_items)}.ids.txt"
        if part == "write" and there.is_file():
            continue
        steps += measured(options, part, n_items, folder / "alone")
    named = {step["step"]: step for step in steps}
    count = options.processes
    if count > 1:
        shared = measured(options, "train", n_items, folder / "shared", count)
        for step in shared:
            if step["step"] in SHARED:
                named[f"{step['step']}@{count}"] = step
    return named


PARTS = {"write": write_data, "train": train, "recommend": recommend}


def main() -> None:
    options = arguments(
        __doc__,
        items="10000,100000",
        events_per_user=20,
        targets=0,
        users=20_000,
        batch_targets=512,
        processes=1,
        local_steps=0,
        shared_targets=0,
        data="dataset",
        part="",
        folder="",
        keep="",
        name="scale-up",
    )
    if options.part:
        n_items = int(options.items)
        started = time.perf_counter(), time.process_time()
        PARTS[options.part](options, n_items, Path(options.folder))
        if options.part == "write":
            wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
            report("write", wall, cpu, None)
        return
    results = {}
    known = RESULTS / f"{options.name}.json"
    if options.keep and known.is_file():
        results = read_json(known)["results"]
    for n_items in map(int, options.items.split(",")):
        with tempfile.TemporaryDirectory() as name:
            steps = measured_parts(options, n_items, Path(name))
        n_events = n_items * options.events_per_user
        results[str(n_items)] = {"events": n_events, "steps": steps}
        written(results, options.name)


def written(results: dict[str, Any], file: str) -> None:
    """Write the table of what was measured so far to the results named ``file``."""
    rows = []
    for n_items, result in sorted(results.items(), key=lambda pair: int(pair[0])):
        steps = result["steps"]
        for name, title in titled(steps):
            figures = steps[name]
            rows.append(
                [
                    f"{int(n_items):,}",
                    f"{result['events']:,}",
                    title,
                    f"{figures['cpu_seconds']:.1f}",
                    f"{figures['seconds']:.0f}",
                    f"{figures['peak_mib']:,.0f}",
                    remark(name, steps),
                ]
            )
    header = ["items", "interactions", "step", "CPU-s", "s", "peak MiB", ""]
    notes = __doc__.split("\n\n")[3].replace("\n", " ").replace("``", "`")
    write_result(file, "A run as the data grows", {"results": results}, header, rows, notes)


def titled(steps: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and titles of the steps that were measured, in their order."""
    for step, title in STEPS.items():
        if step in steps:
            yield step, title
        for name in steps:
            if name.startswith(f"{step}@"):
                yield name, f"{title}, {name.partition('@')[2]} processes"


def remark(name: str, steps: dict[str, Any]) -> str:
    """What a row says beside time and memory."""
    figures = steps[name]
    step, _, shared = name.partition("@")
    unit = {"train": "targets", "evaluate": "users", "recommend": "users"}.get(step)
    if step == "checkpoint":
        return f"{figures['size_mib']:,.0f} MiB"
    if unit is None:
        return ""
    words = f"{figures[unit]:,} {unit}"
    if step == "train":
        per_target = 1e6 * figures["cpu_seconds"] / figures["targets"]
        words = f"{figures['targets']:,} of {figures['of']:,} targets, {per_target:.0f} us each"
    if step == "evaluate":
        words += f", Recall@10 {figures['recall']:.4f}"
    if shared:
        alone = steps[step][unit] / steps[step]["seconds"]
        together = figures[unit] / figures["seconds"]
        words += f", {together / alone:.2f} times the {unit} a second of one process"
    return words


if __name__ == "__main__":
    main()
