"""``recbole-genrec leaderboard``: the table of finished runs."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAIN, Command


def leaderboard(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="output folders of benchmarks, folders with result files, or result files"
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="name of the run that the others are tested against"),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="folder for leaderboard.md, .csv and .json")
    ] = None,
) -> None:
    """The leaderboard of finished runs, with paired tests against a baseline."""
    from recbole_genrec.report.leaderboard import make_leaderboard

    print(make_leaderboard(paths, baseline, output))


COMMAND = Command(
    "leaderboard",
    leaderboard,
    TRAIN,
    examples=(
        "recbole-genrec leaderboard saved",
        "recbole-genrec leaderboard saved --baseline=SASRec --output=tables",
    ),
)
