"""``recbole-genrec add-items``: new items without training."""

from __future__ import annotations

from typing import Annotated

import typer

from recbole_genrec.cli.command import TRAINED, Command
from recbole_genrec.cli.options import (
    BackboneOption,
    CheckpointOption,
    DataPathOption,
    ModelOption,
    checkpoint_changes,
)


def add_items(
    checkpoint: CheckpointOption,
    items: Annotated[
        str,
        typer.Option("--items", help="a CSV, TSV, Parquet or JSON lines file", metavar="FILE"),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", help="the new checkpoint (default: beside it, with -items)"),
    ] = None,
    item: Annotated[
        str | None, typer.Option("--item", help="column of ids (default: guessed by its name)")
    ] = None,
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """Make new items recommendable at once: their texts get codes, nothing is trained."""
    from recbole_genrec.serving.new_items import add_items_of

    changes = checkpoint_changes(model, data_path, backbone)
    print(add_items_of(checkpoint, items, output, item, **changes).report())


COMMAND = Command(
    "add-items",
    add_items,
    TRAINED,
    examples=(
        "recbole-genrec add-items --checkpoint=saved/TIGER-shop-1a2b3c4d.pth --items=new.csv",
    ),
)
