"""What ``compile_search: True`` saves and costs: TIGER's search with and without, the same
weights, codes and histories.

OMP_NUM_THREADS=1 python benchmarks/compiled_search.py --data_path=<folder that holds
amazon-beauty/>
"""

from __future__ import annotations

import copy
import statistics
import time

from common import arguments, medians, spread, write_result
from decoding import Case, settings

from recbole_genrec.runtime.memory import keep_freed_memory


def main() -> None:
    options = arguments(
        __doc__,
        dataset="amazon-beauty",
        model="TIGER",
        beam=20,
        users=256,
        peer_users=1,
        repeats=5,
        history=20,
        cache_dir=".cache",
    )
    keep_freed_memory()
    case = Case(options)
    other = copy.copy(case)
    other.model = copy.deepcopy(case.model)
    other.model.backbone.compile_search()
    eager, compiled = (
        each.timed(each.rank, each.users, **settings(options.beam, "renormalised"))
        for each in (case, other)
    )
    started = time.process_time()
    first = compiled()
    compiling = time.process_time() - started - statistics.median(medians(1, compiled)[0])
    seconds = medians(options.repeats, eager, compiled)
    speed = [[len(case.users) / value for value in values] for values in seconds]
    plain, fast = map(statistics.median, speed)
    rows = [
        ["as it is", spread(speed[0]), 1.0],
        ["compile_search: True", spread(speed[1]), fast / plain],
    ]
    notes = (
        f"TIGER with a T5 of the paper's size and random weights, {options.dataset}, beam "
        f"{options.beam}, renormalised, {len(case.users)} "
        "users drawn at random, all items ranked. CPU time, median (range) of "
        f"{options.repeats} turns. Compiling takes {compiling:.0f} "
        f"CPU-seconds once a process, which {compiling / (1 / plain - 1 / fast):,.0f} "
        "users pay back."
    )
    result = {
        "users_per_cpu_second": speed,
        "ratio": fast / plain,
        "first_call": first,
        "compiling_cpu_seconds": compiling,
    }
    write_result(
        "compiled_search",
        "Search through torch.compile",
        result,
        ["search", "users per CPU-second", "times"],
        rows,
        notes,
    )


if __name__ == "__main__":
    main()
