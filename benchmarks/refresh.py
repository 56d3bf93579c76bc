"""CPU time of a refresh of all item codes (``self_improve: True``) by TIGER in the size that
runs anywhere and in the paper's.

The first refresh meets random weights, the worst case: nearly all items want the same codes. The
second comes after a few passes of the alignment task, when the model tells the items apart.

    OMP_NUM_THREADS=1 python benchmarks/refresh.py --dataset=amazon-beauty --data_path=<folder>
"""

from __future__ import annotations

import time

import torch
from common import arguments, untrained, write_result

from recbole_genrec.runtime.memory import keep_freed_memory
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder


def align(model, passes: int, batch: int = 512) -> None:
    """Train the alignment task alone."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(passes):
        for items in (1 + torch.randperm(len(model.codes) - 1)).split(batch):
            optimiser.zero_grad()
            model.alignment_loss(items).backward()
            optimiser.step()
    model.eval()


def main() -> None:
    options = arguments(__doc__, tokenizer="random", passes=3, cache_dir=".cache")
    keep_freed_memory()
    rows, result = [], {}
    for size, folder in {"runs anywhere": "model", "paper": "paper"}.items():
        backbone = read_yaml(properties_folder() / folder / "TIGER.yaml")["backbone_config"]
        settings = {
            "self_improve": True,
            "si_scope": "all",
            "tokenizer": options.tokenizer,
            "backbone_config": backbone,
            "epochs": 100,
        }
        model, _ = untrained("TIGER", options, options.cache_dir, **settings)
        for state in ("random weights", f"after {options.passes} passes of alignment"):
            if model.self_improvement.refreshes:
                align(model, options.passes)
            started = time.process_time()
            model.refine_codes()
            seconds, log = time.process_time() - started, model.self_improvement.refreshes[-1]
            rows.append(
                [
                    size,
                    state,
                    seconds,
                    f"{log['churn']:.1%}",
                    f"{log['collision_rate']:.1%}",
                    f"{log['mean_rank']:.1f}",
                ]
            )
            result[f"{size}, {state}"] = {"cpu_seconds": seconds, **log}
    parameters = sum(p.numel() for p in model.parameters())
    notes = (
        f"{len(model.codes) - 1} items of {options.dataset}, codes of sizes "
        f"{list(model.level_sizes)} (`tokenizer: {options.tokenizer}`), "
        f"`si_scope: all`, {model.config['si_num_candidates']} to "
        f"{model.config['si_max_candidates']} candidates an item; the paper's T5 "
        f"has {parameters:,} parameters. CPU time of one refresh: candidates, assignment, "
        "the new table and its file."
    )
    header = [
        "T5",
        "weights",
        "CPU seconds",
        "items changed",
        "wanted the same codes",
        "mean rank of what they got",
    ]
    write_result("refresh", "A refresh of all item codes", result, header, rows, notes)


if __name__ == "__main__":
    main()
