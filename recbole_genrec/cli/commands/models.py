"""``recbole-genrec models``: the methods to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import LOOK_UP, Command
from recbole_genrec.cli.tables import print_table


def models(
    all_of_recbole: Annotated[
        bool, typer.Option("--all", help="list RecBole's other models too")
    ] = False,
) -> None:
    """The methods that `--model` takes."""
    from recbole_genrec.experiments.offers import list_models

    table = list_models(all_of_recbole)
    print_table(list(table.columns), table.to_numpy().tolist())
    if not all_of_recbole:
        print("\nRecBole's SASRec, BERT4Rec and others run too: recbole-genrec models --all")


COMMAND = Command(
    "models",
    models,
    LOOK_UP,
    examples=("recbole-genrec models", "recbole-genrec models --all"),
)
