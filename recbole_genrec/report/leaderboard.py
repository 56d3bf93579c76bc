"""One leaderboard from the result files of many runs: means over seeds, costs, codes, and a paired test against a baseline."""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.report.significance import compare
from recbole_genrec.report.tables import csv_text, markdown
from recbole_genrec.settings.classification import benchmark_keys, display_keys
from recbole_genrec.settings.rules import nearest
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.atomic import atomic_write
from recbole_genrec.storage.digests import digest

RESULT = {
    "model",
    "dataset",
    "seed",
    "config",
    "report",
    "test_result",
}  # tells the result of a run from other files
METRIC = "ndcg@10"


@dataclass(frozen=True)
class Run:
    """One (name, dataset, seed) and what became of it; ``file`` is its result file, read into ``result`` when it is there."""

    name: str
    dataset: str
    seed: int
    model: str
    tokenizer: str | None = None
    status: str = "done"
    error: str | None = None
    file: Path | None = None
    result: dict | None = None


def collect(paths: Iterable[str | os.PathLike]) -> tuple[list[Run], dict]:
    """The runs of benchmark folders, of folders with result files, and of single result files.

    Returns:
        runs, and ``{"baseline": name, "threads": n}`` as far as a benchmark folder says so. Without a benchmark folder a run is named
        after its model and tokenizer; where several settings share these, after the settings that differ.

    Raises:
        ArtefactError: a path is missing, or there is no result in it.
        ConfigError: a result is given twice, seeds of a run have other settings, or results of a dataset another protocol.
    """
    runs, about, loose = [], {}, []
    for path in map(Path, paths):
        if (path / STATE).is_file():
            state = read_json(path / STATE)
            about |= {
                key: state[key] for key in ("baseline", "threads") if state.get(key) is not None
            }
            for entry in state["runs"]:
                file = path / entry["result"]
                done = entry["status"] == "done"
                shared = {
                    key: entry[key]
                    for key in ("name", "dataset", "seed", "model", "tokenizer", "status", "error")
                }
                runs.append(Run(**shared, file=file, result=read_json(file) if done else None))
        else:
            files = sorted(path.glob("*.json")) if path.is_dir() else [path]
            loose += [
                (file, content)
                for file in files
                for content in [read_json(file)]
                if content.keys() >= RESULT
            ]
    names = _names([content for _, content in loose])
    runs += [
        Run(
            name,
            content["dataset"],
            content["seed"],
            content["model"],
            _tokenizer(content),
            file=file,
            result=content,
        )
        for name, (file, content) in zip(names, loose, strict=True)
    ]
    if not runs:
        raise ArtefactError(f"There is no result file in {', '.join(map(str, paths))}.")
    twice = [
        key
        for key in {(run.name, run.dataset, run.seed) for run in runs}
        if sum(_key(run) == key for run in runs) > 1
    ]
    if twice:
        raise ConfigError(
            f"Two results claim the same run, dataset and seed: {sorted(twice)[0]}. Give each of them once."
        )
    _check_comparable(runs)
    return runs, about


def _check_comparable(runs: Sequence[Run]) -> None:
    """The seeds of a run share its settings, and all results of a dataset how they were tested."""
    done = [run for run in runs if run.result]
    for of, key, differ in (
        ("seeds of one run", lambda run: (run.name, run.dataset), _different_settings),
        ("rows of one table", lambda run: run.dataset, _different_protocols),
    ):
        first: dict[object, Run] = {}
        for run in done:
            other = first.setdefault(key(run), run)
            if keys := differ(other.result["config"], run.result["config"]):
                raise ConfigError(
                    f"{other.file} and {run.file} cannot be {of}: they differ in {', '.join(keys)} "
                    f"({other.result['config'].get(keys[0])} and {run.result['config'].get(keys[0])}). Make a leaderboard of each."
                )


def _free_keys() -> frozenset[str]:
    """Settings in which the seeds of one run may differ."""
    return display_keys() | {"seed"}


def _different_settings(one: dict, other: dict) -> list[str]:
    """Keys that both have, with other values."""
    return [
        key
        for key in one
        if key in other and key not in _free_keys() and digest(one[key]) != digest(other[key])
    ]


def _different_protocols(one: dict, other: dict) -> list[str]:
    """Keys that say which items are ranked for whom; how validation was done is each run's own."""
    keys = ("eval_args", "repeatable", "candidate_file")
    return [
        key for key in keys if digest(_of_test(one.get(key))) != digest(_of_test(other.get(key)))
    ]


def _of_test(value: object) -> object:
    mode = value.get("mode") if isinstance(value, dict) else None
    return {**value, "mode": mode["test"]} if isinstance(mode, dict) and "test" in mode else value


def _key(run: Run) -> tuple[str, str, int]:
    return run.name, run.dataset, run.seed


def _tokenizer(result: dict) -> str | None:
    return result["config"]["tokenizer"] if result["report"] else None


def _names(results: Sequence[dict]) -> list[str]:
    """Model and tokenizer; with the settings that tell runs of one model and tokenizer on one dataset apart."""
    bases, settings = [], []
    for result in results:
        config = result["config"]
        bases.append("-".join(filter(None, [result["model"], _tokenizer(result)])))
        settings.append({key: value for key, value in config.items() if key not in _free_keys()})
    names = []
    for base, own, result in zip(bases, settings, results, strict=True):
        same = [
            s
            for b, s, r in zip(bases, settings, results, strict=True)
            if b == base and r["dataset"] == result["dataset"]
        ]
        differing = [
            key for key in own if any(digest(other.get(key)) != digest(own[key]) for other in same)
        ]
        names.append(" ".join([base, *(f"{key}={own[key]}" for key in differing)]))
    return names


def make_rows(runs: Sequence[Run], baseline: str | None = None) -> list[dict]:
    """One row per (dataset, name) with plain values, datasets in order of appearance, best mean of :func:`main_metric` first, failed runs
    last.

    Raises:
        ConfigError: ``baseline`` is the name of no run.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    if baseline is not None and baseline not in names:
        near = nearest(baseline, names)
        raise ConfigError(
            f"baseline {baseline!r} is no run; there are {', '.join(names)}."
            + (f" Did you mean {near[0]}?" if near else "")
        )
    metric, rows = main_metric(runs), []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        here = [run for run in runs if run.dataset == dataset]
        reference = _user_metrics([run for run in here if run.name == baseline], metric)
        for name in dict.fromkeys(run.name for run in here):
            own = [run for run in here if run.name == name]
            row, users = _row(own, metric), _user_metrics(own, metric)
            row["users"] = len(next(iter(users.values()))) if users else None
            row["is_baseline"] = name == baseline
            test = compare(users, reference) if reference and name != baseline else None
            row["against_baseline"] = test and test.plain()
            rows.append(row)
    order = list(dict.fromkeys(row["dataset"] for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            order.index(row["dataset"]),
            -row["test"].get(metric, {"mean": -1.0})["mean"],
        ),
    )


def main_metric(runs: Sequence[Run]) -> str:
    """What rows are ordered and tested by: NDCG@10 if all results have it, else the first NDCG, else the first figure, that all have."""
    results = [run.result["test_result"] for run in runs if run.result]
    common = [
        name
        for name in (results[0] if results else {})
        if all(name in result for result in results)
    ]
    return (
        METRIC
        if METRIC in common
        else next((name for name in common if name.startswith("ndcg@")), (common or [METRIC])[0])
    )


def _user_metrics(runs: Sequence[Run], metric: str) -> dict[int, dict[tuple[str, str], float]]:
    """Seed -> (user, test item), raw ids -> ``metric``, of the runs whose ranks were kept."""
    found = {}
    for run in runs:
        folder = (
            run.result and run.result.get("ranks") and run.file.parent / str(run.result["ranks"])
        )
        if folder and folder.is_dir() and metric.startswith(("ndcg@", "recall@")):
            found[run.seed] = UserRanks.load(folder).by_case(metric)
    return found


def _row(runs: Sequence[Run], metric: str) -> dict:
    """The runs of one name and dataset, over their seeds."""
    done = [run.result for run in runs if run.result]
    row = {
        "dataset": runs[0].dataset,
        "run": runs[0].name,
        "model": runs[0].model,
        "tokenizer": runs[0].tokenizer,
        "seeds": [run.seed for run in runs if run.result],
        "failed": {run.seed: run.error for run in runs if run.status == "failed"},
        "pending": [run.seed for run in runs if run.status == "pending"],
        "test": {},
    }
    if not done:
        return row
    first = done[0]
    tokenizers = [result["report"].get("tokenizer") for result in done]
    row["test"] = {
        name: _spread(result["test_result"][name] for result in done)
        for name in first["test_result"]
    }
    row["valid"] = {
        metric: _spread((result["best_valid_result"] or {}).get(metric) for result in done)
    }
    row["parameters"] = _mean(result["parameters"] for result in done)
    row["cpu_seconds"] = {
        key: _mean(_cpu_seconds(result)[key] for result in done) for key in _cpu_seconds(first)
    }
    row["certified"] = _mean(
        result["report"].get("search", {}).get(f"certified@{place(metric)}") for result in done
    )
    row["codes"] = _codes(tokenizers) if tokenizers[0] else None
    row["details"] = _details(done)
    return row


def place(metric: str) -> int:
    """The k of ``ndcg@k``; 10 of a metric without one."""
    return int(metric.partition("@")[2] or 10)


def _cpu_seconds(result: dict) -> dict[str, float | None]:
    """``tokenizer``: its fit, also when a run took the stored result; ``training``, ``validation``, ``test``."""
    cpu = result.get("cpu_seconds") or {}
    fit = result["report"].get("tokenizer", {}).get("fit_cpu_seconds")
    # RecBole's own training loops (RecVAE, ...) are not timed by epoch
    training = cpu.get("train") or (cpu["fit"] - cpu["valid"] if cpu else None)
    return {
        "tokenizer": fit,
        "training": training,
        "validation": cpu.get("valid"),
        "test": cpu.get("test"),
    }


def _codes(tokenizers: Sequence[dict]) -> dict:
    levels = list(zip(*(stats["levels"] for stats in tokenizers), strict=False))
    before = [stats["before"] for stats in tokenizers]
    return {
        "sizes": [max(level["size"] for level in seeds) for seeds in levels],
        "perplexity": [_mean(level["perplexity"] for level in seeds) for seeds in levels],
        "collision_rate": _mean(stats["collision_rate"] for stats in before),
        "largest_group": max(stats["largest_group"] for stats in before),
        "unique_ids_before": _mean(stats["unique_ids"] for stats in before),
        "unique_ids": _mean(stats["unique_ids"] for stats in tokenizers),
        "items": before[0]["items"],
    }


def _details(results: Sequence[dict]) -> dict:
    """What the numbers of one row stand on."""
    first = results[0]
    config = first["config"]
    keys = [
        "MAX_ITEM_LIST_LENGTH",
        "eval_args",
        "repeatable",
        "epochs",
        "train_batch_size",
        "learning_rate",
        "loss_type",
        "train_rows",
    ]
    if first["report"]:
        keys += [
            "valid_users",
            "backbone",
            "backbone_config",
            "item_text_fields",
            "text_encoder",
            "codebook_sizes",
            "collision",
        ]
    if "search" in first["report"]:
        keys += ["beam_width", "score_type", "score_mode", "constraint"]
    return {
        "command": _command(first["command"]),
        "commits": sorted({str(result["commit"]) for result in results}),
        "versions": first["versions"],
        **{key: config[key] for key in keys if config.get(key) is not None},
    }


def _command(command: str | None) -> str | None:
    """The command without the machine's folders and without what a benchmark adds."""
    words = shlex.split(command or "")
    own = (benchmark_keys() & display_keys()) - {"data_path"}
    kept = [word for word in words if word.lstrip("-").partition("=")[0] not in own]
    return (
        shlex.join("--data_path=DATA" if word.startswith("--data_path=") else word for word in kept)
        or None
    )


def _spread(values: Iterable[float | None]) -> dict:
    """Mean, sample standard deviation (``None`` for a single value) and number of values."""
    known = [value for value in values if value is not None]
    return {
        "mean": _mean(known),
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "n": len(known),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def make_leaderboard(
    paths: Iterable[str | os.PathLike],
    baseline: str | None = None,
    output: str | os.PathLike | None = None,
) -> str:
    """The leaderboard of ``paths`` as Markdown; ``output`` names a folder for ``leaderboard.md``, ``.csv`` and ``.json``.

    Args:
        paths: see :func:`collect`.
        baseline: name of the run to test against; default the benchmark file's.
    """
    runs, about = collect(paths)
    baseline = baseline or about.get("baseline")
    rows, metric = make_rows(runs, baseline), main_metric(runs)
    text = markdown(rows, metric, place(metric), about.get("threads"))
    if output is not None:
        folder = Path(output)
        write_json(
            folder / "leaderboard.json",
            {**about, "baseline": baseline, "metric": metric, "rows": rows},
        )
        for name, content in (("leaderboard.md", text), ("leaderboard.csv", csv_text(rows))):
            with atomic_write(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
    return text


STATE = "runs.json"
