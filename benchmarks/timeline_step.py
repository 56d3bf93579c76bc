"""CPU time of a training step of TimelineRec, of an earlier commit and of this one.

Each way is a process of its own that does optimiser steps by the trainer, with dropout and clipping
as in a run; the processes take turns. The losses of the first batch without dropout are compared.

    OMP_NUM_THREADS=1 python benchmarks/timeline_step.py --before=5ac8480

``--before`` needs the repository with its history; without it this commit is timed alone. The codes
are fitted once and stored in ``--cache_dir``.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import arguments, load, spread, unpack, write_result

from recbole_genrec.model.registry import build_model
from recbole_genrec.model.timeline.keys import TimelineSettings
from recbole_genrec.runtime.memory import keep_freed_memory
from recbole_genrec.training.trainer import GenRecTrainer

ROOT = Path(__file__).parents[1]
WORKER = "--steps_of="
SAME = {"tokenizer": "rkmeans", "ema_decay": 0}  # the defaults of the earlier commits
TEXT = {**SAME, "item_parts": ["text"], "text_mlp": 256, "timeline_dropout": 0.3}
CASES: dict[str, dict] = {
    "ids and texts, codes": SAME,
    "texts by an MLP, codes": TEXT,
    "texts by an MLP, items": {**TEXT, "output": "items"},
}


class Way:
    """A process that does steps on request.

    Args:
        tree: the files of a commit.
        settings: of the model.
        options: of the command.
    """

    def __init__(self, tree: Path, settings: dict, options):
        command = [sys.executable, "-W", "ignore", __file__, WORKER + json.dumps(settings)]
        for name in ("dataset", "data_path", "cache_dir", "targets", "steps"):
            value = getattr(options, name)
            if value is not None:
                command.append(f"--{name}={value}")
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> float:
        """The next number that the process writes."""
        for line in self.process.stdout:
            if line.startswith(WORKER):
                return float(line.removeprefix(WORKER))
        raise SystemExit("A process of the benchmark ended; its error stands above.")

    def turn(self) -> float:
        """Targets per CPU-second of the next steps."""
        print(file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()


def work(settings: dict, options) -> None:
    """Write the loss of the first batch, then for each line that is read the speed of steps."""
    torch.set_num_threads(1)
    keep_freed_memory()
    if "text_stream" in TimelineSettings.declared():
        settings = {**settings, "text_stream": False}  # the earlier commits have one stream
    settings = {**settings, "batch_targets": options.targets, "cache_dir": options.cache_dir}
    config, _, (train, _, _) = load("TimelineRec", options, **settings)
    model = build_model(config, train._dataset)
    trainer = GenRecTrainer(config, model)
    batches = list(itertools.islice(train, options.steps))
    model.eval()
    print(WORKER, float(model.calculate_loss(batches[0]).detach()), sep="", flush=True)
    model.train()
    for _ in sys.stdin:
        targets = 0
        started = time.process_time()
        for number, batch in enumerate(batches):
            trainer._backward(batch, model.calculate_loss, 0, number, True)
            trainer._optimiser_step()
            targets += int(batch["item_length"].sum())
        print(WORKER, targets / (time.process_time() - started), sep="", flush=True)


def main() -> None:
    options = arguments(
        __doc__,
        dataset="amazon-beauty",
        before="",
        cache_dir=None,
        targets=512,
        steps=20,
        repeats=5,
        cases=len(CASES),
    )
    rows: list[list[object]] = []
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        trees = {"this commit": ROOT}
        if options.before:
            trees = {f"commit {options.before}": unpack(options.before, folder), **trees}
        options.cache_dir = options.cache_dir or f"{folder}/cache"
        for case, settings in list(CASES.items())[: options.cases]:
            ways = {name: Way(tree, settings, options) for name, tree in trees.items()}
            losses = {name: way.answer() for name, way in ways.items()}
            turns = [[way.turn() for way in ways.values()] for _ in range(options.repeats + 1)]
            speeds = dict(zip(ways, zip(*turns[1:], strict=True), strict=True))
            results[case] = speeds
            first = next(iter(ways))
            for name, way in ways.items():
                way.end()
                ratio = statistics.median(speeds[name]) / statistics.median(speeds[first])
                difference = f"{abs(losses[name] - losses[first]):.1e}"
                rows.append([case, name, spread(speeds[name]), ratio, difference])
    notes = (
        f"{options.dataset}, batches of {options.targets} targets, rows of mixed lengths up to 20 "
        "items. Targets per CPU-second of the forward pass, the backward pass, clipping and AdamW "
        f"over {options.steps} steps, median (range) of {options.repeats} turns; one thread. Loss: "
        "of the first batch, without dropout, its difference from the first row's."
    )
    header = ["recipe", "code", "targets per CPU-second", "times as many", "difference of the loss"]
    title = "Training step of TimelineRec"
    write_result("timeline_step", title, {"targets_per_second": results}, header, rows, notes)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith(WORKER):
        chosen = json.loads(sys.argv.pop(1).removeprefix(WORKER))
        work(chosen, arguments("", cache_dir=None, targets=512, steps=20))
    else:
        main()
