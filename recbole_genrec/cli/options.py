"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", help="the .pth file of a run", metavar="FILE")
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


def checkpoint_changes(
    model: str | None, data_path: str | None, backbone: str | None
) -> dict[str, Any]:
    """The settings that loading a checkpoint may change, from the options above."""
    changes: dict[str, Any] = {"model_class": model}
    if data_path:
        changes["data_path"] = data_path
    if backbone:
        changes["backbone"] = backbone
    return changes


def split_words(text: str) -> list[str]:
    """``"a, b"`` -> ``["a", "b"]``."""
    return [word.strip() for word in text.split(",")]
