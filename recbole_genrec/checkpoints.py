"""Checkpoints of plain values and tensors: written atomically, read without running code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch

from recbole_genrec.errors import ArtefactError
from recbole_genrec.files import atomic_write

FORMAT = 1


def save_checkpoint(path: str | os.PathLike, content: dict) -> None:
    """Write ``content`` (plain values and tensors only) atomically so that ``weights_only=True`` can read it."""
    with atomic_write(path) as temporary:
        try:
            torch.save({"format": FORMAT, **content}, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(str(error).splitlines()[0]) from error


def load_checkpoint(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict:
    """Read a checkpoint of :func:`save_checkpoint`; no code in the file can run.

    Raises:
        ArtefactError: the file is missing, damaged, or was not written by this package.
    """
    if not Path(path).is_file():
        raise ArtefactError(f"The checkpoint {path} does not exist.")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch does not look at the checksums
                raise zipfile.BadZipFile(damaged)
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for damaged and for foreign files
        raise ArtefactError(
            f"{path} is damaged or is not a checkpoint of recbole_genrec ({type(error).__name__}). Checkpoints that stock RecBole wrote "
            "hold a pickled Config and are refused, because unpickling can run foreign code: train the model again here."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtefactError(f"{path} is not a checkpoint of this version of recbole_genrec.")
    return content


def load_state(model: torch.nn.Module, state: dict) -> None:
    """Load ``state``; whatever is missing must be what the model says it leaves out (a frozen backbone).

    Raises:
        ArtefactError: names the weights that do not fit.
    """
    left_out = getattr(model, "frozen_names", set())
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ArtefactError(f"The checkpoint does not fit the model: {error}") from error
    missing = [name for name in missing if name not in left_out]
    if missing or unexpected:
        raise ArtefactError(f"The checkpoint does not fit the model: missing {missing[:5]}, unexpected {unexpected[:5]}.")
