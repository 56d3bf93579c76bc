"""Rows of a leaderboard: means over seeds, costs, codes, and a paired test against a baseline."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ConfigError
from recbole_genrec.report.best import lower_is_better
from recbole_genrec.report.board import Codes, Measurements, Row, Spread, mean_metrics
from recbole_genrec.report.comparable import tail_ratio
from recbole_genrec.report.comparisons import adjusted
from recbole_genrec.report.evaluated_data import data_text
from recbole_genrec.report.metric_names import is_of_rank, kind, place
from recbole_genrec.report.protocol import masked_text, whole_protocol
from recbole_genrec.report.ranks import in_one_form
from recbole_genrec.report.runs import Run, saved_ranks
from recbole_genrec.report.significance import compare
from recbole_genrec.settings.classification import benchmark_keys, display_keys
from recbole_genrec.settings.rules import did_you_mean

METRIC = "ndcg@10"
DETAIL_KEYS = (
    "MAX_ITEM_LIST_LENGTH",
    "eval_args",
    "repeatable",
    "candidate_file",
    "epochs",
    "train_batch_size",
    "learning_rate",
    "loss_type",
    "train_rows",
)
GENERATIVE_DETAIL_KEYS = (
    "valid_users",
    "backbone",
    "backbone_config",
    "item_text_fields",
    "text_encoder",
    "item_vectors",
    "item_vectors_use",
    "codebook_sizes",
    "collision",
)
RARE_DETAIL_KEYS = {
    "ratio_rows": "users",
    "exclude_history_in_training": False,
    "batch_targets": 0,
}
"""Keys that are told where they differ from the usual value."""
SEARCH_DETAIL_KEYS = ("beam_width", "score_type", "score_mode", "constraint")
DECISIONS = ("after_fit", "weights")
"""Stages after the training that decide on the validation split: of a method, of an ensemble."""

UserMetrics = dict[int, dict[tuple[str, str], float]]  # seed -> (user, test item) -> metric


def make_rows(runs: Sequence[Run], baseline: str | None = None) -> list[Row]:
    """The rows of a leaderboard.

    Args:
        runs: the runs of all datasets.
        baseline: name of the run to test against.

    Returns:
        One row per (dataset, name): datasets in order of appearance, best mean of
        :func:`main_metric` first, failed runs last.

    Raises:
        ConfigError: ``baseline`` is the name of no run.
    """
    check_baseline([run.name for run in runs], baseline)
    metric = main_metric(runs)
    rows: list[Row] = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        runs_of_dataset = [run for run in runs if run.dataset == dataset]
        rows += _rows_of_dataset(runs_of_dataset, metric, baseline)
    return rows


def check_baseline(names: Sequence[str], baseline: str | None) -> None:
    """Check that there is a run to test against.

    Args:
        names: of the runs; one may stand there several times.
        baseline: name of the run to test against, ``None`` for none.

    Raises:
        ConfigError: ``baseline`` is the name of no run.
    """
    if baseline is None or baseline in names:
        return
    names = list(dict.fromkeys(names))
    hint = did_you_mean(baseline, names)
    raise ConfigError(f"baseline {baseline!r} is no run; there are {', '.join(names)}.{hint}")


def _rows_of_dataset(runs: Sequence[Run], metric: str, baseline: str | None) -> list[Row]:
    """The rows of one dataset, best first."""
    metrics = _user_metrics(runs, metric)
    reference = metrics.get(baseline or "", {})
    rows: list[Row] = []
    for name in dict.fromkeys(run.name for run in runs):
        users = metrics.get(name, {})
        row = _row([run for run in runs if run.name == name], metric, users)
        row["is_baseline"] = name == baseline
        if reference and name != baseline:
            comparison = compare(users, reference)
            row["against_baseline"] = comparison.plain() if comparison is not None else None
        rows.append(row)
    _correct(rows)

    sign = -1 if lower_is_better(metric) else 1

    def goodness(row: Row) -> float:
        mean = mean_metrics(row).get(metric)
        return -math.inf if mean is None else sign * mean

    return sorted(rows, key=goodness, reverse=True)


def _correct(rows: Sequence[Row]) -> None:
    """Add p-values that are corrected for the number of rows of a dataset."""
    tests = [row["against_baseline"] for row in rows if row["against_baseline"]]
    for test, p_value in zip(tests, adjusted([test["p"] for test in tests]), strict=True):
        test["p_adjusted"] = p_value


def main_metric(runs: Sequence[Run]) -> str:
    """The metric that rows are ordered and tested by.

    It is NDCG@10 if all results have it, else the first NDCG, else the first metric, that all have.
    """
    common = common_metrics([run.result for run in runs if run.result])
    if METRIC in common or not common:
        return METRIC
    ndcg = [name for name in common if kind(name) == "ndcg"]
    return (ndcg or common)[0]


def common_metrics(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The test metrics that all results have, in the order of the first."""
    tests = [result["test_result"] for result in results]
    if not tests:
        return []
    names = set(tests[0]).intersection(*tests)
    return [name for name in tests[0] if name in names]


def _user_metrics(runs: Sequence[Run], metric: str) -> dict[str, UserMetrics]:
    """The metric of each user by name of the row, of the runs whose ranks were kept."""
    if not is_of_rank(metric):
        return {}
    kept = {run.key: ranks for run in runs if (ranks := saved_ranks(run)) is not None}
    metrics: dict[str, UserMetrics] = {}
    for (name, _, seed), ranks in zip(kept, in_one_form(kept.values()), strict=True):
        metrics.setdefault(name, {})[seed] = ranks.by_case(metric)
    return metrics


def _row(runs: Sequence[Run], metric: str, users: UserMetrics) -> Row:
    """The runs of one name and dataset, over their seeds, not yet tested against a baseline."""
    results = [run.result for run in runs if run.result]
    measurements: Measurements = _measurements(results, metric) if results else {}
    return {
        "dataset": runs[0].dataset,
        "run": runs[0].name,
        "model": runs[0].model,
        "tokenizer": runs[0].tokenizer,
        "seeds": [run.seed for run in runs if run.result],
        "failed": {run.seed: run.error for run in runs if run.status == "failed"},
        "pending": [run.seed for run in runs if run.status == "pending"],
        "test": _test(results),
        **measurements,
        "users": len(next(iter(users.values()))) if users else None,
        "is_baseline": False,
        "against_baseline": None,
    }


def _test(results: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    """The metrics that all results have."""
    test = {}
    for name in common_metrics(results):
        test[name] = _spread(result["test_result"][name] for result in results)
    return test


def _measurements(results: Sequence[dict[str, Any]], metric: str) -> Measurements:
    """Costs and codes of the results of one row, and what they were made with."""
    valid = _spread((result.get("best_valid_result") or {}).get(metric) for result in results)

    seconds = [_cpu_seconds(result) for result in results]
    cpu_seconds = {}
    for stage in seconds[0]:
        cpu_seconds[stage] = _mean(result[stage] for result in seconds)
    certified = f"certified@{place(metric)}"
    searches = [result["report"].get("search", {}) for result in results]
    tokenizers = [result["report"].get("tokenizer") for result in results]
    return {
        "valid": {metric: valid},
        "parameters": _mean(result.get("parameters") for result in results),
        "cpu_seconds": cpu_seconds,
        "certified": _mean(search.get(certified) for search in searches),
        "codes": _codes(tokenizers) if tokenizers[0] else None,
        "protocol": whole_protocol(results[0]),
        "details": _details(results),
    }


def _cpu_seconds(result: dict[str, Any]) -> dict[str, float | None]:
    """CPU seconds of each stage of a run.

    ``tokenizer`` is its fit, also when the run took the stored result. What is decided on the
    validation split after the training counts as validation.
    """
    cpu = result.get("cpu_seconds") or {}
    training = cpu.get("train")
    if not training and "fit" in cpu:  # loops of RecBole's own (RecVAE) are not timed by epoch
        training = cpu["fit"] - cpu["valid"]
    validation = [cpu[stage] for stage in ("valid", *DECISIONS) if stage in cpu]
    return {
        "tokenizer": result["report"].get("tokenizer", {}).get("fit_cpu_seconds"),
        "training": training,
        "validation": sum(validation) if validation else None,
        "test": cpu.get("test"),
    }


def _codes(tokenizers: Sequence[dict[str, Any]]) -> Codes:
    """Statistics of the codes, over the seeds."""
    levels = list(zip(*(stats["levels"] for stats in tokenizers), strict=False))
    sizes = []
    perplexities = []
    for level in levels:  # the figures of one level, a seed each
        sizes.append(max(seed["size"] for seed in level))
        perplexities.append(_mean(seed["perplexity"] for seed in level))
    before = [stats["before"] for stats in tokenizers]
    return {
        "sizes": sizes,
        "perplexity": perplexities,
        "collision_rate": _mean(stats["collision_rate"] for stats in before),
        "largest_group": max(stats["largest_group"] for stats in before),
        "unique_ids_before": _mean(stats["unique_ids"] for stats in before),
        "unique_ids": _mean(stats["unique_ids"] for stats in tokenizers),
        "items": before[0]["items"],
    }


def _details(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The command, commits, versions and settings behind the numbers of one row."""
    first = results[0]
    keys = [*DETAIL_KEYS]
    if first["report"]:
        keys += GENERATIVE_DETAIL_KEYS
    if "search" in first["report"]:
        keys += SEARCH_DETAIL_KEYS
    config = first["config"]
    settings = {key: config[key] for key in keys if config.get(key) is not None}
    for key, usual in RARE_DETAIL_KEYS.items():
        if config.get(key) not in (None, usual):
            settings[key] = config[key]
    if "item_vectors" in settings:
        settings["item_vectors"] = Path(settings["item_vectors"]).name
    else:
        settings.pop("item_vectors_use", None)
    if "candidate_file" in settings:
        settings["candidate_file"] = Path(settings["candidate_file"]).name
    if tail_ratio(config) is not None:
        settings["tail_ratio"] = tail_ratio(config)
    data = data_text(config)
    if data:
        settings["data"] = data
    return {
        "command": _command(first.get("command")),
        "commits": sorted({str(result.get("commit")) for result in results}),
        "versions": first.get("versions") or {},
        "history masked": masked_text(config),
        **settings,
    }


def _command(command: str | None) -> str | None:
    """The command without the machine's folders and without what a benchmark adds."""
    added = (benchmark_keys() & display_keys()) - {"data_path"}
    words = []
    for word in shlex.split(command or ""):
        key = word.lstrip("-").partition("=")[0]
        if key in added:
            continue
        if word.startswith("--data_path="):
            word = "--data_path=DATA"
        words.append(word)
    return shlex.join(words) or None


def _spread(values: Iterable[float | None]) -> Spread:
    """Mean, sample standard deviation (``None`` for a single value) and number of values."""
    known = [value for value in values if value is not None]
    std = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": _mean(known), "std": std, "n": len(known)}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
