"""The cost of a list with a search and without one: TIGER's beams through the item trie, SETRec's
one pass and one product, TimelineRec's product with all items.

The catalogue is synthetic: 12,101 items (as many as amazon-beauty has) with random vectors and
codes, and users whose histories are as long as amazon-beauty's. Weights are random, which costs the
same time as trained ones. TIGER and SETRec read their histories with a T5 of one size, that of
TIGER's paper; TimelineRec has its default size. Every row ranks all items for the same users
(``full_sort_predict``), what is kept from batch to batch (vectors of items, edges) is made before.

    OMP_NUM_THREADS=1 python benchmarks/one_product.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import arguments, medians, spread, untrained, write_result
from measure import peak_mib

from recbole_genrec.runtime.memory import keep_freed_memory

NAME = "synthetic"
WIDTH = 64  # of the items' random vectors
T5 = {
    "model_type": "t5",
    "d_model": 128,
    "d_ff": 1024,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "num_heads": 6,
    "d_kv": 64,
    "dropout_rate": 0.1,
}
SEARCHES = [(10, "renormalised"), (20, "renormalised"), (50, "renormalised"), (20, "joint")]


def write_catalogue(folder: Path, items: int, users: int, generator: np.random.Generator) -> Path:
    """RecBole's files of a synthetic dataset; returns the file of the items' vectors.

    A user has two held-out items and 1 to 20 before them, 6 on average, few of them many.
    """
    data = folder / NAME
    data.mkdir()
    lengths = np.minimum(generator.geometric(1 / 6, users), 20) + 2
    # Every item occurs, else RecBole would not know it.
    drawn = generator.integers(0, items, int(lengths.sum()))
    drawn[:items] = generator.permutation(items)[: len(drawn)]
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    ends = lengths.cumsum()
    for user, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        for place, item in enumerate(drawn[end - length : end]):
            rows.append(f"u{user}\ti{item}\t{place}")
    (data / f"{NAME}.inter").write_text("\n".join(rows) + "\n", encoding="utf-8")

    vectors = generator.standard_normal((items, WIDTH)).round(3)
    file = folder / "vectors.tsv"
    lines = [f"i{item}\t" + " ".join(map(str, row)) for item, row in enumerate(vectors.tolist())]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def build(options, name: str, vectors: Path, **settings: object):
    """``(model, its test histories)`` with random weights."""
    settings |= {
        "eval_batch_size": options.batch,
        "search_batch_size": options.batch,
        "item_text_fields": None,
        "item_vectors": str(vectors),
        "topk": [10],
    }
    model, loader = untrained(name, options, **settings)
    batches = [batch[0] for batch in loader]
    columns = {
        key: torch.cat([batch[key] for batch in batches])
        for key in (model.ITEM_SEQ, model.ITEM_SEQ_LEN, model.USER_ID)
    }
    return model, columns


def ranks(model, columns: dict, rows: list[torch.Tensor], **settings: object):
    """A run over batches of users; it returns CPU seconds a user."""
    count = sum(map(len, rows))

    def run() -> float:
        for key, value in settings.items():
            model.config[key] = value
        started = time.process_time()
        for part in rows:
            model.full_sort_predict({key: values[part] for key, values in columns.items()})
        return (time.process_time() - started) / count

    return run


def products(items: int, width: int, batch: int):
    """One product of states with all item vectors, and nothing else; CPU seconds a user."""
    states, vectors = torch.randn(batch, width), torch.randn(items + 1, width)

    def run(turns: int = 20) -> float:
        started = time.process_time()
        for _ in range(turns):
            states @ vectors.T
        return (time.process_time() - started) / (turns * batch)

    return run


def cases(options, vectors: Path) -> dict:
    """What is measured, by its name in the table."""
    t5 = {"backbone_config": T5}
    tiger, columns = build(options, "TIGER", vectors, tokenizer="random", beam_width=20, **t5)
    order = torch.randperm(len(columns[tiger.ITEM_SEQ_LEN]), generator=torch.manual_seed(0))
    chosen = order[: options.users]
    by_length = chosen[columns[tiger.ITEM_SEQ_LEN][chosen].argsort(stable=True)]
    rows = list(by_length.split(options.batch))
    ways = {}
    for beams, score in SEARCHES:
        ways[f"TIGER, search, {beams} beams, {score}"] = ranks(
            tiger, columns, rows, beam_width=beams, score_type=score
        )
    outside = {"cf_file": str(vectors), "allow_external_cf": True}
    setrec, columns = build(options, "SETRec", vectors, **t5, **outside)
    ways["SETRec, T5 of the same size"] = ranks(setrec, columns, rows)
    for name, settings in {
        "tree of codes, exact": {"output": "codes", "tokenizer": "random"},
        "softmax over items": {"output": "items"},
    }.items():
        timeline, columns = build(options, "TimelineRec", vectors, **settings)
        ways[f"TimelineRec, {name}"] = ranks(timeline, columns, rows)
    wide = setrec.reader.n_tokens * T5["d_model"]
    ways[f"one product alone, width {wide} (SETRec)"] = products(options.items, wide, options.batch)
    ways["one product alone, width 64 (TimelineRec)"] = products(options.items, 64, options.batch)
    options.mean_history = columns[tiger.ITEM_SEQ_LEN][chosen].double().mean().item()
    return ways


def main() -> None:
    options = arguments(
        __doc__, dataset=NAME, items=12_101, all_users=6000, users=256, batch=64, repeats=5
    )
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        options.data_path = folder
        generator = np.random.default_rng(0)
        vectors = write_catalogue(Path(folder), options.items, options.all_users, generator)
        ways = cases(options, vectors)
    memory = {name: peak_mib(run) for name, run in ways.items()}
    seconds = dict(zip(ways, medians(options.repeats, *ways.values()), strict=True))
    speed = {name: [1 / value for value in values] for name, values in seconds.items()}
    beside = statistics.median(speed["TIGER, search, 20 beams, renormalised"])
    rows = [
        [name, spread(values), statistics.median(values) / beside, f"{memory[name]:.0f}"]
        for name, values in speed.items()
    ]
    notes = (
        f"{options.items:,} synthetic items, random weights, {options.users} users with histories "
        f"of {options.mean_history:.1f} items on average (at most 20), {options.batch} at a time, "
        f"sorted by length. TIGER and SETRec: backbone {T5}; SETRec reads five tokens an item and "
        "TIGER four. TimelineRec: its default size (2 layers, width 64), one position an item. "
        "CPU time of the process, float32, median (range) of "
        f"{options.repeats} interleaved turns; every row scores or ranks all items of every user. "
        "The products alone are the last step of the rows above them, without what makes the "
        "states. MiB: growth of the resident memory in one turn. A fast list is no good list: "
        "quality stands in the tables of results."
    )
    header = ["list of a user by", "users per CPU-second", "times TIGER at 20 beams", "MiB"]
    result = {"users_per_cpu_second": speed, "peak_mib": memory, "backbone": T5}
    write_result(
        "one_product", "A list by search, by one pass, by one product", result, header, rows, notes
    )


if __name__ == "__main__":
    main()
