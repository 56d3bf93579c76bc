"""``recbole-genrec export``: a trained model for other programs."""

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


def export(
    checkpoint: CheckpointOption,
    to: Annotated[str, typer.Option("--to", help="new folder", metavar="FOLDER")],
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="one model for transformers, whose vocabulary holds the codes"
        ),
    ] = False,
    model: ModelOption = None,
    data_path: DataPathOption = None,
    backbone: BackboneOption = None,
) -> None:
    """A trained language model as peft adapter and codes, or merged into one model."""
    from recbole_genrec.experiments.trained import export as write_export

    changes = checkpoint_changes(model, data_path, backbone)
    write_export(checkpoint, to, merge, **changes)
    print(f"Exported to {to}")


COMMAND = Command(
    "export",
    export,
    TRAINED,
    examples=(
        "recbole-genrec export --checkpoint=saved/LCRec-ml-100k-1a2b3c4d.pth --to=exported",
        "recbole-genrec export --checkpoint=saved/LCRec-ml-100k-1a2b3c4d.pth --to=exported --merge",
    ),
)
