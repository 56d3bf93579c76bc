"""``recbole-genrec recommend``: the best next items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import (
    BackboneOption,
    DataPathOption,
    ModelOption,
    checkpoint_changes,
)

if TYPE_CHECKING:  # --help imports no torch
    from recbole_genrec.data.ids import IdText


def recommend(
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint", help="the .pth file of a run, an export's folder, or a hub id"
        ),
    ],
    users: Annotated[
        str | None,
        typer.Option(
            "--users",
            help="all; changed (since the output was last written, or since the training); or a "
            "file of raw user ids, one a line. Goes to --output",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            help="raw user id of the dataset; several with commas (quotes around an id that has "
            "one) go to --output",
        ),
    ] = None,
    all_users: Annotated[
        bool, typer.Option("--all_users", help="older form of --users=all")
    ] = False,
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            help="raw item ids with commas (quotes around an id that has one), oldest first",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", help="a .parquet, .csv, .tsv or .jsonl file for the lists of users"
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="how many items")] = 10,
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude_seen/--keep_seen",
            help="whether items of a user's history stay out (default: as in the run)",
        ),
    ] = None,
    candidate_file: Annotated[
        str | None,
        typer.Option(
            "--candidate_file",
            help="choose among the raw item ids in this file, one a line, instead of all items",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", help="3/16: the third of sixteen blocks of the users; the last one joins all"
        ),
    ] = None,
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """The best next items of many users in a file, of one user, or after a history.

    Give one of `--users`, `--user` and `--history`. An interrupted command goes on where it was
    when it is given again.
    """
    people = _people(users, user, all_users)
    if (people is None) == (history is None):
        raise typer.BadParameter("give one of --users, --user and --history")
    changes = checkpoint_changes(model, data_path, backbone)
    if output is None:
        if shard is not None:
            raise typer.BadParameter("--shard is a block of the users whose lists go to --output")
        _print_list(checkpoint, people, history, top, candidate_file, exclude_seen, changes)
        return
    if people is None:
        raise typer.BadParameter("--output takes lists of users: give --users=all or --user=u1,u2")

    from recbole_genrec.serving.lists import recommend_to_file

    written = recommend_to_file(
        checkpoint, output, people, top, exclude_seen, candidate_file, shard, **changes
    )
    if written.is_first_process:
        print(written.sentence())


def _people(users: str | None, user: str | None, all_users: bool) -> str | IdText | None:
    """Whose lists are wanted: a word or a file of ``--users``, or raw ids as they were typed."""
    from recbole_genrec.data.ids import IdText

    if [users is not None, user is not None, all_users].count(True) > 1:
        raise typer.BadParameter("give one of --users, --user and --all_users")
    if all_users:
        return "all"
    if user is not None:
        return IdText(user)
    return users


def _print_list(
    checkpoint: str,
    people: str | IdText | None,
    history: str | None,
    top: int,
    candidate_file: str | None,
    exclude_seen: bool | None,
    changes: dict[str, Any],
) -> None:
    """Show the list of one user or history."""
    from recbole_genrec.data.ids import IdText
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments.trained import recommend as recommend_one

    if isinstance(people, str):
        raise ConfigError("The lists of several users go to a file: add --output=lists.tsv.")
    items = None if history is None else IdText(history)
    rows = recommend_one(checkpoint, people, items, top, candidate_file, exclude_seen, **changes)
    for row in rows:
        print(f"{row['rank']:>3}  {row['item']:<16}  {row['score']:9.4f}  {row['text']}")


COMMAND = Command(
    "recommend",
    recommend,
    TRAINED,
    examples=(
        "recbole-genrec recommend --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --user=196",
        "recbole-genrec recommend --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --history=50,181",
        "recbole-genrec recommend --checkpoint=saved/STORE-ml-100k-1a2b3c4d.pth --users=all "
        "--top=20 --exclude_seen --output=recs.parquet",
    ),
)
