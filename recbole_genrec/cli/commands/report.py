"""``recbole-genrec report``: a page about finished runs."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import LOOK_UP, Command
from recbole_genrec.cli.options import (
    BackboneOption,
    DataPathOption,
    ModelOption,
    checkpoint_changes,
)


def report(
    paths: Annotated[
        list[str],
        typer.Argument(help="result files of runs, or output folders of benchmarks"),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            help="the page, or the folder for a leaderboard; default beside the result file",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="name of the row that the others are compared with, seed by seed"
        ),
    ] = None,
    users: Annotated[
        int | None,
        typer.Option(
            "--users", min=1, help="test users whose lists are made again; default all of them"
        ),
    ] = None,
    analysis: Annotated[
        bool,
        typer.Option(
            "--analysis/--no_analysis",
            help="whether checkpoints are loaded for what the result files do not say",
        ),
    ] = True,
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """Write one HTML file about runs, or the leaderboard page of a benchmark.

    The pages need no network. Of result files: metrics with intervals, curves, the codes and their
    tree, where hits are lost, which users are served, examples, the whole configuration; of several
    files also paired tests. Of a folder: a leaderboard whose tables sort, and LaTeX.
    """
    from recbole_genrec.experiments.report import write_pages

    changes = checkpoint_changes(model, data_path, backbone)
    for page in write_pages(paths, output, baseline, analysis, users, **changes):
        print(f"Report written to {page}")


COMMAND = Command(
    "report",
    report,
    LOOK_UP,
    examples=(
        "recbole-genrec report saved/STORE-ml-100k-1a2b3c4d.json",
        "recbole-genrec report store.json sasrec.json --baseline=SASRec --output=report.html",
        "recbole-genrec report results/ml-100k",
    ),
)
