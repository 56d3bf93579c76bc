"""Checkpoints of plain values and tensors: written atomically, read without running code; one file, or a folder of open formats."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from recbole_genrec.errors import ArtefactError
from recbole_genrec.storage.artefacts import META, load_artefact, save_artefact
from recbole_genrec.storage.atomic import atomic_write

FORMAT = 1
TENSOR = "__tensor__"


def save_checkpoint(path: str | os.PathLike, content: dict) -> None:
    """Write ``content`` (plain values and tensors only) atomically so that ``weights_only=True`` can read it."""
    with atomic_write(path) as temporary:
        try:
            torch.save({"format": FORMAT, **content}, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(str(error).splitlines()[0]) from error


def load_checkpoint(path: str | os.PathLike, device: torch.device | str = "cpu") -> dict:
    """Read what :func:`save_checkpoint` or :func:`save_checkpoint_folder` wrote; no code in it can run.

    Raises:
        ArtefactError: the file is missing, damaged, or was not written by this package.
    """
    if Path(path).is_dir():
        return _load_folder(Path(path), device)
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


def save_checkpoint_folder(
    folder: str | os.PathLike, content: dict, elsewhere: dict[str, dict[str, str]]
) -> None:
    """Write a checkpoint as safetensors and JSON.

    Args:
        elsewhere: other safetensors files of the folder that hold part of ``content["state_dict"]``: file -> {weight: its name there}.
    """
    inside = {name for names in elsewhere.values() for name in names}
    own = {name: tensor for name, tensor in content["state_dict"].items() if name not in inside}
    tensors: dict[str, torch.Tensor] = {}
    plain = _take_out(tensors, {**content, "state_dict": own}, "")
    save_artefact(folder, tensors, {"format": FORMAT, "content": plain, "elsewhere": elsewhere})


def _load_folder(folder: Path, device: torch.device | str) -> dict:
    if not (folder / META).is_file():
        raise ArtefactError(
            f"{folder} holds no checkpoint: {META} is missing. Merged exports are for transformers; export without merging."
        )
    tensors, meta = load_artefact(folder)
    if meta.get("format") != FORMAT:
        raise ArtefactError(f"{folder} is not a checkpoint of this version of recbole_genrec.")
    content = _put_back(tensors, meta["content"], device)
    for file, names in meta["elsewhere"].items():
        try:
            weights = load_file(folder / file, device=str(device))
            content["state_dict"].update({name: weights[there] for name, there in names.items()})
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtefactError(
                f"{folder / file} is missing, damaged or lacks a weight ({error}). Export the checkpoint again."
            ) from error
    return content


def _take_out(tensors: dict[str, torch.Tensor], value: object, path: str) -> object:
    """``value`` with names in place of its tensors, which go to ``tensors``; safetensors refuses two names for one memory."""
    if torch.is_tensor(value):
        shared = any(
            value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
            for other in tensors.values()
        )
        tensors[path] = value.clone() if shared else value
        return {TENSOR: path}
    if isinstance(value, dict):
        return {
            key: _take_out(tensors, part, f"{path}/{key}" if path else str(key))
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)) and not all(isinstance(part, str) for part in value):
        return [_take_out(tensors, part, f"{path}/{number}") for number, part in enumerate(value)]
    return value


def _put_back(
    tensors: dict[str, torch.Tensor], value: object, device: torch.device | str
) -> object:
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]].to(device)
        return {key: _put_back(tensors, part, device) for key, part in value.items()}
    return (
        [_put_back(tensors, part, device) for part in value] if isinstance(value, list) else value
    )


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
        raise ArtefactError(
            f"The checkpoint does not fit the model: missing {missing[:5]}, unexpected {unexpected[:5]}."
        )
