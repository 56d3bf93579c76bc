"""``recbole-genrec inspect``: what a model knows about an item."""

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


def inspect(
    checkpoint: CheckpointOption,
    item: Annotated[
        str,
        typer.Option(
            "--item", help="raw item ids, separated by commas (quotes around one that has a comma)"
        ),
    ],
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """What LCRec says about an item when it sees its codes alone, beside the true title."""
    from recbole_genrec.data.given_ids import IdText
    from recbole_genrec.experiments.trained import inspect as described

    changes = checkpoint_changes(model, data_path, backbone)
    for row in described(checkpoint, IdText(item), **changes):
        print(f"{row['item']}  {row['codes']}")
        print(f"  generated: {row['generated']}")
        print(f"  true:      {row['text']}")


COMMAND = Command(
    "inspect",
    inspect,
    TRAINED,
    examples=(
        "recbole-genrec inspect --checkpoint=saved/LCRec-ml-100k-1a2b3c4d.pth --item=50,181",
    ),
)
