"""The accuracy of a leaderboard as LaTeX tables with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from recbole_genrec.report.board import Board, Row, Spread, boards
from recbole_genrec.report.comparisons import CORRECTION

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
SIGNIFICANT = 0.05


def latex(rows: Sequence[Row]) -> str:
    r"""One table a dataset: the best of each metric is bold, a star marks a significant difference.

    Args:
        rows: as of :func:`~recbole_genrec.report.rows.make_rows`.

    Returns:
        LaTeX that needs ``\usepackage{booktabs}``.
    """
    tables = ["% needs \\usepackage{booktabs}"]
    tables += [_table(board) for board in boards(rows) if board.done]
    return "\n".join(tables)


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _table(board: Board) -> str:
    stars = _starred(board)
    body = []
    for row in board.done:
        label = escaped(row["run"])
        if row["run"] in stars:
            label += "$^{*}$"
        cells = [label]
        for name in board.metrics:
            cells.append(_cell(row["test"].get(name), board.best(name)))
        body.append(cells)
    frame = pd.DataFrame(body, columns=["run", *(escaped(name) for name in board.metrics)])
    return frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format="l" + "r" * len(board.metrics),
        caption=_caption(board, bool(stars)),
        label="tab:" + "".join(c if c.isalnum() else "-" for c in board.dataset),
        position_float="centering",
    )


def _starred(board: Board) -> set[str]:
    """Runs that differ from the baseline, after the correction for their number."""
    tests = {row["run"]: row["against_baseline"] for row in board.tested}
    return {run for run, test in tests.items() if test and test["p_adjusted"] < SIGNIFICANT}


def _cell(value: Spread | None, best: float | None) -> str:
    if not value or value["mean"] is None:
        return "--"
    text = f"{value['mean']:.4f}"
    if value["mean"] == best:
        text = rf"\textbf{{{text}}}"
    if value["std"] is not None:
        text += rf" {{\scriptsize $\pm$ {value['std']:.4f}}}"
    return text


def _caption(board: Board, starred: bool) -> str:
    text = escaped(" ".join([f"{board.dataset}.", *board.protocols]))
    if any(len(row["seeds"]) > 1 for row in board.done):
        text += r" $\pm$: sample standard deviation over seeds."
    if starred:
        text += (
            rf" $^{{*}}$: differs from the baseline (two-sided sign-flip test over users, $p <$ "
            f"{SIGNIFICANT} after the correction of {CORRECTION})."
        )
    return text
