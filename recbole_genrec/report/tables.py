"""The rows of a leaderboard as Markdown for people and CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from recbole_genrec.report.significance import REPEATS

TEST_NOTE = (
    f"Test against the baseline: per-user difference of {{metric}}, averaged over the common seeds; 95 % percentile bootstrap interval and "
    f"two-sided sign-flip permutation test over users ({REPEATS:,} draws each, p = (1 + hits) / (1 + draws), not corrected for the number "
    "of runs). It says whether other users would show the difference, not whether other seeds would: see the standard deviations."
)
UNTESTED = (
    "Not tested against the baseline: {names}. The test pairs the ranks of users with the same test item in both, in a seed that both ran; "
    "runs keep them beside their results with --save_ranks=True."
)
NOTES = (
    "Users: those with a test target (general models also rank for users with two interactions). ± is the sample standard deviation "
    "over seeds. CPU-s are seconds of CPU time of one run (mean over seeds), all threads together; "
    "tokenizer is its fit, also where a run took the stored result; validation is the sum over epochs. Certified: share of users whose "
    "top {place} is proven to be the exact best of the model. Collisions are counted before repair. The text encoder is used by the "
    "tokenizers that read sentence vectors."
)


def markdown(rows: Sequence[dict], metric: str, place: int, threads: int | None = None) -> str:
    """Per dataset three tables (accuracy, cost, codes), what the runs stand on, and how to read it; ends with a newline."""
    parts = ["# Leaderboard"]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        here = [row for row in rows if row["dataset"] == dataset]
        parts += [f"## {dataset}", *_protocols(here), _accuracy(here, metric)]
        done = [row for row in here if row["test"]]
        if done:
            parts += ["### Cost", _cost(done, place)]
        coded = [row for row in done if row["codes"]]
        if coded:
            parts += ["### Codes", _codes(coded, metric)]
        failed = [
            f"* {row['run']}, seed {seed}: FAILED, {error}"
            for row in here
            for seed, error in row["failed"].items()
        ]
        if failed:
            parts.append("\n".join(failed))
        if done:
            parts += [
                "### Commands and settings",
                "\n".join([*(_details(row) for row in done), *_versions(done)]),
            ]
    notes = NOTES.format(place=place)
    if threads:
        notes += f" Each run had {threads} thread(s)."
    parts.append(notes)
    untested = [
        row["run"]
        for row in rows
        if row["test"] and not (row["is_baseline"] or row["against_baseline"])
    ]
    if untested and any(row["is_baseline"] for row in rows):
        parts.append(UNTESTED.format(names=", ".join(dict.fromkeys(untested))))
    if any(row["against_baseline"] for row in rows):
        parts.append(TEST_NOTE.format(metric=metric))
    return "\n\n".join(parts) + "\n"


def csv_text(rows: Sequence[dict]) -> str:
    """One line a row, nested values as ``a.b``, lists joined by ``;``."""
    flat = [
        dict(_flatten({key: value for key, value in row.items() if key != "details"}))
        for row in rows
    ]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _flatten(value: dict, prefix: str = ""):
    for key, entry in value.items():
        if isinstance(entry, dict) and key != "failed":
            yield from _flatten(entry, f"{prefix}{key}.")
        elif entry is not None:
            yield (
                f"{prefix}{key}",
                ";".join(map(str, entry)) if isinstance(entry, (list, dict)) else entry,
            )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    )


def _accuracy(rows: Sequence[dict], metric: str) -> str:
    metrics = list(dict.fromkeys(name for row in rows for name in row["test"]))
    compared = any(row["against_baseline"] for row in rows)
    header = ["run", "model", "tokenizer", "seeds", "users", *metrics, f"valid {metric}"]
    header += [f"{metric} against the baseline", "p"] if compared else []
    lines = []
    for row in rows:
        line = [
            row["run"],
            row["model"],
            row["tokenizer"] or "-",
            _seeds(row),
            _number(row["users"], ","),
        ]
        line += [_spread(row["test"].get(name)) for name in metrics] + [
            _spread(row["valid"][metric] if row["test"] else None)
        ]
        lines.append(line + (_comparison(row) if compared else []))
    return _table(header, lines)


def _cost(rows: Sequence[dict], place: int) -> str:
    header = [
        "run",
        "parameters",
        "tokenizer CPU-s",
        "training CPU-s",
        "validation CPU-s",
        "test CPU-s",
        f"certified top {place}",
    ]
    return _table(
        header,
        [
            [
                row["run"],
                _number(row["parameters"], ",.0f"),
                *(
                    _number(row["cpu_seconds"][stage], ",.1f")
                    for stage in ("tokenizer", "training", "validation", "test")
                ),
                _number(row["certified"], ".1%"),
            ]
            for row in rows
        ],
    )


def _codes(rows: Sequence[dict], metric: str) -> str:
    header = [
        "run",
        metric,
        "perplexity per level / size",
        "items that collide",
        "largest group",
        "unique ids before / after",
        "items",
    ]
    lines = []
    for row in rows:
        codes = row["codes"]
        levels = ", ".join(
            f"{value:.0f}/{size}"
            for value, size in zip(codes["perplexity"], codes["sizes"], strict=True)
        )
        unique = f"{codes['unique_ids_before']:,.0f} / {codes['unique_ids']:,.0f}"
        collide, largest, items = (
            f"{codes['collision_rate']:.2%}",
            f"{codes['largest_group']:,}",
            f"{codes['items']:,}",
        )
        lines.append(
            [row["run"], _spread(row["test"].get(metric)), levels, collide, largest, unique, items]
        )
    return _table(header, lines)


def _seeds(row: dict) -> str:
    planned = len(row["seeds"]) + len(row["failed"]) + len(row["pending"])
    text = f"{len(row['seeds'])}/{planned}"
    text += f", {len(row['failed'])} FAILED" if row["failed"] else ""
    return text + (f", {len(row['pending'])} not run" if row["pending"] else "")


def _comparison(row: dict) -> list[str]:
    test = row["against_baseline"]
    if not test:
        return ["baseline" if row["is_baseline"] else "-", "-"]
    cell = f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}], {test['users']:,} users, {len(test['seeds'])} seed(s)"
    return [cell, f"{test['p']:.4f}"]


def _spread(value: dict | None) -> str:
    if not value or value["mean"] is None:
        return "-"
    return f"{value['mean']:.4f}" + (f" ± {value['std']:.4f}" if value["std"] is not None else "")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _protocols(rows: Sequence[dict]) -> list[str]:
    keys = ("eval_args", "repeatable", "MAX_ITEM_LIST_LENGTH")
    found = dict.fromkeys(
        ", ".join(f"{key} {row['details'].get(key)}" for key in keys) for row in rows if row["test"]
    )
    return [f"Test split under {text}." for text in found]


def _details(row: dict) -> str:
    details = row["details"]
    named = {"command", "commits", "versions", "eval_args", "repeatable", "MAX_ITEM_LIST_LENGTH"}
    text = f"* {row['run']}: `{details['command']}`, seeds {', '.join(map(str, row['seeds']))}, commit {', '.join(details['commits'])}"
    return text + "".join(f"; {key} {value}" for key, value in details.items() if key not in named)


def _versions(rows: Sequence[dict]) -> list[str]:
    """One line per set of library versions."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(
            ", ".join(f"{name} {version}" for name, version in row["details"]["versions"].items()),
            [],
        ).append(row["run"])
    return [
        f"* {text}" + (f" ({', '.join(names)})" if len(found) > 1 else "")
        for text, names in found.items()
    ]


def side_by_side(columns: dict[str, dict[str, float]]) -> str:
    """The same figures of several groups, one a line."""
    lines = [f"{'':<12}" + "".join(f"{name:>10}" for name in columns)]
    for figure in next(iter(columns.values())):
        lines.append(
            f"{figure:<12}" + "".join(f"{group[figure]:>10.6g}" for group in columns.values())
        )
    return "\n".join(lines)


def results_table(results: dict[str, dict]) -> str:
    """Test metrics of several runs as a Markdown table, columns in the order of the first run."""
    columns = list(next(iter(results.values()))["test_result"])
    lines = [
        "| model | " + " | ".join(columns) + " | minutes |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for name, result in results.items():
        cells = [f"{result['test_result'][column]:.4f}" for column in columns]
        minutes = (
            sum(
                result["seconds"].get(stage, 0)
                for stage in ("data", "model_and_tokenizer", "fit", "test")
            )
            / 60
        )
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {minutes:.1f} |")
    return "\n".join(lines)
