"""The rows of a leaderboard as Markdown for people and CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from recbole_genrec.report.board import Board, Row, Spread, boards
from recbole_genrec.report.comparisons import CORRECTION
from recbole_genrec.report.metric_names import place
from recbole_genrec.report.significance import REPEATS

TEST_NOTE = (
    f"Test against the baseline: per-user difference of {{metric}}, averaged over the common "
    f"seeds; 95 % percentile bootstrap interval and two-sided sign-flip permutation test over "
    f"users ({REPEATS:,} draws each, p = (1 + hits) / (1 + draws)); the adjusted p is corrected by "
    f"{CORRECTION} over the runs of a dataset. It says whether other users would show the "
    f"difference, not whether other seeds would: see the standard deviations."
)
UNTESTED = (
    "Not tested against the baseline: {names}. The test pairs the ranks of users with the same "
    "test item in both, in a seed that both ran; runs keep them beside their results with "
    "--save_ranks=True."
)
NOTES = (
    "Users: those with a test target. ± is the sample standard deviation over seeds. CPU-s are "
    "seconds of CPU time of one run (mean over seeds), all threads together; tokenizer is its fit, "
    "also where a run took the stored result; validation is the sum over epochs and of what is "
    "decided on that split afterwards. "
    "Certified: share of users whose top {place} is proven to be the exact best of the model. "
    "Collisions are counted before repair. The text encoder is used by the tokenizers that read "
    "sentence vectors."
)
STAGES = ("tokenizer", "training", "validation", "test")
PROTOCOL_DETAILS = {
    "eval_args",
    "repeatable",
    "MAX_ITEM_LIST_LENGTH",
    "history masked",
    "data",
}
SHOWN_DETAILS = {"command", "commits", "versions", *PROTOCOL_DETAILS}
"""Details that stand elsewhere in the leaderboard."""


def markdown(rows: Sequence[Row], metric: str, threads: int | None = None) -> str:
    """A leaderboard as Markdown.

    Args:
        rows: as of :func:`~recbole_genrec.report.rows.make_rows`.
        metric: what the rows are ordered and tested by.
        threads: threads of each run, where a benchmark says so.

    Returns:
        Per dataset three tables (accuracy, cost, codes) and what the runs were made with; then how
        to read them. Ends with a newline.
    """
    blocks = ["# Leaderboard"]
    for board in boards(rows):
        blocks += _dataset(board, metric)
    blocks += _notes(rows, metric, threads)
    return "\n\n".join(blocks) + "\n"


def _dataset(board: Board, metric: str) -> list[str]:
    """The blocks of one dataset."""
    blocks = [f"## {board.dataset}", *board.protocols, _accuracy(board, metric)]
    if board.done:
        blocks += ["### Cost", _cost(board.done, metric)]
    if board.coded:
        blocks += ["### Codes", _codes(board.coded, metric)]
    if board.failed:
        blocks.append("\n".join(_failures(board.failed)))
    if board.done:
        details = [_details(row) for row in board.done]
        blocks += ["### Commands and settings", "\n".join([*details, *_versions(board.done)])]
    return blocks


def _notes(rows: Sequence[Row], metric: str, threads: int | None) -> list[str]:
    """How to read the tables."""
    note = NOTES.format(place=place(metric))
    if threads:
        note += f" Each run had {threads} thread(s)."
    notes = [note]
    untested = []
    for row in rows:
        if row["test"] and not row["is_baseline"] and not row["against_baseline"]:
            untested.append(row["run"])
    if untested and any(row["is_baseline"] for row in rows):
        notes.append(UNTESTED.format(names=", ".join(dict.fromkeys(untested))))
    if any(row["against_baseline"] for row in rows):
        notes.append(TEST_NOTE.format(metric=metric))
    return notes


def csv_text(rows: Sequence[Row]) -> str:
    """A leaderboard as CSV: one line a row, nested values as ``a.b``, lists joined by ``;``."""
    flat = []
    for row in rows:
        shown = {key: value for key, value in row.items() if key != "details"}
        flat.append(dict(_flatten(shown)))
    columns = list(dict.fromkeys(key for row in flat for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict) and key != "failed":
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, dict)):
            yield f"{prefix}{key}", ";".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{key}", value


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = []
    for cells in [header, ["---"] * len(header), *lines]:
        escaped = [str(cell).replace("|", "\\|") for cell in cells]
        rows.append("| " + " | ".join(escaped) + " |")
    return "\n".join(rows)


def _accuracy(board: Board, metric: str) -> str:
    header = ["run", "model", "tokenizer", "seeds", "users", *board.metrics, f"valid {metric}"]
    if board.tested:
        header += [f"{metric} against the baseline", "p", "p adjusted"]

    lines = []
    for row in board.rows:
        valid = row["valid"][metric] if row["test"] else None
        line = [row["run"], row["model"], row["tokenizer"] or "-", _seeds(row)]
        line.append(_number(row["users"], ","))
        line += [_spread(row["test"].get(name)) for name in board.metrics]
        line.append(_spread(valid))
        if board.tested:
            line += _comparison(row)
        lines.append(line)
    return _table(header, lines)


def _cost(rows: Sequence[Row], metric: str) -> str:
    stages = [f"{stage} CPU-s" for stage in STAGES]
    header = ["run", "parameters", *stages, f"certified top {place(metric)}"]
    lines = []
    for row in rows:
        line = [row["run"], _number(row["parameters"], ",.0f")]
        line += [_number(row["cpu_seconds"][stage], ",.1f") for stage in STAGES]
        line.append(_number(row["certified"], ".1%"))
        lines.append(line)
    return _table(header, lines)


def _codes(rows: Sequence[Row], metric: str) -> str:
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
        assert codes is not None
        levels = []
        for perplexity, size in zip(codes["perplexity"], codes["sizes"], strict=True):
            levels.append(f"{perplexity:.0f}/{size}")
        line = [
            row["run"],
            _spread(row["test"].get(metric)),
            ", ".join(levels),
            f"{codes['collision_rate']:.2%}",
            f"{codes['largest_group']:,}",
            f"{codes['unique_ids_before']:,.0f} / {codes['unique_ids']:,.0f}",
            f"{codes['items']:,}",
        ]
        lines.append(line)
    return _table(header, lines)


def _seeds(row: Row) -> str:
    """How many of the planned seeds are done."""
    done = len(row["seeds"])
    failed = len(row["failed"])
    pending = len(row["pending"])
    text = f"{done}/{done + failed + pending}"
    if failed:
        text += f", {failed} FAILED"
    if pending:
        text += f", {pending} not run"
    return text


def _comparison(row: Row) -> list[str]:
    """Difference to the baseline with its interval, and the p-values."""
    if row["is_baseline"]:
        return ["baseline", "-", "-"]
    test = row["against_baseline"]
    if not test:
        return ["-", "-", "-"]
    interval = f"[{test['low']:+.4f}, {test['high']:+.4f}]"
    basis = f"{test['users']:,} users, {len(test['seeds'])} seed(s)"
    p_values = [f"{test['p']:.4f}", f"{test['p_adjusted']:.4f}"]
    return [f"{test['difference']:+.4f} {interval}, {basis}", *p_values]


def _spread(value: Spread | None) -> str:
    """Mean and standard deviation over the seeds."""
    if not value or value["mean"] is None:
        return "-"
    if value["std"] is None:
        return f"{value['mean']:.4f}"
    return f"{value['mean']:.4f} ± {value['std']:.4f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        for seed, error in row["failed"].items():
            lines.append(f"* {row['run']}, seed {seed}: FAILED, {error}")
    return lines


def _details(row: Row) -> str:
    """What one row was made with."""
    details = row["details"]
    seeds = ", ".join(map(str, row["seeds"]))
    commits = ", ".join(details["commits"])
    text = f"* {row['run']}: `{details['command']}`, seeds {seeds}, commit {commits}"
    for key, value in details.items():
        if key not in SHOWN_DETAILS:
            text += f"; {key} {value}"
    return text


def _versions(rows: Sequence[Row]) -> list[str]:
    """One line per set of library versions."""
    runs: dict[str, list[str]] = {}
    for row in rows:
        versions = row["details"]["versions"].items()
        if not versions:
            continue
        text = ", ".join(f"{name} {version}" for name, version in versions)
        runs.setdefault(text, []).append(row["run"])
    if len(runs) == 1:
        return [f"* {text}" for text in runs]
    return [f"* {text} ({', '.join(names)})" for text, names in runs.items()]
