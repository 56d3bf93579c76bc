"""``recbole-genrec prepare``: download and convert a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import PREPARE, Command
from recbole_genrec.cli.options import DatasetsFolderOption


def prepare(
    dataset: Annotated[str, typer.Argument(help="its name, for example amazon-beauty")],
    data_path: DatasetsFolderOption = "dataset",
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="file, zip archive or folder at hand: RecBole's atomic files, or Amazon reviews "
            "and metadata",
        ),
    ] = None,
) -> None:
    """Download and convert a public dataset, and print its counts beside the published ones."""
    from recbole_genrec.data.preparation.prepare import prepare_dataset

    print(prepare_dataset(dataset, data_path, source).report())


COMMAND = Command(
    "prepare",
    prepare,
    PREPARE,
    examples=(
        "recbole-genrec prepare ml-1m",
        "recbole-genrec prepare amazon-beauty --source=downloads/reviews_Beauty_5.json.gz",
    ),
)
