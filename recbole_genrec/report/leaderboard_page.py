"""A leaderboard as a page whose tables sort by a click."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from recbole_genrec.report.best import best_value
from recbole_genrec.report.comparisons import CORRECTION
from recbole_genrec.report.figures.metrics import metric_bars
from recbole_genrec.report.latex import latex
from recbole_genrec.report.protocol import protocol_sentences
from recbole_genrec.report.rows import mean_metrics
from recbole_genrec.report.tables import STAGES
from recbole_genrec.report.templating import Figures, render

Row = dict[str, Any]


def leaderboard_page(rows: Sequence[Row], metric: str, place: int) -> str:
    """The page.

    Args:
        rows: as of :func:`~recbole_genrec.report.rows.make_rows`.
        metric: what the rows are ordered and tested by.
        place: length of the lists whose certified share is shown.

    Returns:
        HTML that needs no network.
    """
    figures = Figures()
    boards: list[Board] = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of_dataset = [row for row in rows if row["dataset"] == dataset]
        boards.append(Board(f"board-{len(boards)}", dataset, of_dataset, metric, figures))
    return render(
        "leaderboard.html",
        title="Leaderboard",
        boards=boards,
        metric=metric,
        place=place,
        stages=STAGES,
        correction=CORRECTION,
        latex=latex(rows),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )


class Board:
    """The rows of one dataset.

    Args:
        key: id of its section.
        dataset: its name.
        rows: its rows, best first.
        metric: what the rows are ordered by.
        figures: of the page.
    """

    def __init__(
        self, key: str, dataset: str, rows: Sequence[Row], metric: str, figures: Figures
    ) -> None:
        self.key = key
        self.dataset = dataset
        self.rows = rows
        self.metric = metric
        self.done = [row for row in rows if row["test"]]
        self.failed = [row for row in rows if row["failed"]]
        self.metrics = list(dict.fromkeys(name for row in self.done for name in row["test"]))
        self.coded = [row for row in self.done if row["codes"]]
        self.tested = [row for row in self.done if row["against_baseline"]]
        self._figures = figures

    @property
    def figure(self) -> Any:
        """Bars of all metrics."""
        values = {row["run"]: mean_metrics(row) for row in self.done}
        return self._figures(metric_bars(values), f"metrics on {self.dataset}")

    @property
    def protocols(self) -> list[str]:
        """How the runs were tested."""
        return protocol_sentences(self.done)

    def best(self, metric: str) -> float | None:
        """The best mean of a metric."""
        means = [row["test"][metric]["mean"] for row in self.done if metric in row["test"]]
        return best_value(metric, means)
