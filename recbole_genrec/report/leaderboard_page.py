"""A leaderboard as a page whose tables sort by a click."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from recbole_genrec.report.board import Board, Row, boards
from recbole_genrec.report.comparisons import CORRECTION
from recbole_genrec.report.figures.metrics import metric_bars
from recbole_genrec.report.latex import latex
from recbole_genrec.report.metric_names import place
from recbole_genrec.report.tables import STAGES
from recbole_genrec.report.templating import Figures, render


def leaderboard_page(rows: Sequence[Row], metric: str) -> str:
    """The page.

    Args:
        rows: as of :func:`~recbole_genrec.report.rows.make_rows`.
        metric: what the rows are ordered and tested by.

    Returns:
        HTML that needs no network.
    """
    figures = Figures()

    def bars(board: Board) -> Markup:
        """The metrics of all runs of a dataset."""
        return figures(metric_bars(board.means()), f"metrics on {board.dataset}")

    return render(
        "leaderboard.html",
        title="Leaderboard",
        boards=boards(rows),
        bars=bars,
        metric=metric,
        place=place(metric),
        stages=STAGES,
        correction=CORRECTION,
        latex=latex(rows),
    )
