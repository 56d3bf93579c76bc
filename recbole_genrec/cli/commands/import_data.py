"""``recbole-genrec import``: tables of one's own to a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import PREPARE, Command
from recbole_genrec.cli.options import split_words


def import_data(
    files: Annotated[
        list[str],
        typer.Argument(
            help="tables of interactions and of items: CSV, TSV, Parquet or JSON lines, any number"
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="name of the dataset")],
    user: Annotated[
        str | None, typer.Option("--user", help="column of users (default: guessed by its name)")
    ] = None,
    item: Annotated[
        str | None, typer.Option("--item", help="column of items (default: guessed by its name)")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time", help="column of times: Unix s, ms or us, ISO, other dates (default: guessed)"
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="columns that describe items, with commas (default: guessed)"),
    ] = None,
    time_format: Annotated[
        str | None, typer.Option("--time_format", help="how times are written, like %d/%m/%Y")
    ] = None,
    rating: Annotated[str | None, typer.Option("--rating", help="column of ratings")] = None,
    min_rating: Annotated[
        float | None, typer.Option("--min_rating", help="lower ratings are dropped")
    ] = None,
    k_core: Annotated[
        int, typer.Option("--k_core", help="users and items with fewer interactions are dropped")
    ] = 0,
    duplicates: Annotated[
        str,
        typer.Option(
            "--duplicates", help="of equal pairs of user and item keep all, the first or the last"
        ),
    ] = "keep",
    encoding: Annotated[str, typer.Option("--encoding", help="of text files")] = "utf-8",
    separator: Annotated[
        str | None,
        typer.Option("--separator", help="what stands between columns (default: as it looks)"),
    ] = None,
    data_path: Annotated[
        str, typer.Option("--data_path", help="folder of all datasets")
    ] = "dataset",
) -> None:
    """Make `dataset/NAME` of your own tables, and say what was dropped and why.

    A table with a column of users holds interactions, any other one describes items. Then
    `run --dataset=NAME` needs no other flag.
    """
    from recbole_genrec.data.preparation.own.columns import Columns
    from recbole_genrec.data.preparation.own.importing import ImportOptions, import_tables

    texts: list[str] | None = None
    if text is not None:
        texts = split_words(text)
    columns = Columns(user, item, time, rating, texts)
    options = ImportOptions(k_core, duplicates, min_rating, time_format, encoding, separator)
    print(import_tables(files, name, columns, options, data_path).report())


COMMAND = Command(
    "import",
    import_data,
    PREPARE,
    examples=(
        "recbole-genrec import clicks.csv items.csv --user=customer --item=sku --time=ts "
        "--text=title,brand,price --name=shop",
        "recbole-genrec import clicks.parquet items.jsonl --name=shop --k_core=5",
    ),
)
