"""Users per CPU-second of the full evaluation: TokenRec, which ranks by cosine after one pass,
and TIGER, which searches with a beam.

Both get the same T5 (the default of TIGER.yaml) with random weights, the same users and histories,
and score all items for each.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_cost.py --dataset=ml-100k
"""

from __future__ import annotations

import statistics
import tempfile
import time

import torch
from common import arguments, load, medians, spread, write_result
from recbole.data.interaction import Interaction

from recbole_genrec.model.registry import build_model
from recbole_genrec.model.tokenrec.model import SEEN_AT_TEST
from recbole_genrec.runtime.memory import keep_freed_memory

FEW_EPOCHS = {
    "graph_epochs": 1,
    "tokenizer_epochs": 1,
}  # what codes mean does not change what they cost


def main() -> None:
    options = arguments(__doc__, users=256, beam=20, repeats=5, history=20)
    keep_freed_memory()
    shared = {"MAX_ITEM_LIST_LENGTH": options.history, "beam_width": options.beam}
    models = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, more in (("TIGER", {}), ("TokenRec", FEW_EPOCHS)):
            if name == "TokenRec":
                more = {**more, "backbone_config": models["TIGER"].config["backbone_config"]}
            config, _, (train, _, test) = load(name, options, cache_dir=cache, **shared, **more)
            models[name] = build_model(config, train._dataset).eval()
    rows = (
        torch.cat([batch[0][models["TIGER"].ITEM_SEQ_LEN] for batch in test])
        .eq(options.history)
        .nonzero()
        .flatten()[: options.users]
    )
    users = test._dataset.inter_feat[rows]
    if len(rows) < options.users:
        print(
            f"{options.dataset} has only {len(rows)} test users with {options.history} "
            "items of history."
        )

    def timed(model):
        def run() -> float:
            started = time.process_time()
            model.full_sort_predict(Interaction(users.interaction))
            return time.process_time() - started

        return run

    seconds = medians(options.repeats, *(timed(model) for model in models.values()))
    speed = {
        name: [len(rows) / value for value in values]
        for name, values in zip(models, seconds, strict=True)
    }
    ratio = statistics.median(speed["TokenRec"]) / statistics.median(speed["TIGER"])
    history, length = models["TIGER"]._history(users)
    template = torch.full_like(length, SEEN_AT_TEST)
    prompts = models["TokenRec"].prompts
    shown = prompts.shown(template, length, history.shape[1])
    codes = models["TokenRec"].user_codes[users["user_id"]], models["TokenRec"].codes[history]
    sources = {
        "TIGER": models["TIGER"].source(history, length),
        "TokenRec": prompts.source(template, *codes, shown),
    }
    tokens = {name: ids.shape[1] for name, (ids, _) in sources.items()}
    backbone = models["TIGER"].config["backbone_config"]
    result = {
        "dataset": options.dataset,
        "items": models["TIGER"].n_items - 1,
        "users": len(rows),
        "history": options.history,
        "beam": options.beam,
        "backbone_config": backbone,
        "levels": {name: model.codes.shape[1] for name, model in models.items()},
        "encoder_tokens": tokens,
        "users_per_cpu_second": speed,
        "ratio_of_medians": ratio,
    }
    notes = (
        f"Test users of {options.dataset} ({result['items']} items) with {options.history} "
        "items of history; every item gets a score. Both "
        f"models have a T5 with {backbone['num_layers']} + {backbone['num_layers']} layers "
        f"of width {backbone['d_model']} and random "
        f"weights. TIGER: {result['levels']['TIGER']} codes an item, {tokens['TIGER']} "
        f"tokens in the encoder, beam {options.beam}. "
        f"TokenRec: {result['levels']['TokenRec']} codes and a marker an item, "
        f"{tokens['TokenRec']} tokens in the encoder, "
        f"{models['TokenRec'].config['dec_len']} in the decoder. CPU time of the process, "
        f"median (range) of {options.repeats} turns."
    )
    table = [
        ["TokenRec", spread(speed["TokenRec"]), ratio],
        [f"TIGER, beam {options.beam}", spread(speed["TIGER"]), 1.0],
    ]
    write_result(
        "evaluation_cost",
        "Users per CPU-second of the evaluation",
        result,
        ["model", "users per CPU-second", "relative"],
        table,
        notes,
    )
    print(f"\nratio {ratio:.1f}")


if __name__ == "__main__":
    main()
