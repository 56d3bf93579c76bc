"""CPU seconds of a SASRec training step with autograd's anomaly detection on, as RecBole leaves
it, and off, as we do.

OMP_NUM_THREADS=1 python benchmarks/anomaly_detection.py --dataset=ml-100k
"""

from __future__ import annotations

import copy
import importlib
import itertools
import statistics
import time

import torch
from common import arguments, load, medians, spread, write_result

from recbole_genrec.model.registry import build_model
from recbole_genrec.runtime.recbole_repairs import quiet_anomaly_detection


def main() -> None:
    options = arguments(__doc__, steps=5, repeats=5)
    config, _, (train, _, _) = load("SASRec", options)
    torch.autograd.set_detect_anomaly(False)
    importlib.reload(importlib.import_module("recbole.model.sequential_recommender.sine"))
    if not torch.is_anomaly_enabled():
        raise SystemExit(
            "This RecBole no longer switches anomaly detection on when its sequential "
            "models are imported."
        )
    model = build_model(config, train._dataset)
    start, batches = copy.deepcopy(model.state_dict()), list(itertools.islice(train, options.steps))
    losses: dict[str, list[float]] = {}

    def timed(name: str, switch):
        def run() -> float:
            model.load_state_dict(start)
            torch.manual_seed(config["seed"])
            optimiser = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
            switch()
            started = time.process_time()
            losses[name] = []
            for batch in batches:
                optimiser.zero_grad()
                loss = model.calculate_loss(batch)
                loss.backward()
                optimiser.step()
                losses[name].append(loss.item())
            return (time.process_time() - started) / len(batches)

        return run

    on, off = medians(
        options.repeats,
        timed("on", lambda: torch.autograd.set_detect_anomaly(True)),
        timed("off", quiet_anomaly_detection),
    )
    if losses["on"] != losses["off"]:
        raise SystemExit("The two runs did not compute the same losses.")
    ratio = statistics.median(on) / statistics.median(off)
    result = {
        "dataset": options.dataset,
        "model": "SASRec",
        "steps": len(batches),
        "train_batch_size": config["train_batch_size"],
        "cpu_seconds_per_step": {"on": on, "off": off},
        "ratio_of_medians": ratio,
    }
    notes = (
        f"SASRec with our defaults on {options.dataset}, the same weights and the same "
        f"{len(batches)} batches of "
        f"{config['train_batch_size']} rows, equal losses. CPU time of the process, median "
        f"(range) of {options.repeats} turns."
    )
    rows = [["on (RecBole)", spread(on), ratio], ["off (ours)", spread(off), 1.0]]
    header = ["anomaly detection", "CPU seconds per training step", "relative"]
    write_result("anomaly_detection", "Anomaly detection in training", result, header, rows, notes)
    print(f"\nratio {ratio:.2f}")


if __name__ == "__main__":
    main()
