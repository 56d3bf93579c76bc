"""Users per CPU-second of a full-sort evaluation: our search, and transformers' ``generate`` on
the same weights, codes and histories.

Ours ranks all items (``full_sort_predict``), ``generate`` returns the best ``beam`` items; under
``score_type: joint`` its lists, searched with a vectorised mask, must be ours. ``--model`` is TIGER
(a T5 of the published size), STORE or LCRec (their default language models). Weights are random,
which costs the same time as trained ones; codes and histories are real. ``--whole=1`` also ranks
for every test user.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py --model=TIGER --data_path=<folder> --whole=1
"""

from __future__ import annotations

import statistics
import time

import torch
from common import arguments, medians, spread, untrained, write_result
from measure import Parts, apart, causal_flops, ceiling, peak_mib, t5_flops
from peers import CausalPeer, T5Peer

from recbole_genrec.backbone import CausalBackbone, CausalDecoder, EncoderDecoderBackbone
from recbole_genrec.backbone.encoder_decoder import backbone as encoder_decoder
from recbole_genrec.decoding import ItemTrie, descent, reached
from recbole_genrec.decoding.ranking import Ranking
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
SETTINGS = {
    "TIGER": {"backbone_config": T5},
    "STORE": {"tokenizer_epochs": 0},
    "LCRec": {"sid_loss_vocab": "full"},  # a code competes with all words, as in the peers' scores
}
TRIE = [(ItemTrie, "children"), (ItemTrie, "leaf_below"), (descent, "child_log_probs")]
RANKING = [(Ranking, name) for name in ("__init__", "note", "reach", "items")]
PARTS = [(*place, "trie", True) for place in TRIE] + [
    (*place, "ranking of all items", True) for place in RANKING
]
PARTS += [(descent, name, "top-k", True) for name in ("top", "best_leaves")]
PARTS += [(reached, name, "top-k", True) for name in ("best_leaves", "best_items_on_leaves")]
PARTS += [
    (EncoderDecoderBackbone, "encode", "encoder", True),
    (EncoderDecoderBackbone, "memory", "cross-attention keys", True),
    (EncoderDecoderBackbone, "extend", "feed-forward", False),
    (encoder_decoder, "self_attention", "self-attention", True),
    (encoder_decoder, "path_attention", "self-attention", True),
    (encoder_decoder, "cross_attention", "cross-attention", True),
    (CausalDecoder, "__init__", "prompt", False),
    (CausalDecoder, "step", "search state", False),
    (CausalBackbone, "forward", "language model", True),
]
CALLBACK, MASK, JOINT, FREE = (
    "(a) generate, callback",
    "(b) generate, mask",
    "(c) ours, joint",
    "(c) ours, renormalised",
)
CALLBACK_16, JOINT_16 = f"{CALLBACK}, bf16", f"{JOINT}, bf16"
KEPT = f"{CALLBACK}, freed memory kept"


class Case:
    """A model, its peer, and the test histories that both search."""

    def __init__(self, options):
        model, loader = untrained(
            options.model,
            options,
            options.cache_dir,
            **SETTINGS[options.model],
            MAX_ITEM_LIST_LENGTH=options.history,
            beam_width=20,
            topk=[10],
            score_type="joint",
        )
        self.model, self.peer = model, (T5Peer if options.model == "TIGER" else CausalPeer)(model)
        scorer = type(model) if hasattr(model, "log_probs") else type(model.vocabulary)
        scorer = next(owner for owner in scorer.__mro__ if "log_probs" in vars(owner))
        self.parts = [*PARTS, (scorer, "log_probs", "output layer", True)]
        batches = [batch[0] for batch in loader]
        self.columns = {
            key: torch.cat([batch[key] for batch in batches])
            for key in (model.ITEM_SEQ, model.ITEM_SEQ_LEN, model.USER_ID)
        }
        self.history, self.length = self.columns[model.ITEM_SEQ], self.columns[model.ITEM_SEQ_LEN]
        self.users = torch.randperm(len(self.length), generator=torch.Generator().manual_seed(0))[
            : options.users
        ]
        by_length = self.users[self.length[self.users].argsort(stable=True)]
        few = by_length[
            :: -(-len(by_length) // options.peer_users)
        ]  # few users with the lengths of all
        self.few = few[torch.randperm(len(few), generator=torch.Generator().manual_seed(1))]

    def rank(self, rows: torch.Tensor) -> None:
        """Our evaluation of some users, in RecBole's batches."""
        for part in rows.split(self.model.config["eval_batch_size"]):
            self.model.full_sort_predict(
                {key: values[part] for key, values in self.columns.items()}
            )

    def generate(self, width: int, way: str) -> list[torch.Tensor]:
        """Items and scores of the few users by the peer, 1,280 sequences at a time (beam 50: 25
        users).
        """
        parts = [
            self.peer.search(self.history[rows], self.length[rows], width, way)
            for rows in self.few.split(min(64, 1280 // width))
        ]
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def flops(self, width: int) -> float:
        """Useful operations a user of the search under ``joint``: every level asks for every
        beam.
        """
        levels, users = self.model.codes.shape[1], len(self.users)
        widths = [min(width, level.n_edges) for level in self.model.trie.levels[: levels - 1]]
        if isinstance(self.peer, T5Peer):
            steps = [(1, 1), *((queries, step + 2) for step, queries in enumerate(widths))]
            return (
                t5_flops(
                    T5, self.length[self.users] * levels, steps, self.model.vocabulary.n_outputs
                )
                / users
            )
        tokens = self.model.prompts(self.history[self.users], self.length[self.users])[1]
        steps = [(queries, step + 1) for step, queries in enumerate(widths)]
        return (
            causal_flops(
                self.model.config["backbone_config"],
                tokens,
                steps,
                self.peer.columns.stop - self.peer.columns.start,
            )
            / users
        )

    def timed(self, function, *args, bf16: bool = False, **settings: object):
        """A run of ``function`` under some settings; it returns its CPU seconds."""

        def run() -> float:
            for name, value in settings.items():
                self.model.config[name] = value
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                function(*args)
            return time.process_time() - started

        return run


def settings(width: int, score_type: str = "joint") -> dict:
    """Keys of a search."""
    return {"beam_width": width, "topk": [min(10, width)], "score_type": score_type}


def usual(case: Case, widths: list[int]) -> dict:
    """What (a) and (b) do at each width."""
    ways = {CALLBACK: ("callback", False), MASK: ("mask", False), CALLBACK_16: ("callback", True)}
    return {
        (name, width): case.timed(case.generate, width, way, bf16=bf16, **settings(width))
        for width in widths
        for name, (way, bf16) in ways.items()
    }


def measure(case: Case, width: int, repeats: int, fastest: float, theirs: dict) -> dict:
    """All searches at one beam width; ``theirs``: :func:`usual` in a process that does not keep
    freed memory.
    """
    joint = settings(width)
    ways = {
        CALLBACK: theirs[CALLBACK, width],
        MASK: theirs[MASK, width],
        KEPT: case.timed(case.generate, width, "callback", **joint),
        JOINT: case.timed(case.rank, case.users, **joint),
        FREE: case.timed(case.rank, case.users, **settings(width, "renormalised")),
        CALLBACK_16: theirs[CALLBACK_16, width],
        JOINT_16: case.timed(case.rank, case.users, bf16=True, **joint),
    }
    memory = {name: peak_mib(ways[name]) for name in (KEPT, JOINT, FREE, JOINT_16)}
    seconds = dict(zip(ways, medians(repeats, *ways.values()), strict=True))
    users = {name: len(case.users if "ours" in name else case.few) for name in ways}
    speed = {name: [users[name] / value for value in values] for name, values in seconds.items()}
    middle = {name: statistics.median(values) for name, values in speed.items()}
    parts = {}
    for name in (JOINT, FREE):
        with (clock := Parts()).installed(*case.parts):
            ways[name]()
        parts[name] = clock.shares()
    for name, value in joint.items():
        case.model.config[name] = value
    masked, ours = (
        case.generate(width, "mask"),
        case.model.search(case.history[case.few], case.length[case.few], k=width),
    )
    gflops = case.flops(width) * middle[JOINT] / 1e9
    return {
        "users_per_cpu_second": speed,
        "ratio_over_a": {name: value / middle[CALLBACK] for name, value in middle.items()},
        "peak_mib": memory,
        "identical_lists": (masked[0] == ours.items).all(1).double().mean().item(),
        "largest_score_difference": (masked[1] - ours.scores).abs().max().item(),
        "useful_gflop_per_user": case.flops(width) / 1e9,
        "useful_gflop_per_second": gflops,
        "share_of_ceiling": gflops / fastest,
        "time": parts,
    }


def main() -> None:
    options = arguments(
        __doc__,
        dataset="amazon-beauty",
        model="TIGER",
        beams="10,20,50",
        users=256,
        peer_users=32,
        repeats=5,
        history=20,
        whole=0,
        cache_dir=".cache",
    )
    case, widths = Case(options), [int(width) for width in options.beams.split(",")]
    theirs = apart(usual(case, widths))
    keep_freed_memory()
    sizes = ceiling(
        [
            (1024, 1024, 1024),
            (1280, 128, 384),
            (1280, 384, 128),
            (1280, 128, 1024),
            (1280, 1024, 128),
        ]
    )
    results = {}
    for width in widths:
        results[width] = measure(case, width, options.repeats, max(sizes.values()), theirs)
        print(f"beam {width}: {results[width]}", flush=True)
    whole = None
    if options.whole:
        everyone = torch.arange(len(case.length))
        whole = case.timed(
            case.rank, everyone, beam_width=20, topk=[10], score_type="renormalised"
        )()
    write(options, case, results, sizes, whole)
    if min(result["identical_lists"] for result in results.values()) < 0.95:
        raise SystemExit("The two searches disagree, so the ratio means nothing.")


def write(
    options, case: Case, results: dict[int, dict], sizes: dict[str, float], whole: float | None
) -> None:
    """The result files."""
    about = {
        "dataset": options.dataset,
        "items": len(case.model.codes) - 1,
        "code_sizes": list(case.model.level_sizes),
        "backbone": case.model.config["backbone_config"],
        "users": {"ours": len(case.users), "generate": len(case.few), "test set": len(case.length)},
        "mean_history": {
            name: case.length[users].double().mean().item()
            for name, users in (("ours", case.users), ("generate", case.few))
        },
        "ceiling_gflop_per_second": sizes,
        "whole_test_set_cpu_seconds": whole,
    }
    words = len(case.peer.lm.get_output_embeddings().weight)
    lines = [
        f"{options.model}, random weights, backbone {about['backbone']}, codes "
        f"{about['code_sizes']} of {options.dataset}'s "
        f"{about['items']} items, test histories of at most {options.history} items. Ours "
        f"ranks all items for {len(case.users)} users "
        f"drawn at random (mean history {about['mean_history']['ours']:.1f}), "
        f"{case.model.config['search_batch_size']} at a time; generate "
        f"searches every n-th of them by length, {len(case.few)} users (mean "
        f"{about['mean_history']['generate']:.1f}), at most 64 users "
        f"and 1,280 beams at a time. It scores {words:,} words and codes. CPU time of the "
        "process, median (range) of "
        f"{options.repeats} turns; float32, or bf16 autocast as `precision: bf16` (the "
        "`paper` presets) sets it. Our commands let the C "
        "library keep freed memory; (a) and (b) run in a process without that, as their "
        "users run them, and (a) once more with it. MiB: "
        "growth of the resident memory in one turn, freed memory kept.",
        "",
        "Users for whom (b) and (c) joint find the same list in the same order: "
        + ", ".join(
            f"beam {width} {result['identical_lists']:.1%}" for width, result in results.items()
        )
        + "; largest difference of a score "
        f"{max(result['largest_score_difference'] for result in results.values()):.1e}.",
        "",
        "Ceiling, GFLOP/s of a float32 product: "
        + ", ".join(f"{name} {value:.0f}" for name, value in sizes.items())
        + ". The share counts "
        "the model's useful operations under joint (no padding, no masked pairs) against "
        "the fastest of them. Of a causal model these are the operations of a plain pass, of which "
        "ours leaves out the last layer's states of prompts and repeated instructions.",
        "",
        "Where our CPU time goes:",
        "",
        "| beam, search | part, share of the time |",
        "|---|---|",
    ]
    for width, result in results.items():
        for name, parts in result["time"].items():
            lines.append(
                f"| {width}, {name} | "
                + ", ".join(f"{part} {share:.1%}" for part, share in parts.items())
                + " |"
            )
    if whole:
        lines += [
            "",
            f"All {len(case.length):,} test users, beam 20, all items ranked, "
            f"renormalised: {whole / 60:.1f} CPU-minutes.",
        ]
    header = [
        "beam",
        "search",
        "users per CPU-second",
        "times (a)",
        "MiB",
        "useful GFLOP/s (share of the ceiling)",
    ]
    rows = []
    for width, result in results.items():
        for name, values in result["users_per_cpu_second"].items():
            useful = (
                f"{result['useful_gflop_per_second']:.1f} ({result['share_of_ceiling']:.0%})"
                if name == JOINT
                else "-"
            )
            memory = f"{result['peak_mib'][name]:.0f}" if name in result["peak_mib"] else "-"
            rows.append(
                [str(width), name, spread(values), result["ratio_over_a"][name], memory, useful]
            )
    title = f"Users per CPU-second of a full-sort evaluation: {options.model}"
    write_result(
        f"decoding-{options.model.lower()}",
        title,
        {**about, "results": results},
        header,
        rows,
        "\n".join(lines),
    )


if __name__ == "__main__":
    main()
