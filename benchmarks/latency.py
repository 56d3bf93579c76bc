"""Latency of one user's list, batch 1: TIGER, TimelineRec and LCRec in their default sizes.

The catalogue is that of ``one_product.py``: 12,101 synthetic items, random codes and weights,
histories as long as amazon-beauty's. A call is ``model.recommend`` with the ids of a history, as
the service makes it: from ids to a list of ten with scores and proofs. CPU time of the process
stands for the latency on one free core, since other work shares the machine.

    OMP_NUM_THREADS=1 python benchmarks/latency.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import arguments, write_result
from one_product import NAME, build, write_catalogue

from recbole_genrec.runtime.memory import keep_freed_memory

MODELS = {
    "TIGER": ("TIGER", {"tokenizer": "random"}),
    "LCRec": ("LCRec", {"tokenizer": "random"}),
    "TimelineRec, all items by one product": ("TimelineRec", {"tokenizer": "random"}),
    "TimelineRec, beams": ("TimelineRec", {"tokenizer": "random", "score_mode": "beam"}),
}


SHOWN = (50, 99)  # percentiles


def histories_of(model, columns: dict, count: int) -> list[list[str]]:
    """Raw item ids of some histories."""
    names = model.catalogue.items
    rows = columns[model.ITEM_SEQ][:count].tolist()
    lengths = columns[model.ITEM_SEQ_LEN][:count].tolist()
    return [
        [names[item] for item in items[:length]]
        for items, length in zip(rows, lengths, strict=True)
    ]


def latencies(model, histories: list[list[str]], warm: int = 5) -> list[float]:
    """CPU milliseconds of each call after a few that are not counted."""
    times = []
    for history in histories[:warm] + histories:
        started = time.process_time()
        model.recommend(history, k=10)
        times.append(1000 * (time.process_time() - started))
    return times[warm:]


def main() -> None:
    options = arguments(__doc__, dataset=NAME, items=12_101, all_users=6000, users=200, batch=64)
    keep_freed_memory()
    milliseconds = {}
    settings = {}
    with tempfile.TemporaryDirectory() as folder:
        options.data_path = folder
        generator = np.random.default_rng(0)
        vectors = write_catalogue(Path(folder), options.items, options.all_users, generator)
        for name, (model_name, keys) in MODELS.items():
            model, columns = build(options, model_name, vectors, **keys)
            histories = histories_of(model, columns, options.users)
            milliseconds[name] = latencies(model, histories)
            values = model.settings
            settings[name] = [values.beam_width, values.score_type, values.score_mode]
            print(name, statistics.median(milliseconds[name]), flush=True)
    rows = []
    for name, values in milliseconds.items():
        beams, score_type, mode = settings[name]
        search = f"{beams} beams, {score_type}"
        if "product" in name:
            search = "none"
        percentiles = [float(np.percentile(values, share)) for share in SHOWN]
        rows.append([name, search, *percentiles, 1000 / statistics.mean(values)])
    mean = statistics.mean(len(history) for history in histories)
    notes = (
        f"{options.items:,} synthetic items, random weights, default sizes, {options.users} "
        f"histories of {mean:.1f} items on average, one at a time, `model.recommend(history, "
        "k=10)`, from ids to ids with scores, proofs and codes. Milliseconds of CPU time of the "
        "process, which are those of the clock on a free core; other work shared the machine, "
        "which disturbs the 99th percentile most. No network, no queue: `service.md` has those."
    )
    header = ["model", "search", "p50 ms", "p99 ms", "lists per CPU-second"]
    result = {"milliseconds": milliseconds}
    write_result("latency", "Latency of one list", result, header, rows, notes)


if __name__ == "__main__":
    main()
