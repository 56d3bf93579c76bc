"""Users per CPU-second of a full-sort evaluation: our search, and transformers' ``generate`` on the same weights, codes and histories.

Ours ranks all items (``full_sort_predict``), ``generate`` returns the best ``beam`` items; with ``score_type: joint`` its lists, searched
with a vectorised mask, must equal ours. Weights are random, which costs the same time as trained ones; codes and histories are real.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py --dataset=amazon-beauty --data_path=<folder that holds amazon-beauty/> --whole=1
"""

from __future__ import annotations

import statistics
import time

import torch
from common import arguments, load, medians, spread, untrained, write_result
from measure import Parts, causal_flops, ceiling, peak_mib, t5_flops
from peers import CausalPeer, T5Peer

from recbole_genrec.backbone import CausalBackbone, CausalDecoder, EncoderDecoderBackbone, encoder_decoder
from recbole_genrec.compat import keep_freed_memory
from recbole_genrec.decoding import ItemTrie, search

TIGER = {"model_type": "t5", "d_model": 128, "d_ff": 1024, "num_layers": 4, "num_heads": 6, "d_kv": 64, "dropout_rate": 0.1}
SEARCH = [(ItemTrie, "children", "trie", True), (search, "child_log_probs", "trie", True), (search, "top", "top-k", True)]
SEARCH += [(search, name, "ranking of all items", True) for name in ("spread", "fill_items", "best_items")]
T5_PARTS = [
    *SEARCH,
    (EncoderDecoderBackbone, "encode", "encoder", True),
    (EncoderDecoderBackbone, "memory", "cross-attention keys", True),
    (EncoderDecoderBackbone, "extend", "feed-forward", False),
    (encoder_decoder, "_self_attention", "self-attention", True),
    (encoder_decoder, "_attention", "cross-attention", True),
]
CAUSAL_PARTS = [*SEARCH, (CausalDecoder, "__init__", "prompt", True), (CausalBackbone, "forward", "beams", True)]


class Case:
    """A model, its peer, and the test histories that both search."""

    def __init__(self, name: str, model, loader, peer, parts: list, options):
        self.name, self.model, self.peer = name, model, peer(model)
        scorer = type(model) if hasattr(model, "log_probs") else type(model.vocabulary)
        self.parts = [*parts, (scorer, "log_probs", "output layer", True)]
        batches = [batch[0] for batch in loader]
        self.history, self.length = (torch.cat([batch[key] for batch in batches]) for key in (model.ITEM_SEQ, model.ITEM_SEQ_LEN))
        drawn = torch.randperm(len(self.length), generator=torch.Generator().manual_seed(0))
        self.users = drawn[: options.users]
        by_length = self.users[self.length[self.users].argsort(stable=True)]
        few = by_length[:: -(-len(by_length) // options.peer_users)]  # few users with the lengths of all
        self.few = few[torch.randperm(len(few), generator=torch.Generator().manual_seed(1))]

    def rank(self, rows: torch.Tensor) -> None:
        """Our evaluation of some users, in RecBole's batches."""
        for part in rows.split(self.model.config["eval_batch_size"]):
            self.model.full_sort_predict({self.model.ITEM_SEQ: self.history[part], self.model.ITEM_SEQ_LEN: self.length[part]})

    def generate(self, width: int, way: str) -> list[torch.Tensor]:
        """Items and scores of the few users by the peer, 1,280 sequences at a time (beam 50: 25 users)."""
        parts = [self.peer.search(self.history[rows], self.length[rows], width, way) for rows in self.few.split(min(64, 1280 // width))]
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def set(self, **settings: object) -> None:
        self.model.config.final_config_dict.update(settings)

    def flops(self, width: int) -> float:
        """Useful operations of the search for :attr:`users` under ``joint``: every level asks for every beam."""
        levels = self.model.codes.shape[1]
        widths = [min(width, level.n_edges) for level in self.model.trie.levels[: levels - 1]]
        if isinstance(self.peer, T5Peer):
            steps = [(1, 1), *((queries, step + 2) for step, queries in enumerate(widths))]
            return t5_flops(TIGER, self.length[self.users] * levels, steps, self.model.vocabulary.n_outputs)
        tokens = self.model.prompts(self.history[self.users], self.length[self.users])[1]
        steps = [(queries, step + 1) for step, queries in enumerate(widths)]
        return causal_flops(self.model.config["backbone_config"], tokens, steps, self.peer.columns.stop - self.peer.columns.start)

    def timed(self, function, *args, bf16: bool = False, **settings: object):
        def run() -> float:
            self.set(**settings)
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                function(*args)
            return time.process_time() - started

        return run


def measure(case: Case, width: int, options, fastest: float) -> tuple[dict, list[list]]:
    """All searches at one beam width: result and table rows."""
    settings = {"beam_width": width, "topk": [min(10, width)]}
    names = {
        "(a) generate, callback": (case.generate, width, "callback"),
        "(b) generate, mask": (case.generate, width, "mask"),
        "(c) ours, joint": (case.rank, case.users),
        "(c) ours, renormalised": (case.rank, case.users),
        "(a) in bf16": (case.generate, width, "callback"),
        "(c) ours, joint, in bf16": (case.rank, case.users),
    }
    kinds = {name: "renormalised" if "renormalised" in name else "joint" for name in names}
    runs = [case.timed(*what, bf16="bf16" in name, score_type=kinds[name], **settings) for name, what in names.items()]
    memory = {name: peak_mib(run) for name, run in zip(names, runs, strict=True)}
    case.set(**settings, score_type="joint")
    theirs, ours = case.generate(width, "mask"), case.model.search(case.history[case.few], case.length[case.few], k=width)
    same = (theirs[0] == ours.items).all(1).double().mean().item()
    speed = {}
    for name, values in zip(names, medians(options.repeats, *runs), strict=True):
        users = len(case.users) if "ours" in name else len(case.few)
        speed[name] = [users / value for value in values]
    middle = {name: statistics.median(values) for name, values in speed.items()}
    gflops = case.flops(width) / len(case.users) * middle["(c) ours, joint"] / 1e9
    parts = {}
    for score_type in ("joint", "renormalised"):
        clock = Parts()
        with clock.installed(*case.parts):
            case.timed(case.rank, case.users, **settings, score_type=score_type)()
        parts[score_type] = clock.shares()
    result = {
        "users_per_cpu_second": speed,
        "ratio_over_a": {name: middle[name] / middle["(a) generate, callback"] for name in names},
        "peak_mib": memory,
        "identical_lists": same,
        "largest_score_difference": (theirs[1] - ours.scores).abs().max().item(),
        "useful_gflop_per_user": case.flops(width) / len(case.users) / 1e9,
        "useful_gflop_per_second": gflops,
        "share_of_ceiling": gflops / fastest,
        "time": parts,
    }
    rows = [
        [case.name, str(width), name, spread(speed[name]), result["ratio_over_a"][name], f"{memory[name]:.0f}"]
        + ([f"{gflops:.1f} ({gflops / fastest:.0%})"] if name == "(c) ours, joint" else ["-"])
        for name in names
    ]
    print(f"{case.name}, beam {width}: {result['ratio_over_a']}, same lists {same:.1%}", flush=True)
    return result, rows


def main() -> None:
    options = arguments(
        __doc__, beams="10,20,50", users=256, peer_users=32, repeats=5, history=20, whole=0, cache_dir=".cache", causal="STORE"
    )
    keep_freed_memory()
    shared = {"MAX_ITEM_LIST_LENGTH": options.history, "beam_width": 20}
    config, _, (train, _, test) = load("TIGER", options, backbone_config=TIGER, cache_dir=options.cache_dir, **shared)
    settings = {"tokenizer_epochs": 0} if options.causal == "STORE" else {}
    causal, causal_test = untrained(options.causal, options, options.cache_dir, **settings, **shared)
    cases = [
        Case("T5", config.model_class(config, train._dataset).eval(), test, T5Peer, T5_PARTS, options),
        Case("causal", causal, causal_test, CausalPeer, CAUSAL_PARTS, options),
    ]
    sizes = ceiling([(1024, 1024, 1024), (1280, 128, 384), (1280, 384, 128), (1280, 128, 1024), (1280, 1024, 128)])
    fastest, results, rows = max(sizes.values()), {}, []
    for case in cases:
        for width in map(int, options.beams.split(",")):
            results[f"{case.name}, beam {width}"], more = measure(case, width, options, fastest)
            rows += more
    whole = None
    if options.whole:
        everyone, case = torch.arange(len(cases[0].length)), cases[0]
        settings = {"beam_width": 20, "topk": [10]}
        whole = {kind: case.timed(case.rank, everyone, **settings, score_type=kind)() for kind in ("renormalised",)}
    write(options, cases, results, rows, sizes, whole)


def write(options, cases: list[Case], results: dict, rows: list, sizes: dict, whole: dict | None) -> None:
    """The result files."""
    t5, causal = cases
    about = {
        "dataset": options.dataset,
        "items": len(t5.model.codes) - 1,
        "code_sizes": {case.name: list(case.model.level_sizes) for case in cases},
        "users": {"ours": len(t5.users), "generate": len(t5.few), "test set": len(t5.length)},
        "mean_history": {"ours": t5.length[t5.users].double().mean().item(), "generate": t5.length[t5.few].double().mean().item()},
        "search_batch_size": t5.model.config["search_batch_size"],
        "ceiling_gflop_per_second": sizes,
        "whole_test_set_cpu_seconds": whole,
    }
    lines = [
        f"CPU, one thread. T5: TIGER's size, 4 + 4 layers, d_model 128, d_ff 1024, 6 heads x 64, codes of `rkmeans` "
        f"{about['code_sizes']['T5']}. Causal: {options.causal}'s default language model, untrained. "
        f"{options.dataset}, {about['items']} items, test histories of at most {options.history} items. "
        f"Ours ranks {len(t5.users)} users drawn at random (mean history "
        f"{about['mean_history']['ours']:.1f}), {about['search_batch_size']} at a time; generate searches every n-th of them by length, "
        f"{len(t5.few)} users (mean {about['mean_history']['generate']:.1f}), 1280 beams at a time but at most 64 users. "
        f"CPU time of the process, median (range) of {options.repeats} turns. MiB: growth of the resident memory in one turn. "
        "bf16: autocast, as `precision: bf16` sets it; everything else is float32. ",
        f"(a) and (b) score the T5's 32,100 words, or {options.causal}'s text vocabulary, and the codes; (b) normalises as (c) does. "
        "Lists of (b) and (c) joint that are the same: "
        + ", ".join(f"{name} {result['identical_lists']:.1%}" for name, result in results.items())
        + f"; largest difference of a score {max(result['largest_score_difference'] for result in results.values()):.1e}.",
        "Ceiling, GFLOP/s of a float32 product: "
        + ", ".join(f"{name} {value:.0f}" for name, value in sizes.items())
        + ". The share counts the model's useful operations under joint (no padding, no masked pairs) against the fastest of them.",
        "",
        "Where our CPU time goes, beam 20:",
        "",
        "| model, score | " + "part, share of the time |",
        "|---|---|",
    ]
    for name, result in results.items():
        if name.endswith("beam 20"):
            for kind, parts in result["time"].items():
                lines.append(f"| {name}, {kind} | " + ", ".join(f"{part} {share:.1%}" for part, share in parts.items()) + " |")
    if whole:
        spent = ", ".join(f"{kind} {seconds / 60:.1f} CPU-minutes" for kind, seconds in whole.items())
        lines += ["", f"The whole test set, {len(t5.length):,} users, T5, beam 20, all items ranked: {spent}."]
    header = ["model", "beam", "search", "users per CPU-second", "times (a)", "MiB", "useful GFLOP/s (share of the ceiling)"]
    title = "Users per CPU-second of a full-sort evaluation"
    write_result(
        "decoding" if options.causal == "STORE" else f"decoding-{options.causal.lower()}",
        title,
        {**about, "results": results},
        header,
        rows,
        "\n".join(lines),
    )


if __name__ == "__main__":
    main()
