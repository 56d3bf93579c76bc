"""One leaderboard from the result files of many runs, as Markdown, CSV and JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from recbole_genrec.report.rows import main_metric, make_rows, place
from recbole_genrec.report.runs import collect
from recbole_genrec.report.tables import csv_text, markdown
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import atomic_write


def make_leaderboard(
    paths: Iterable[str | os.PathLike[str]],
    baseline: str | None = None,
    output: str | os.PathLike[str] | None = None,
) -> str:
    """The leaderboard of some runs.

    Args:
        paths: as in :func:`~recbole_genrec.report.runs.collect`.
        baseline: name of the run to test against; default the benchmark file's.
        output: folder for ``leaderboard.md``, ``.csv`` and ``.json``; default none is written.

    Returns:
        The leaderboard as Markdown.
    """
    runs, about = collect(paths)
    if not baseline:
        baseline = about.get("baseline")
    metric = main_metric(runs)
    rows = make_rows(runs, baseline)
    text = markdown(rows, metric, place(metric), about.get("threads"))
    if output is not None:
        folder = Path(output)
        content = {**about, "baseline": baseline, "metric": metric, "rows": rows}
        write_json(folder / "leaderboard.json", content)
        _write_text(folder / "leaderboard.md", text)
        _write_text(folder / "leaderboard.csv", csv_text(rows))
    return text


def _write_text(file: Path, text: str) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
