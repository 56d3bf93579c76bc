"""One leaderboard from the result files of many runs: Markdown, CSV, JSON, HTML and LaTeX."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from recbole_genrec.errors import ConfigError
from recbole_genrec.report.board import Row, boards, mean_metrics
from recbole_genrec.report.figures.metrics import metric_bars
from recbole_genrec.report.latex import latex
from recbole_genrec.report.leaderboard_page import leaderboard_page
from recbole_genrec.report.rows import main_metric, make_rows
from recbole_genrec.report.runs import collect
from recbole_genrec.report.tables import csv_text, markdown
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import write_text

Paths = Iterable[str | os.PathLike[str]]


class Leaderboard:
    """The rows of a leaderboard; ``print`` shows it as Markdown, a notebook as tables.

    Args:
        rows: as of :func:`~recbole_genrec.report.rows.make_rows`.
        metric: what they are ordered and tested by.
        about: ``baseline`` and ``threads`` as far as they are known.
    """

    def __init__(self, rows: list[Row], metric: str, about: dict[str, Any]) -> None:
        self.rows = rows
        self.metric = metric
        self.about = about

    @classmethod
    def of(cls, paths: Paths, baseline: str | None = None) -> Leaderboard:
        """The leaderboard of some runs.

        Args:
            paths: as in :func:`~recbole_genrec.report.runs.collect`.
            baseline: name of the run to test against; default the benchmark file's.
        """
        runs, about = collect(paths)
        if not baseline:
            baseline = about.get("baseline")
        metric = main_metric(runs)
        return cls(make_rows(runs, baseline), metric, {**about, "baseline": baseline})

    def __str__(self) -> str:
        return markdown(self.rows, self.metric, self.about.get("threads"))

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(float_format="{:.4f}".format, border=0)

    def to_frame(self) -> pd.DataFrame:
        """Mean metrics of each run, best first, by dataset and name."""
        rows = []
        for row in self.rows:
            rows.append({"dataset": row["dataset"], "run": row["run"], **mean_metrics(row)})
        return pd.DataFrame(rows).set_index(["dataset", "run"])

    def plot(self, dataset: str | None = None) -> go.Figure:
        """Bars of the metrics.

        Args:
            dataset: whose; default the first.

        Raises:
            ConfigError: the leaderboard has no such dataset.
        """
        means = {board.dataset: board.means() for board in boards(self.rows)}
        dataset = dataset or next(iter(means))
        if dataset not in means:
            raise ConfigError(f"There is no run on {dataset!r} here, only on {', '.join(means)}.")
        return metric_bars(means[dataset])

    def to_html(self) -> str:
        """The page: tables that sort, and a figure."""
        return leaderboard_page(self.rows, self.metric)

    def to_latex(self) -> str:
        """Tables with the rules of booktabs."""
        return latex(self.rows)

    def write(self, output: str | os.PathLike[str]) -> None:
        """Write ``leaderboard.md``, ``.csv``, ``.json``, ``.html`` and ``.tex`` to a folder."""
        folder = Path(output)
        content = {**self.about, "metric": self.metric, "rows": self.rows}
        write_json(folder / "leaderboard.json", content)
        write_text(folder / "leaderboard.md", str(self))
        write_text(folder / "leaderboard.csv", csv_text(self.rows))
        write_text(folder / "leaderboard.html", self.to_html())
        write_text(folder / "leaderboard.tex", self.to_latex())


def make_leaderboard(
    paths: Paths, baseline: str | None = None, output: str | os.PathLike[str] | None = None
) -> str:
    """The leaderboard of some runs as Markdown.

    Args:
        paths: as in :func:`~recbole_genrec.report.runs.collect`.
        baseline: name of the run to test against; default the benchmark file's.
        output: folder for the files of :meth:`Leaderboard.write`; default none is written.
    """
    leaderboard = Leaderboard.of(paths, baseline)
    if output is not None:
        leaderboard.write(output)
    return str(leaderboard)
