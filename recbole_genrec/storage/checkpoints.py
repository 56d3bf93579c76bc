"""Checkpoints of plain values and tensors, written atomically and read without running code.

A checkpoint is one file, or a folder of open formats (safetensors and JSON).
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from recbole_genrec.errors import ArtefactError
from recbole_genrec.storage.artefacts import META, load_artefact, save_artefact
from recbole_genrec.storage.atomic import atomic_write

FORMAT = 1
TENSOR = "__tensor__"

EXPORT_AGAIN = "Copy the folder again from where it came, or export the checkpoint again."
"""What to do about a damaged folder; nothing makes it again by itself."""


def save_checkpoint(path: str | os.PathLike, content: dict) -> None:
    """Write a checkpoint file that ``torch.load(weights_only=True)`` can read.

    Args:
        path: the file to write.
        content: plain values and tensors only.

    Raises:
        ArtefactError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        try:
            torch.save({"format": FORMAT, **content}, temporary)
        except RuntimeError as error:  # torch turns a full disk into one
            raise OSError(str(error).splitlines()[0]) from error


def load_checkpoint(
    path: str | os.PathLike, device: torch.device | str = "cpu", with_weights: bool = True
) -> dict:
    """Read a checkpoint; no code in it can run.

    Args:
        path: what :func:`save_checkpoint` or :func:`save_checkpoint_folder` wrote.
        device: where the tensors go.
        with_weights: False: the tensors of a file stay on the disk, for its settings alone.

    Returns:
        The content that was saved.

    Raises:
        ArtefactError: the file is missing, damaged, or was not written by this package.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path, device)
    if not path.is_file():
        raise ArtefactError(f"The checkpoint {path} does not exist.")
    try:
        if with_weights:
            _check_archive(path)
        content = torch.load(path, map_location=device, weights_only=True, mmap=not with_weights)
    except Exception as error:  # torch raises many types for damaged and for foreign files
        raise ArtefactError(
            f"{path} is damaged or is not a checkpoint of recbole_genrec ({type(error).__name__}). "
            "Checkpoints that stock RecBole wrote hold a pickled Config and are refused, because "
            "unpickling can run foreign code: train the model again here."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtefactError(f"{path} is not a checkpoint of this version of recbole_genrec.")
    return content


def _check_archive(path: Path) -> None:
    """Raise ``BadZipFile`` for damaged content: torch does not look at the checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(damaged)


def save_checkpoint_folder(
    folder: str | os.PathLike, content: dict, elsewhere: dict[str, dict[str, str]]
) -> None:
    """Write a checkpoint as safetensors and JSON.

    Args:
        folder: the folder to write.
        content: plain values and tensors only.
        elsewhere: other safetensors files of the folder that hold part of
            ``content["state_dict"]``, as ``{file: {weight: its name there}}``.

    Raises:
        ArtefactError: a file cannot be written.
    """
    stored_elsewhere = {name for names in elsewhere.values() for name in names}
    weights = {
        name: tensor
        for name, tensor in content["state_dict"].items()
        if name not in stored_elsewhere
    }
    tensors: dict[str, torch.Tensor] = {}
    plain = _take_out(tensors, {**content, "state_dict": weights}, "")
    save_artefact(folder, tensors, {"format": FORMAT, "content": plain, "elsewhere": elsewhere})


def _load_folder(folder: Path, device: torch.device | str) -> dict:
    """Read what :func:`save_checkpoint_folder` wrote."""
    if not (folder / META).is_file():
        raise ArtefactError(
            f"{folder} holds no checkpoint: {META} is missing. Merged exports are for "
            "transformers; export without merging."
        )
    tensors, meta = load_artefact(folder, EXPORT_AGAIN)
    if meta.get("format") != FORMAT:
        raise ArtefactError(f"{folder} is not a checkpoint of this version of recbole_genrec.")
    content = _put_back(tensors, meta["content"], device)
    for file, names in meta["elsewhere"].items():
        try:
            weights = load_file(folder / file, device=str(device))
            content["state_dict"].update({name: weights[there] for name, there in names.items()})
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtefactError(
                f"{folder / file} is missing, damaged or lacks a weight ({error}). {EXPORT_AGAIN}"
            ) from error
    return content


def _take_out(tensors: dict[str, torch.Tensor], value: Any, path: str) -> Any:
    """Move the tensors of ``value`` to ``tensors``; their names stay in their places.

    Args:
        tensors: receives the tensors, by their paths.
        value: what is to be written as JSON.
        path: keys that lead to ``value``, joined by ``/``.

    Returns:
        ``value`` with ``{TENSOR: path}`` in place of each tensor.
    """
    if torch.is_tensor(value):
        # safetensors refuses two names for one memory
        memory = value.untyped_storage().data_ptr()
        shared = any(memory == other.untyped_storage().data_ptr() for other in tensors.values())
        if shared:
            value = value.clone()
        tensors[path] = value
        return {TENSOR: path}

    prefix = f"{path}/" if path else ""
    if isinstance(value, dict):
        return {key: _take_out(tensors, part, f"{prefix}{key}") for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not all(isinstance(part, str) for part in value):
        return [_take_out(tensors, part, f"{path}/{number}") for number, part in enumerate(value)]
    return value


def _put_back(tensors: dict[str, torch.Tensor], value: Any, device: torch.device | str) -> Any:
    """Undo :func:`_take_out`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]].to(device)
        return {key: _put_back(tensors, part, device) for key, part in value.items()}
    if isinstance(value, list):
        return [_put_back(tensors, part, device) for part in value]
    return value


def load_state(model: torch.nn.Module, state: dict, name: str = "The checkpoint") -> None:
    """Load weights; a missing one must be one that the model leaves out (a frozen backbone).

    Args:
        model: the model to fill; ``frozen_names``, where it has one, is the set of weights that
            its checkpoints leave out.
        state: weights by name.
        name: what holds the weights, as the subject of a sentence.

    Raises:
        ArtefactError: names the weights that do not fit, or are not numbers.
    """
    _check_numbers(state, name)
    left_out: set[str] = getattr(model, "frozen_names", set())
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ArtefactError(f"{name} does not fit the model: {error}") from error
    missing = [weight for weight in missing if weight not in left_out]
    if missing or unexpected:
        raise ArtefactError(
            f"{name} does not fit the model: missing {missing[:5]}, unexpected {unexpected[:5]}."
        )


def _check_numbers(state: dict, name: str) -> None:
    """Refuse weights that are not numbers, whose lists would be arbitrary."""
    for weight, value in state.items():
        is_float = torch.is_tensor(value) and value.is_floating_point()
        if is_float and bool(value.isnan().any()):
            raise ArtefactError(
                f"{name} holds values of {weight} that are not numbers (NaN), so its lists would "
                "be arbitrary. Train again with a lower --learning_rate or --precision=fp32, or "
                "take another checkpoint."
            )
