"""The accuracy of a leaderboard as LaTeX tables with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from recbole_genrec.report.best import best_value
from recbole_genrec.report.comparisons import CORRECTION
from recbole_genrec.report.protocol import protocol_sentences

Row = dict[str, Any]
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
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        done = [row for row in rows if row["dataset"] == dataset and row["test"]]
        if done:
            tables.append(_table(dataset, done))
    return "\n".join(tables)


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _table(dataset: str, rows: Sequence[Row]) -> str:
    metrics = list(dict.fromkeys(name for row in rows for name in row["test"]))
    best = {}
    for name in metrics:
        means = [row["test"][name]["mean"] for row in rows if name in row["test"]]
        best[name] = best_value(name, means)
    stars = _starred(rows)
    body = []
    for row in rows:
        label = escaped(row["run"])
        if row["run"] in stars:
            label += "$^{*}$"
        cells = [label]
        for name in metrics:
            cells.append(_cell(row["test"].get(name), best[name]))
        body.append(cells)
    frame = pd.DataFrame(body, columns=["run", *(escaped(name) for name in metrics)])
    return frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format="l" + "r" * len(metrics),
        caption=_caption(dataset, rows, bool(stars)),
        label="tab:" + "".join(c if c.isalnum() else "-" for c in dataset),
        position_float="centering",
    )


def _starred(rows: Sequence[Row]) -> set[str]:
    """Runs that differ from the baseline, after the correction for their number."""
    tested = [row for row in rows if row["against_baseline"]]
    return {row["run"] for row in tested if row["against_baseline"]["p_adjusted"] < SIGNIFICANT}


def _cell(value: Row | None, best: float | None) -> str:
    if not value or value["mean"] is None:
        return "--"
    text = f"{value['mean']:.4f}"
    if value["mean"] == best:
        text = rf"\textbf{{{text}}}"
    if value["std"] is not None:
        text += rf" {{\scriptsize $\pm$ {value['std']:.4f}}}"
    return text


def _caption(dataset: str, rows: Sequence[Row], starred: bool) -> str:
    text = escaped(" ".join([f"{dataset}.", *protocol_sentences(rows)]))
    if any(len(row["seeds"]) > 1 for row in rows):
        text += r" $\pm$: sample standard deviation over seeds."
    if starred:
        text += (
            rf" $^{{*}}$: differs from the baseline (two-sided sign-flip test over users, $p <$ "
            f"{SIGNIFICANT} after the correction of {CORRECTION})."
        )
    return text
