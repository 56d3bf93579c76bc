"""``recbole-genrec recommend``: the best next items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import (
    AllUsersOption,
    BackboneOption,
    CandidateFileOption,
    CheckpointOption,
    DataPathOption,
    ExcludedFileOption,
    ExcludeSeenOption,
    HistoryOption,
    ListsOption,
    ModelOption,
    ShardOption,
    TopOption,
    UserOption,
    UsersOption,
    checkpoint_changes,
)

if TYPE_CHECKING:  # --help imports no torch
    from recbole_genrec.data.given_ids import IdText


def recommend(
    checkpoint: CheckpointOption,
    users: UsersOption = None,
    user: UserOption = None,
    all_users: AllUsersOption = False,
    history: HistoryOption = None,
    output: ListsOption = None,
    top: TopOption = 10,
    exclude_seen: ExcludeSeenOption = None,
    candidate_file: CandidateFileOption = None,
    excluded_file: ExcludedFileOption = None,
    shard: ShardOption = None,
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
        files = {"candidate_file": candidate_file, "excluded_file": excluded_file}
        _print_list(checkpoint, people, history, top, exclude_seen, **files, **changes)
        return
    if people is None:
        raise typer.BadParameter("--output takes lists of users: give --users=all or --user=u1,u2")

    from recbole_genrec.serving.lists import recommend_to_file

    written = recommend_to_file(
        checkpoint,
        output,
        people,
        top,
        exclude_seen,
        candidate_file,
        shard,
        excluded_file,
        **changes,
    )
    if written.is_first_process:
        print(written.sentence())


def _people(users: str | None, user: str | None, all_users: bool) -> str | IdText | None:
    """Whose lists are wanted: a word or a file of ``--users``, or raw ids as they were typed."""
    from recbole_genrec.data.given_ids import IdText

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
    exclude_seen: bool | None,
    **changes: Any,
) -> None:
    """Show the list of one user or history.

    Args:
        checkpoint: as of the command.
        people: as :func:`_people` gives them.
        history: as of the command.
        top: as of the command.
        exclude_seen: as of the command.
        **changes: files of items, and settings to replace.
    """
    from recbole_genrec.data.given_ids import IdText
    from recbole_genrec.errors import ConfigError
    from recbole_genrec.experiments.trained import recommend as recommend_one

    if isinstance(people, str):
        raise ConfigError("The lists of several users go to a file: add --output=lists.tsv.")
    items = None if history is None else IdText(history)
    rows = recommend_one(checkpoint, people, items, top, exclude_seen=exclude_seen, **changes)
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
