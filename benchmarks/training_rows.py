"""CPU time of a target in the training of RecBole's SASRec and GRU4Rec: RecBole's rows, one for
each prefix of a history, against rows whose positions are all targets.

Each way does optimiser steps on batches of as many targets, from the same weights; the ways take
turns. The losses are the same (``tests/model/test_all_positions.py``).

    OMP_NUM_THREADS=1 python benchmarks/training_rows.py --dataset=amazon-beauty
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from common import arguments, load, medians, spread, write_result

from recbole_genrec.model.baselines import all_positions
from recbole_genrec.model.registry import build_model
from recbole_genrec.runtime.memory import keep_freed_memory

MODELS = ("SASRec", "GRU4Rec")
RECBOLE = "a row a prefix (RecBole)"
WINDOWS = "all positions of a window"
GROUPED = "all positions, in groups of similar length"


def one_group(lengths: torch.Tensor) -> list[torch.Tensor]:
    """All rows of a batch padded to the longest."""
    return [torch.arange(len(lengths))]


def steps(model: str, options, way: str) -> Callable[[], float]:
    """CPU seconds of ``options.steps`` optimiser steps, which go on from call to call."""
    rows = "all" if way == RECBOLE else "windows"
    config, _, (train, _, _) = load(
        model, options, train_rows=rows, batch_targets=options.targets, group_by_length=False
    )
    trained = build_model(config, train._dataset).train()
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-3)
    batches = list(itertools.islice(train, options.steps))
    groups = all_positions.length_groups

    def run() -> float:
        all_positions.length_groups = one_group if way == WINDOWS else groups
        started = time.process_time()
        for batch in batches:
            optimiser.zero_grad()
            trained.calculate_loss(batch).backward()
            optimiser.step()
        all_positions.length_groups = groups
        return time.process_time() - started

    return run


def main() -> None:
    options = arguments(__doc__, targets=512, steps=20, repeats=5)
    keep_freed_memory()
    rows: list[list[object]] = []
    seconds: dict[str, dict[str, list[float]]] = {}
    for model in MODELS:
        ways = {way: steps(model, options, way) for way in (RECBOLE, WINDOWS, GROUPED)}
        times = dict(zip(ways, medians(options.repeats, *ways.values()), strict=True))
        seconds[model] = times
        speeds = {}
        for way, values in times.items():
            speeds[way] = [options.steps * options.targets / value for value in values]
        usual = statistics.median(speeds[RECBOLE])
        for way, values in speeds.items():
            rows.append([model, way, spread(values), statistics.median(values) / usual])
    notes = (
        f"{options.dataset}, batches of {options.targets} targets, histories of at most 20 items, "
        f"full softmax, Adam. Targets per CPU-second over {options.steps} steps, median (range) of "
        f"{options.repeats} turns; one thread. An epoch has the same targets in every row."
    )
    write_result(
        "training_rows",
        "Targets per CPU-second of RecBole's sequential models",
        {"targets": options.targets, "steps": options.steps, "cpu_seconds": seconds},
        ["model", "rows", "targets per CPU-second", "RecBole = 1"],
        rows,
        notes,
    )


if __name__ == "__main__":
    main()
