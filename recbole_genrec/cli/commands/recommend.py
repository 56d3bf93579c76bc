"""``recbole-genrec recommend``: the best next items."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import (
    BackboneOption,
    DataPathOption,
    ModelOption,
    checkpoint_changes,
    split_words,
)


def recommend(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="the .pth file of a run, or an export's folder")
    ],
    user: Annotated[
        str | None,
        typer.Option(
            "--user", help="raw user id of the dataset; several with commas go to --output"
        ),
    ] = None,
    all_users: Annotated[
        bool, typer.Option("--all_users", help="every user of the dataset; goes to --output")
    ] = False,
    history: Annotated[
        str | None, typer.Option("--history", help="raw item ids with commas, oldest first")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="a .tsv or .csv file for the lists of users")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="how many items")] = 10,
    candidate_file: Annotated[
        str | None,
        typer.Option(
            "--candidate_file",
            help="choose among the raw item ids in this file, one a line, instead of all items",
        ),
    ] = None,
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """The best next items for a user or a history; give one of the two, or `--all_users`."""
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments import trained
    from recbole_genrec.runtime.recbole_repairs import quiet_pandas_warnings

    if [user is not None, all_users, history is not None].count(True) != 1:
        raise typer.BadParameter("give one of --user, --all_users and --history")
    quiet_pandas_warnings()
    changes = checkpoint_changes(model, data_path, backbone)
    users: list[str] | None = None
    if user is not None:
        users = split_words(user)
    if output is not None:
        if history is not None:
            raise ConfigError("--output takes lists of users: give --user=u1,u2 or --all_users.")
        n_users = trained.recommend_to_file(
            checkpoint, output, users, top, candidate_file, **changes
        )
        print(f"Lists of {n_users} users written to {output}")
        return
    if all_users or (users is not None and len(users) > 1):
        raise ConfigError("The lists of several users go to a file: add --output=lists.tsv.")

    items: list[str] | None = None
    if history is not None:
        items = split_words(history)
    one_user: str | None = None
    if users is not None:
        one_user = users[0]
    rows = trained.recommend(checkpoint, one_user, items, top, candidate_file, **changes)
    for row in rows:
        print(f"{row['rank']:>3}  {row['item']:<16}  {row['score']:9.4f}  {row['text']}")


COMMAND = Command(
    "recommend",
    recommend,
    TRAINED,
    examples=(
        "recbole-genrec recommend --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --user=196",
        "recbole-genrec recommend --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --history=50,181",
        "recbole-genrec recommend --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --all_users "
        "--output=lists.tsv",
    ),
)
