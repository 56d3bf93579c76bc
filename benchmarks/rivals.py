"""Our search and its rivals on the same weights, codes and histories, with the same lists.

A T5 of TIGER's size with random weights and no words but the codes decodes 4 codes of 256; a
catalogue is random. Lists of all rivals must be ours, item by item. ``generate`` is transformers';
the cached decode is written by hand (``cached_t5.py``), with a dense table of children or with the
published PyTorch code of STATIC: ``--static=FOLDER`` names a copy of its repository
(github.com/youtube/static-constraint-decoding); without it these rows are left out.

    OMP_NUM_THREADS=1 python benchmarks/rivals.py --static=<folder>
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from cached_t5 import CachedT5, DenseTable, NoTable, Static
from common import arguments, medians, spread, write_result
from measure import apart, peak_mib
from peers import Peer
from rival_steps import step_table
from torch import Tensor

from recbole_genrec.backbone import (
    BeamDecoder,
    EncoderDecoderBackbone,
    TiedCodeVocabulary,
    load_encoder_decoder,
)
from recbole_genrec.decoding import ItemTrie, beam_search
from recbole_genrec.decoding.code_tuples import grammar_tuples
from recbole_genrec.runtime.memory import keep_freed_memory

T5 = {
    "model_type": "t5",
    "d_model": 128,
    "d_ff": 1024,
    "num_layers": 4,
    "num_heads": 6,
    "d_kv": 64,
    "dropout_rate": 0.1,
}
LEVELS, SIZE = 4, 256
CELLS = "10:10000:5,50:10000:5,200:10000:5,50:100000:5,50:10000:50"
OURS = "ours, trie"
FREE = "ours, no constraint"


class Weights:
    """One set of weights as our backbone, as transformers' T5 and as the cached decode."""

    def __init__(self):
        torch.manual_seed(0)
        self.sizes = (SIZE,) * LEVELS
        self.backbone = EncoderDecoderBackbone(load_encoder_decoder("scratch", T5)).eval()
        self.vocabulary = TiedCodeVocabulary(self.sizes, self.backbone.d_model)
        words = self.vocabulary.n_outputs
        self.lm = load_encoder_decoder("scratch", {**T5, "vocab_size": words}).eval()
        self.lm.load_state_dict(copy.deepcopy(self.backbone.state_dict()), strict=False)
        with torch.no_grad():
            self.lm.shared.weight.copy_(self.vocabulary.table)
        self.cached = CachedT5(self.lm, LEVELS, SIZE)

    @torch.no_grad()
    def decoder(self, words: Tensor, mask: Tensor, score_type: str) -> BeamDecoder:
        """Our decoder after histories ``[B, S]``."""
        states = self.backbone.encode(self.vocabulary.embed(words), mask)
        memory = self.backbone.memory(states, mask)
        log_probs = partial(self.vocabulary.log_probs, score_type=score_type)
        vocabulary = self.vocabulary
        return BeamDecoder(
            self.backbone, memory, vocabulary.start, vocabulary.embed_code, log_probs
        )


class CodesPeer(Peer):
    """``generate`` over the codes alone; the mask comes from a dense table of children."""

    def __init__(self, weights: Weights, codes: Tensor, table: DenseTable):
        model = SimpleNamespace(codes=codes)
        super().__init__(model, weights.lm, weights.vocabulary.first)
        self.table = table

    def prompt(self, history: Tensor, length: Tensor) -> dict[str, Tensor | int]:
        """As of :class:`Peer`; all histories are full."""
        words = (self.model.codes[history] + self.first).flatten(1)
        return {
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
            "decoder_start_token_id": 0,
        }

    def _masked(self, path: Tensor, scores: Tensor) -> Tensor:
        nodes = torch.zeros(len(path), dtype=torch.int64)
        for level, tokens in enumerate(path.unbind(1)):
            codes = (tokens - self.first[level]).clamp(0, SIZE - 1)
            nodes = self.table.tables[level][nodes, codes].long()
        level = path.shape[1]
        children = self.table.tables[level][nodes]  # [B * K, V]
        masked = torch.full_like(scores, -torch.inf)
        columns = slice(int(self.first[level]), int(self.first[level]) + SIZE)
        masked[:, columns] = scores[:, columns].masked_fill(children < 0, -torch.inf)
        return masked


class Cell:
    """Users and a catalogue, and all the ways to search for them.

    Args:
        weights: of all ways.
        beams: K.
        items: of the catalogue.
        history: items of each history.
        static: folder of STATIC, or nothing.
    """

    def __init__(self, weights: Weights, beams: int, items: int, history: int, static: str):
        self.weights, self.beams, self.items, self.history = weights, beams, items, history
        generator = torch.Generator().manual_seed(1)
        rows = torch.randint(SIZE, (items + items // 10, LEVELS), generator=generator)
        rows = rows.unique(dim=0)
        rows = rows[torch.randperm(len(rows), generator=generator)[:items]]
        self.codes = torch.cat([torch.zeros(1, LEVELS, dtype=torch.int64), rows])
        self.trie = ItemTrie(self.codes, weights.sizes)
        self.table, self.nothing = DenseTable(rows, SIZE), NoTable(rows, SIZE)
        self.static = Static(rows, SIZE, static, beams) if static else None
        self.users = 16 if beams <= 50 else 8
        self.few = {10: 4, 50: 2}.get(beams, 1)  # users that generate searches at once
        shape = (self.users, history)
        self.histories = torch.randint(1, items + 1, shape, generator=generator)
        self.words = weights.vocabulary.tokens(self.codes[self.histories]).flatten(1)
        self.mask = torch.ones_like(self.words, dtype=torch.bool)
        self.peer = CodesPeer(weights, self.codes, self.table)

    def generate(self, way: str) -> Tensor:
        """Items ``[few, K]`` of transformers' search."""
        history = self.histories[: self.few]
        length = torch.full((self.few,), self.history)
        return self.peer.search(history, length, self.beams, way)[0]

    def cached(self, constraint: DenseTable) -> Tensor | None:
        """Items ``[B, K]`` of the cached decode."""
        paths, _ = self.weights.cached.search(self.words, self.mask, self.beams, constraint)
        return None if constraint is self.nothing else constraint.items_of(paths)

    def ours(self, score_type: str = "joint") -> Tensor:
        """Items ``[B, K]`` of our search."""
        decoder = self.weights.decoder(self.words, self.mask, score_type)
        return beam_search(decoder, self.trie, self.beams, score_type=score_type).items

    def free(self) -> None:
        """Our search without a trie."""
        decoder = self.weights.decoder(self.words, self.mask, "joint")
        grammar_tuples(decoder, self.weights.sizes, self.beams)

    def ways(self) -> dict[str, tuple[Callable, int, bool]]:
        """For each row its function, its number of users, and whether it runs in bf16."""
        few, users = self.few, self.users
        callback, mask = partial(self.generate, "callback"), partial(self.generate, "mask")
        dense = partial(self.cached, self.table)
        ways = {
            DEFAULT: (callback, few, False),
            "generate, callback": (callback, few, False),
            "generate, tensor mask": (mask, few, False),
            "generate, callback, bf16": (callback, few, True),
            "generate, tensor mask, bf16": (mask, few, True),
            "cached by hand, dense table": (dense, users, False),
            "cached by hand, no constraint": (partial(self.cached, self.nothing), users, False),
            "cached by hand, dense table, bf16": (dense, users, True),
        }
        if self.static is not None:
            ways["cached by hand, STATIC"] = (partial(self.cached, self.static), users, False)
        ways |= {
            OURS: (self.ours, users, False),
            FREE: (self.free, users, False),
            f"{OURS}, bf16": (self.ours, users, True),
            "ours, trie, renormalised scores": (partial(self.ours, "renormalised"), users, False),
        }
        return ways


DEFAULT = "generate, callback, freed memory not kept"
OTHER_LISTS = ("bf16", "renormalised", "no constraint")


def timed(function: Callable, users: int, bf16: bool) -> Callable[[], float]:
    """A run that returns CPU seconds a user."""

    def run() -> float:
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            function()
        return (time.process_time() - started) / users

    return run


def measure(cell: Cell, default: Callable[[], float], repeats: int) -> dict:
    """Lists, speed and memory of every way in a cell.

    Args:
        cell: what is searched.
        default: the run of :data:`DEFAULT`, in a process that does not keep freed memory.
        repeats: turns.
    """
    ways = cell.ways()
    expected = cell.ours()
    same = {}
    for name, (function, users, _) in ways.items():
        if not any(word in name for word in OTHER_LISTS) and name != DEFAULT:
            same[name] = (function() == expected[:users]).all(1).double().mean().item()
    runs = {name: timed(*way) for name, way in ways.items()}
    runs[DEFAULT] = default
    memory = {name: peak_mib(run) for name, run in runs.items() if name != DEFAULT}
    seconds = dict(zip(runs, medians(repeats, *runs.values()), strict=True))
    speed = {name: [1 / value for value in values] for name, values in seconds.items()}
    return {
        "users": {name: way[1] for name, way in ways.items()},
        "users_per_cpu_second": speed,
        "identical_lists": same,
        "peak_mib": memory,
    }


def search_rows(results: dict) -> list[list]:
    """The rows of the table."""
    rows = []
    for cell, result in results.items():
        speed = result["users_per_cpu_second"]
        middle = {name: statistics.median(values) for name, values in speed.items()}
        for name, values in speed.items():
            reference = f"{OURS}, bf16" if "bf16" in name else OURS
            same = result["identical_lists"].get(name)
            memory = result["peak_mib"].get(name)
            rows.append(
                [
                    *cell.split(":"),
                    name,
                    spread(values),
                    middle[reference] / middle[name],
                    "-" if same is None else f"{same:.0%}",
                    "-" if memory is None else f"{memory:.0f}",
                ]
            )
    return rows


def overheads(results: dict) -> str:
    """What the constraint costs, by cell."""
    parts = []
    pairs = {
        "ours": (OURS, FREE),
        "dense table": ("cached by hand, dense table", "cached by hand, no constraint"),
        "STATIC": ("cached by hand, STATIC", "cached by hand, no constraint"),
    }
    for cell, result in results.items():
        middle = {
            name: statistics.median(values)
            for name, values in result["users_per_cpu_second"].items()
        }
        costs = [
            f"{name} {middle[free] / middle[bound] - 1:+.1%}"
            for name, (bound, free) in pairs.items()
            if bound in middle
        ]
        parts.append(f"{cell} " + ", ".join(costs))
    return "; ".join(parts)


def main() -> None:
    options = arguments(
        __doc__,
        cells=CELLS,
        repeats=5,
        static="",
        step_items="10000,100000,1000000,10000000",
    )
    weights = Weights()
    cells = {}
    for name in options.cells.split(","):
        cells[name] = Cell(weights, *map(int, name.split(":")), options.static)
    # A process that does not keep freed memory, as users of transformers run it.
    default = apart({name: timed(*cell.ways()[DEFAULT]) for name, cell in cells.items()})
    keep_freed_memory()
    results = {}
    for name, cell in cells.items():
        results[name] = measure(cell, default[name], options.repeats)
        print(name, results[name], flush=True)
    steps = step_table([int(items) for items in options.step_items.split(",")], options)
    write(options, results, steps)
    worst = min(min(result["identical_lists"].values()) for result in results.values())
    if worst < 1:
        raise SystemExit("The searches disagree, so the ratios mean nothing.")


def write(options, results: dict, steps: dict) -> None:
    """The result files."""
    notes = [
        f"T5 {T5} with random weights, vocabulary of {1 + LEVELS * SIZE} codes, {LEVELS} codes of "
        f"{SIZE}, random catalogues, full histories. `generate` and the cached decode score "
        "`joint`, and so does ours: all float32 lists are compared with ours, whole and in order, "
        "for all users of the row. Under `renormalised`, our default, lists are others. Users at "
        "once: ours and the cached decode 16 (8 at 200 beams), generate 4, 2 and 1 at 10, 50 and "
        "200 beams. CPU time of the process on a machine that other work shared, median (range) "
        f"of {options.repeats} interleaved turns; freed memory is kept unless the row says "
        "otherwise. Columns: `times`: ours divided by the row, bf16 by bf16. MiB: growth of the "
        "resident memory in one turn. Lists are not ranked beyond the beam.",
        "",
        "What the constraint adds to the time of the same search without one (beams:items:history):"
        f" {overheads(results)}.",
    ]
    if not options.static:
        notes += ["", "STATIC was not given (`--static=FOLDER`), so its rows are missing."]
    notes += ["", *steps["lines"]]
    header = ["beams", "items", "history", "search", "users per CPU-second", "times", "same lists"]
    write_result(
        "rivals",
        "The search and its rivals",
        {"results": results, "steps": steps["results"], "backbone": T5},
        [*header, "MiB"],
        search_rows(results),
        "\n".join(notes),
    )


if __name__ == "__main__":
    main()
