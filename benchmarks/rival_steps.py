"""The constrained step alone: what each constraint takes at one code position, by catalogue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from cached_t5 import DenseTable, Static
from common import medians
from scale import BEAMS, USERS, Steps, decoder_step, random_codes
from torch import Tensor

from recbole_genrec.decoding import ItemTrie

SIZES = (256,) * 4
LARGEST_TABLE = 100_000  # items; a dense table of a million takes a gigabyte
TURNS = 20


def free_step(scores: Tensor, block: Tensor) -> None:
    """No constraint: the best of all codes."""
    (scores.unsqueeze(-1) + block).flatten(1).topk(BEAMS)


def table_step(
    table: DenseTable, level: int, states: Tensor, scores: Tensor, block: Tensor
) -> None:
    """A dense table, or STATIC: what may follow, the best of it, and where that leads."""
    slots = table.follow(level, states, block)
    chosen = (scores.unsqueeze(-1) + slots.values).flatten(1).topk(BEAMS).indices
    slots.states.flatten(1).gather(1, chosen)


def static_states(static: Static, codes: Tensor) -> list[Tensor]:
    """STATIC's states before each code of paths ``[N, 4]``."""
    second = static.states[codes[:, 0], codes[:, 1]].long()
    third = []
    for state, code in zip(second.tolist(), codes[:, 2].tolist(), strict=True):
        edges = static.packed[static.pointers[state] : static.pointers[state + 1]]
        third.append(int(edges[edges[:, 0] == code, 1]))
    return [torch.zeros_like(second), codes[:, 0] + 1, second, torch.tensor(third)]


def timed(function: Callable, *arguments: object) -> Callable[[], float]:
    """CPU milliseconds of a call."""

    def run() -> float:
        started = time.process_time()
        for _ in range(TURNS):
            function(*arguments)
        return 1000 * (time.process_time() - started) / TURNS

    return run


def catalogue(items: int, folder: str) -> dict[str, list[Callable[[], float]]]:
    """The runs of each constraint, one a level."""
    codes = random_codes(items, SIZES)
    trie = ItemTrie(codes, SIZES)
    steps = Steps(trie, torch.Generator().manual_seed(1))
    leaves = steps.nodes[-1].flatten()
    paths = codes[1:][torch.randint(items, (len(leaves),))]  # for the others, as random
    levels = range(trie.depth)
    runs = {"no constraint": [timed(free_step, steps.scores, steps.blocks[t]) for t in levels]}
    runs["ours"] = [timed(steps.constrain, "level", t) for t in levels]
    tables: dict[str, tuple[DenseTable, list[Tensor]]] = {}
    rows = codes[1:]
    if items <= LARGEST_TABLE:
        table = DenseTable(rows.unique(dim=0), SIZES[0])
        states = [torch.zeros(len(paths), dtype=torch.int64)]
        for level, column in enumerate(paths.unbind(1)):
            states.append(table.tables[level][states[-1], column].long())
        tables["dense table"] = table, states
    if folder:
        static = Static(rows, SIZES[0], folder, BEAMS, items=False)
        tables["STATIC"] = static, static_states(static, paths)
    for name, (table, states) in tables.items():
        shaped = [state.view(USERS, BEAMS) for state in states]
        runs[name] = [
            timed(table_step, table, t, shaped[t], steps.scores, steps.blocks[t]) for t in levels
        ]
    return runs


def step_table(catalogues: list[int], options) -> dict:
    """Milliseconds by constraint, catalogue and level, and lines of a table."""
    results: dict[str, dict[str, list[float]]] = {}
    for items in catalogues:
        runs = catalogue(items, options.static)
        flat = [run for level_runs in runs.values() for run in level_runs]
        values = iter(medians(options.repeats, *flat))
        for name, level_runs in runs.items():
            medians_of = [statistics.median(next(values)) for _ in level_runs]
            results.setdefault(name, {})[str(items)] = medians_of
        print(items, results, flush=True)
    model = decoder_step(SIZES)
    lines = [
        f"The constrained step alone, {USERS} users x {BEAMS} beams on prefixes of random items, "
        "milliseconds of CPU time: mean over the four levels (largest). The decoder's own step, "
        f"this T5 over 40 encoder tokens, takes {model:.0f} ms. A dense table of more than "
        f"{LARGEST_TABLE:,} items would take over a gigabyte and is left out.",
        "",
        "| constraint | " + " | ".join(f"{items:,}" for items in catalogues) + " |",
        "|---|" + "---|" * len(catalogues),
    ]
    for name, by_items in results.items():
        cells = []
        for items in catalogues:
            each = by_items.get(str(items))
            text = "-"
            if each is not None:
                text = f"{sum(each) / len(each):.2f} ({max(each):.2f})"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", growth(results, model)]
    return {"results": {**results, "decoder_step_ms": model}, "lines": lines}


def growth(results: dict, model: float) -> str:
    """How a step grows from 100,000 to 10,000,000 items."""
    parts = []
    for name, by_items in results.items():
        if not {"100000", "10000000"} <= set(by_items):
            continue
        small, large = sum(by_items["100000"]), sum(by_items["10000000"])
        with_model = (large + 4 * model) / (small + 4 * model)
        parts.append(f"{name} {large / small:.2f}, with the decoder {with_model:.2f}")
    return "From 100,000 to 10,000,000 items, times: " + "; ".join(parts) + "."
