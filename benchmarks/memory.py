"""Largest resident memory of ``full_sort_predict`` with STORE's defaults; the size of the
catalogue is what counts, so nothing is trained.

OMP_NUM_THREADS=1 python benchmarks/memory.py --dataset=amazon-beauty --data_path=<folder that holds
amazon-beauty/>
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time

from common import arguments, untrained, write_result

from recbole_genrec.runtime.memory import keep_freed_memory

SETTINGS = {"tokenizer_epochs": 0}


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = arguments(__doc__, users=1024)
    keep_freed_memory()  # as our commands do
    with tempfile.TemporaryDirectory() as cache:
        # the codes are made in another process, so that making them does not count
        fitting = multiprocessing.get_context("spawn").Process(
            target=untrained, args=("STORE", options, cache), kwargs=SETTINGS
        )
        fitting.start()
        fitting.join()
        imported = peak_mib()
        model, loader = untrained("STORE", options, cache, **SETTINGS)
    built, users, started = peak_mib(), 0, time.process_time()
    for batch in loader:
        scores = model.full_sort_predict(batch[0])
        users += len(scores)
        if users >= options.users:
            break
    predicted, seconds = peak_mib(), time.process_time() - started
    result = {
        "dataset": options.dataset,
        "items": len(model.codes) - 1,
        "levels": list(model.level_sizes),
        "users": users,
        "eval_batch_size": model.config["eval_batch_size"],
        "search_batch_size": model.config["search_batch_size"],
        "beam": model.config["beam_width"],
        "peak_mib": {"imports": imported, "dataset_and_model": built, "prediction": predicted},
        "trie_mib": model.trie.memory_bytes / 2**20,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "cpu_seconds": seconds,
    }
    notes = (
        f"STORE with its defaults on {options.dataset} ({result['items']} items, code "
        f"sizes {result['levels']}; random weights), "
        f"{users} test users in batches of {result['eval_batch_size']}, searched "
        f"{result['search_batch_size']} at a time with beam "
        f"{result['beam']}. The item trie takes {result['trie_mib']:.1f} MiB."
    )
    names = {
        "imports": "libraries imported",
        "dataset_and_model": "dataset and model built",
        "prediction": "all items scored",
    }
    rows = [[names[name], f"{value:.0f}"] for name, value in result["peak_mib"].items()]
    write_result("memory", "Largest resident memory", result, ["after", "MiB"], rows, notes)


if __name__ == "__main__":
    main()
