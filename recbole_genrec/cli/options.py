"""Options of the commands, and what several commands make of them."""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any

import typer

from recbole_genrec.errors import ConfigError

# --- trained models ------------------------------------------------------------------------------

CheckpointOption = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        help="the .pth file of a run, an export's folder, or a hub id",
        metavar="FILE",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="package.module:Class of a method from outside this package"),
]
DataPathOption = Annotated[
    str | None,
    typer.Option("--data_path", help="folder that holds the dataset's folder, when it has moved"),
]
BackboneOption = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="folder of the language model that the run started from, when it has moved",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="show warnings and the result alone, no bars")
]

# --- recommend -----------------------------------------------------------------------------------

UsersOption = Annotated[
    str | None,
    typer.Option(
        "--users",
        help="all; changed (since the output was last written, or since the training); or a file "
        "of raw user ids, one a line. Goes to --output",
    ),
]
UserOption = Annotated[
    str | None,
    typer.Option(
        "--user",
        help="raw user id of the dataset; several with commas (quotes around an id that has one) "
        "go to --output",
    ),
]
AllUsersOption = Annotated[bool, typer.Option("--all_users", help="older form of --users=all")]
HistoryOption = Annotated[
    str | None,
    typer.Option(
        "--history",
        help="raw item ids with commas (quotes around an id that has one), oldest first",
    ),
]
ListsOption = Annotated[
    str | None,
    typer.Option("--output", help="a .parquet, .csv, .tsv or .jsonl file for the lists of users"),
]
TopOption = Annotated[int, typer.Option("--top", help="how many items")]
ExcludeSeenOption = Annotated[
    bool | None,
    typer.Option(
        "--exclude_seen/--keep_seen",
        help="whether items of a user's history stay out (default: as in the run)",
    ),
]
CandidateFileOption = Annotated[
    str | None,
    typer.Option(
        "--candidate_file",
        help="choose among the raw item ids in this file, one a line, instead of all items",
    ),
]
ExcludedFileOption = Annotated[
    str | None,
    typer.Option(
        "--excluded_file",
        help="leave out the raw item ids in this file, one a line, for example what is sold out",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", help="3/16: the third of sixteen blocks of the users; the last one joins all"
    ),
]

# --- serve ---------------------------------------------------------------------------------------

HostOption = Annotated[
    str, typer.Option("--host", help="address; the default one is for this machine alone")
]
PortOption = Annotated[int, typer.Option("--port", help="0 = any free one")]
MaxBatchOption = Annotated[
    int, typer.Option("--max_batch", help="queries that the model answers at once")
]
MaxWaitOption = Annotated[
    float,
    typer.Option("--max_wait_ms", help="how long a query waits for others, in milliseconds"),
]
QueueSizeOption = Annotated[
    int, typer.Option("--queue_size", help="queries that wait; further ones get status 429")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="seconds after which a query gets status 504")
]

# --- datasets ------------------------------------------------------------------------------------

DatasetsFolderOption = Annotated[str, typer.Option("--data_path", help="folder of all datasets")]
TablesArgument = Annotated[
    list[str],
    typer.Argument(
        help="tables of interactions and of items: CSV, TSV, Parquet or JSON lines, any number"
    ),
]
DatasetNameOption = Annotated[str, typer.Option("--name", help="name of the dataset")]
UserColumnOption = Annotated[
    str | None,
    typer.Option(
        "--user", help="column of users, or its names in several files (default: guessed)"
    ),
]
ItemColumnOption = Annotated[
    str | None,
    typer.Option(
        "--item", help="column of items, or its names in several files (default: guessed)"
    ),
]
TimeColumnOption = Annotated[
    str | None,
    typer.Option(
        "--time", help="column of times: Unix s, ms or us, ISO, other dates (default: guessed)"
    ),
]
TextColumnsOption = Annotated[
    str | None,
    typer.Option("--text", help="columns that describe items, with commas (default: guessed)"),
]
TimeFormatOption = Annotated[
    str | None, typer.Option("--time_format", help="how times are written, like %d/%m/%Y")
]
RatingColumnOption = Annotated[str | None, typer.Option("--rating", help="column of ratings")]
MinRatingOption = Annotated[
    float | None, typer.Option("--min_rating", help="lower ratings are dropped")
]
KCoreOption = Annotated[
    int, typer.Option("--k_core", help="users and items with fewer interactions are dropped")
]
DuplicatesOption = Annotated[
    str,
    typer.Option(
        "--duplicates", help="of equal pairs of user and item keep all, the first or the last"
    ),
]
EncodingOption = Annotated[str, typer.Option("--encoding", help="of text files")]
SeparatorOption = Annotated[
    str | None,
    typer.Option("--separator", help="what stands between columns (default: as it looks)"),
]


def checkpoint_changes(
    model: str | None, data_path: str | None, backbone: str | None
) -> dict[str, Any]:
    """The settings that loading a checkpoint may change, from their options."""
    changes: dict[str, Any] = {"model_class": model}
    if data_path:
        changes["data_path"] = data_path
    if backbone:
        changes["backbone"] = backbone
    return changes


def quietly(settings: list[str]) -> list[str]:
    """Settings of a run that shows warnings alone; what is set already stays."""
    names = {word.partition("=")[0] for word in settings}
    silence = {"--show_progress": "False", "--state": "WARNING"}
    added = [f"{name}={value}" for name, value in silence.items() if name not in names]
    return [*settings, *added]


def refuse(settings: Container[str], *names: str) -> None:
    """Refuse what a program can hand over and a command line cannot.

    Args:
        settings: what is given, by name.
        names: of what is not taken.

    Raises:
        ConfigError: one of them is given.
    """
    for name in names:
        if name in settings:
            raise ConfigError(f"--{name} is no key of this command. --help says what it takes.")


def split_words(text: str) -> list[str]:
    """``"a, b"`` -> ``["a", "b"]``."""
    return [word.strip() for word in text.split(",")]
