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
    share: Annotated[
        str | None,
        typer.Option(
            "--share",
            help="folder to which the results are added without ids of users and items and "
            "without paths of this machine; the leaderboard is that of the folder",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="name of the row that the shared results are seeds of"),
    ] = None,
) -> None:
    """The leaderboard of finished runs, with paired tests against a baseline."""
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.report.leaderboard import make_leaderboard
    from recbole_genrec.report.shared import share_results

    if name is not None and share is None:
        raise ConfigError("--name names results that are shared; give --share=FOLDER, too.")
    if share is not None:
        share_results(paths, share, name)
        paths = [share]
    print(make_leaderboard(paths, baseline, output))


COMMAND = Command(
    "leaderboard",
    leaderboard,
    TRAIN,
    examples=(
        "recbole-genrec leaderboard saved",
        "recbole-genrec leaderboard saved --baseline=SASRec --output=tables",
        "recbole-genrec leaderboard saved/SASRec-*.json --share=results/shared --name=SASRec",
    ),
)
