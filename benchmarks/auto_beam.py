"""What ``beam_width: auto`` costs on a trained model beside fixed beams, and what it proves.

Evaluates the same test users at each width and compares the ten best items, where a width proves
them, with exact scoring of all items.

    OMP_NUM_THREADS=1 python benchmarks/auto_beam.py --result=saved/<run>.json --data_path=<folder>
"""

from __future__ import annotations

import statistics
import time

import torch
from common import arguments, medians, spread, write_result

from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.report.rows import make_rows
from recbole_genrec.report.runs import collect
from recbole_genrec.runtime.memory import keep_freed_memory

K = 10
WAYS = {str(width): {"beam_width": width} for width in (10, 20, 50, 160)}
WAYS |= {
    f"auto, at most {widest}": {"beam_width": "auto", "beam_max": widest} for widest in (50, 160)
}


def share(chosen: torch.Tensor) -> float | None:
    """Share of True; None of nothing."""
    return chosen.double().mean().item() if len(chosen) else None


def main() -> None:
    options = arguments(__doc__, result="", users=512, exact=64, repeats=5, label="")
    keep_freed_memory()
    (run,) = collect([options.result])[0]
    (trained,) = make_rows([run])
    where = {"data_path": options.data_path} if options.data_path else {}
    config, model, *_, loader = load_data_and_model(
        run.result["checkpoint"],
        **where,
        gpu_id="",
        topk=[K],
        valid_metric=f"NDCG@{K}",
        beam_width=K,
    )
    batches = [batch[0] for batch in loader]
    columns = {
        key: torch.cat([batch[key] for batch in batches])
        for key in (model.ITEM_SEQ, model.ITEM_SEQ_LEN, model.USER_ID)
    }
    users = torch.randperm(len(columns[model.USER_ID]), generator=torch.Generator().manual_seed(0))[
        : options.users
    ]
    columns = {key: values[users] for key, values in columns.items()}
    history, length = columns[model.ITEM_SEQ], columns[model.ITEM_SEQ_LEN]

    def lists(count: int, **settings: object):
        for name, value in settings.items():
            config[name] = value
        step = config["search_batch_size"]
        found = [
            model.search(history[rows], length[rows], k=K)
            for rows in torch.arange(count).split(step)
        ]
        return torch.cat([part.items[:, :K] for part in found]), torch.cat(
            [part.certified(K) for part in found]
        )

    def evaluation(settings: dict):
        def run() -> float:
            for name, value in settings.items():
                config[name] = value
            started = time.process_time()
            for rows in torch.arange(len(users)).split(config["eval_batch_size"]):
                model.full_sort_predict({key: values[rows] for key, values in columns.items()})
            return time.process_time() - started

        return run

    exact, _ = lists(options.exact, score_mode="exact")
    config["score_mode"] = "beam"
    found = {way: lists(len(users), **settings) for way, settings in WAYS.items()}
    seconds = dict(
        zip(WAYS, medians(options.repeats, *map(evaluation, WAYS.values())), strict=True)
    )
    speed = {way: [len(users) / value for value in values] for way, values in seconds.items()}
    fifty, rows, results = statistics.median(speed["50"]), [], {}
    for way, (items, proven) in found.items():
        both, first = proven & found["50"][1], slice(0, options.exact)
        same, right = (items == found["50"][0]).all(1), (items[first] == exact).all(1)
        results[way] = {
            "users_per_cpu_second": speed[way],
            "times_beam_50": statistics.median(speed[way]) / fifty,
            "proven": share(proven),
            "same_as_beam_50_where_both_prove": share(same[both]),
            "same_as_exact": share(right),
            "same_as_exact_where_proven": share(right[proven[first]]),
        }
        shares = list(results[way].values())[2:]
        rows.append([way, spread(speed[way]), results[way]["times_beam_50"]])
        rows[-1] += ["-" if value is None else f"{value:.1%}" for value in shares]
    about = {
        "model": config["model"],
        "dataset": config["dataset"],
        "trained_by": trained["details"]["command"],
        "trained_at": run.result["commit"],
        f"ndcg@{K}": trained["test"][f"ndcg@{K}"]["mean"],
        "score_type": config["score_type"],
        "users": len(users),
    }
    notes = (
        f"{config['model']} trained by `{about['trained_by']}` (commit "
        f"{about['trained_at']}) to a test NDCG@{K} of "
        f"{about[f'ndcg@{K}']:.4f}: {len(model.codes) - 1} items, code sizes "
        f"{list(model.level_sizes)}. score_type "
        f"{config['score_type']}, {len(users)} test users drawn at random, all items "
        "ranked. CPU time of the process, median (range) of "
        f"{options.repeats} turns. Proven: users whose {K} best items the search proves to "
        "be exact. The last two columns: exact scores of "
        f"the first {options.exact} users."
    )
    header = [
        "beam",
        "users per CPU-second",
        "times beam 50",
        f"top {K} proven",
        "as beam 50 where both prove",
    ]
    header += ["as exact", "as exact where proven"]
    name = "-".join(
        filter(None, ["auto-beam", config["model"].lower(), config["dataset"], options.label])
    )
    title = f"Automatic beam width: {config['model']} on {config['dataset']}" + (
        f", {options.label}" if options.label else ""
    )
    write_result(name, title, {**about, "results": results}, header, rows, notes)


if __name__ == "__main__":
    main()
