"""Building the item trie and one constrained step of the search for catalogues of up to ten
million items.

Codes are drawn at random (``--shape=4x256``) or skewed as learned codes are (first codes by Zipf's
law). One step is what the trie adds to the decoder at one code position: children,
log-probabilities of legal codes, top-k, for 64 users x 20 beams on prefixes of random items; beside
it the decoder's own step, a T5 of TIGER's size. Results do not rank all items here: that table
alone grows with the catalogue.

    OMP_NUM_THREADS=1 python benchmarks/scale.py
"""

from __future__ import annotations

import statistics
import time

import torch
from common import arguments, medians, write_result
from measure import peak_mib

from recbole_genrec.backbone import (
    BeamDecoder,
    EncoderDecoderBackbone,
    TiedCodeVocabulary,
    load_encoder_decoder,
)
from recbole_genrec.decoding import ItemTrie
from recbole_genrec.decoding.scores import child_log_probs, top
from recbole_genrec.runtime.memory import keep_freed_memory

T5 = {"model_type": "t5", "d_model": 128, "d_ff": 1024, "num_layers": 4, "num_heads": 6, "d_kv": 64}
SHAPES = {"4 x 256": (256,) * 4, "3 x 4096": (4096,) * 3}
USERS, BEAMS, TOKENS = 64, 20, 40


def random_codes(items: int, sizes: tuple[int, ...]) -> torch.Tensor:
    """int64 ``[items + 1, L]``; the first code of an item is skewed, ``p(c) ~ (c + 10) **
    -0.7``, the others are uniform.
    """
    generator = torch.Generator().manual_seed(0)
    weights = (torch.arange(sizes[0], dtype=torch.float64) + 10) ** -0.7
    first = torch.multinomial(weights, items + 1, replacement=True, generator=generator)
    rest = [torch.randint(size, (items + 1,), generator=generator) for size in sizes[1:]]
    return torch.stack([first, *rest], 1)


class Steps:
    """The steps of a search of :data:`USERS` users on a trie, by level."""

    def __init__(self, trie: ItemTrie, generator: torch.Generator):
        self.trie = trie
        leaves = torch.randint(trie.n_leaves, (USERS, BEAMS), generator=generator)
        self.nodes = trie.paths(leaves)[:-1]
        self.scores = -torch.rand(USERS, BEAMS, generator=generator)
        self.blocks = [
            torch.randn(USERS, BEAMS, size, generator=generator).log_softmax(-1)
            for size in trie.sizes
        ]

    def constrain(self, kind: str, level: int) -> None:
        """Children, log-probabilities and top-k of one level."""
        children = self.trie.children(level, self.nodes[level])
        candidates = self.scores.unsqueeze(-1) + child_log_probs(children, self.blocks[level], kind)
        top(candidates.flatten(1), BEAMS)

    def timed(self, kind: str, level: int, turns: int = 20):
        def run() -> float:
            started = time.process_time()
            for _ in range(turns):
                self.constrain(kind, level)
            return 1000 * (time.process_time() - started) / turns

        return run


@torch.no_grad()
def decoder_step(sizes: tuple[int, ...]) -> float:
    """CPU milliseconds of the decoder's step after one code, for the same users and beams."""
    backbone, codes = (
        EncoderDecoderBackbone(load_encoder_decoder("scratch", T5)).eval(),
        TiedCodeVocabulary(sizes, T5["d_model"]),
    )
    states, mask = (
        torch.randn(USERS, TOKENS, T5["d_model"]),
        torch.ones(USERS, TOKENS, dtype=torch.bool),
    )
    decoder = BeamDecoder(
        backbone,
        backbone.memory(states, mask),
        codes.start,
        codes.embed_code,
        lambda state, level: codes.log_probs(state, level, "level"),
    )
    queries, seconds = torch.zeros(USERS, BEAMS, dtype=torch.int64), []
    for _ in range(6):
        decoder.start()
        started = time.process_time()
        decoder.step(queries, queries)
        seconds.append(time.process_time() - started)
    return 1000 * statistics.median(seconds[1:])


def main() -> None:
    options = arguments(__doc__, items="10000,100000,1000000,10000000", repeats=5, kind="level")
    keep_freed_memory()
    torch.manual_seed(0)
    results, rows = {}, []
    for name, sizes in SHAPES.items():
        model = decoder_step(sizes)
        for items in map(int, options.items.split(",")):
            codes = random_codes(items, sizes)
            memory = peak_mib(lambda codes=codes, sizes=sizes: ItemTrie(codes, sizes))
            started = time.process_time()
            trie = ItemTrie(codes, sizes)
            built = time.process_time() - started
            del codes
            steps = Steps(trie, torch.Generator().manual_seed(1))
            values = medians(
                options.repeats, *(steps.timed(options.kind, level) for level in range(trie.depth))
            )
            each = [statistics.median(value) for value in values]
            results[f"{name}, {items}"] = {
                "build_seconds": built,
                "trie_mib": trie.memory_bytes / 2**20,
                "build_peak_mib": memory,
                "dense_levels": [level.table is not None for level in trie.levels],
                "branching": [level.width for level in trie.levels],
                "step_ms": each,
                "decoder_step_ms": model,
            }
            dense = " ".join(
                "dense" if level.table is not None else f"window {level.width}"
                for level in trie.levels
            )
            rows.append(
                [
                    name,
                    f"{items:,}",
                    f"{built:.2f}",
                    f"{trie.memory_bytes / 2**20:.0f}",
                    f"{memory:.0f}",
                    dense,
                ]
                + [
                    " ".join(f"{value:.1f}" for value in each),
                    f"{sum(each) / len(each):.2f}",
                    f"{sum(each) / len(each) + model:.1f}",
                ]
            )
            print(rows[-1], flush=True)
            del trie, steps
    growth = {
        name: [results[f"{name}, {items}"]["step_ms"] for items in (100_000, 10_000_000)]
        for name in SHAPES
        if {f"{name}, 100000", f"{name}, 10000000"} <= set(results)
    }
    lines = [
        f"CPU, one thread. {USERS} users x {BEAMS} beams, score `{options.kind}`, "
        "milliseconds of CPU time per step, median of "
        f"{options.repeats} turns. Trie alone: children, log-probabilities, top-k, mean "
        "over the levels; with the decoder: plus the step "
        f"of a T5 of TIGER's size over {TOKENS} encoder tokens. Tables are dense from the "
        "root down within 256 MiB where they pay; below "
        "them stand windows over sorted edges.",
    ]
    for name, (small, large) in growth.items():
        model = results[f"{name}, 100000"]["decoder_step_ms"]
        alone = sum(large) / sum(small)
        together = (sum(large) + len(large) * model) / (sum(small) + len(small) * model)
        lines.append(
            f"From 100,000 to 10,000,000 items, {name}: a step takes {together:.2f} times "
            f"as long, its trie part {alone:.2f}."
        )
    header = [
        "codes",
        "items",
        "build CPU-s",
        "trie MiB",
        "build peak MiB",
        "levels",
        "trie ms by level",
        "mean",
        "with the decoder",
    ]
    write_result(
        "scale", "The item trie at scale", {"results": results}, header, rows, "\n".join(lines)
    )


if __name__ == "__main__":
    main()
