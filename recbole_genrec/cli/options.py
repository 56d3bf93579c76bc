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
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="show warnings and the result alone, no bars")
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


def quietly(settings: list[str]) -> list[str]:
    """Settings of a run that shows warnings alone; what is set already stays."""
    names = {word.partition("=")[0] for word in settings}
    silence = {"--show_progress": "False", "--state": "WARNING"}
    added = [f"{name}={value}" for name, value in silence.items() if name not in names]
    return [*settings, *added]


def split_words(text: str) -> list[str]:
    """``"a, b"`` -> ``["a", "b"]``."""
    return [word.strip() for word in text.split(",")]
