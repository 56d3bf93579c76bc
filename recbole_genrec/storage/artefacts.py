"""Files on disk: atomic, checksummed, never pickle.

An *artefact* is a folder with ``meta.json`` and one safetensors file that ``meta.json`` names
together with its SHA-256. ``meta.json`` is renamed into place last, so a reader sees the old
artefact or the new one, never half of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors

from recbole_genrec.errors import ArtefactError
from recbole_genrec.storage.atomic import atomic_write, write_text
from recbole_genrec.storage.digests import digest

META = "meta.json"
TENSORS_FILE = r"tensors-[0-9a-f]{12}\.safetensors"

MADE_AGAIN = "Delete it; it is made again."
"""What to do about a damaged file of a cache. No other file may be called so: nothing makes it."""

KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
"""Types of :func:`read_json` in the words of JSON."""


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write JSON atomically, readable by people (indented, UTF-8).

    Args:
        path: the file to write.
        content: any value that JSON can hold; other values are written as their text.

    Raises:
        ArtefactError: the file cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    write_text(path, text + "\n")


def read_json(
    path: str | os.PathLike,
    required: Mapping[str, type] | None = None,
    advice: str = MADE_AGAIN,
) -> dict:
    """Read a JSON object.

    Args:
        path: the file to read.
        required: names that the object must have, with the type of each value, one of
            :data:`KINDS`.
        advice: what to do about a damaged file, as a sentence. The default is for files of a cache.

    Returns:
        The object as a dictionary.

    Raises:
        ArtefactError: the file is missing or damaged, or lacks a name.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} does not exist.") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is damaged ({error}). {advice}") from error
    except OSError as error:
        reason = error.strerror or error
        raise ArtefactError(
            f"{path} cannot be read ({reason}). Name a file that you may read."
        ) from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path} is damaged (not a JSON object). {advice}")
    check_content(path, content, required or {}, advice)
    return content


def check_content(
    path: str | os.PathLike,
    content: Mapping[str, object],
    required: Mapping[str, type],
    advice: str = MADE_AGAIN,
) -> None:
    """Refuse a JSON object that does not hold what is expected.

    Args:
        path: the file of the object, for the message.
        content: what the file holds.
        required: as in :func:`read_json`.
        advice: as there.

    Raises:
        ArtefactError: a name is missing, or its value is of another type.
    """
    for name, kind in required.items():
        if name not in content:
            raise ArtefactError(f"{path} is damaged (it has no {name!r}). {advice}")
        if not isinstance(content[name], kind):
            raise ArtefactError(f"{path} is damaged ({name!r} is not {KINDS[kind]}). {advice}")


def save_artefact(folder: str | os.PathLike, tensors: dict[str, torch.Tensor], meta: dict) -> None:
    """Store tensors and a description of them, replacing what was there.

    Args:
        folder: the folder of the artefact.
        tensors: the tensors by name.
        meta: values that JSON can hold.

    Raises:
        ArtefactError: a file cannot be written.
    """
    folder = Path(folder)

    # The digest is that of what a reader will see: keys are text, tuples are lists.
    meta = json.loads(json.dumps(meta, default=str))

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    blob = dump_safetensors(stored)
    checksum = hashlib.sha256(blob).hexdigest()
    name = f"tensors-{checksum[:12]}.safetensors"
    with atomic_write(folder / name) as temporary:
        temporary.write_bytes(blob)

    header = {
        "tensors": name,
        "sha256": checksum,
        "meta_digest": digest(meta, size=64),
        "meta": meta,
    }
    write_json(folder / META, header)

    for file in folder.glob("tensors-*.safetensors"):
        if file.name != name:
            file.unlink(missing_ok=True)


def load_artefact(
    folder: str | os.PathLike, advice: str | None = None
) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what :func:`save_artefact` wrote.

    Args:
        folder: the folder of the artefact.
        advice: what to do about a damaged one, as a sentence. The default is for the folders of a
            cache: delete it.

    Returns:
        The tensors by name, and their description.

    Raises:
        ArtefactError: a file is missing, truncated or edited.
    """
    folder = Path(folder)
    hint = _hint(folder, advice)
    header = read_json(folder / META, advice=hint)
    if not _is_header(header):
        raise ArtefactError(f"{folder / META} was edited or is damaged. {hint}")

    file = folder / header["tensors"]
    try:
        blob = file.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{file} cannot be read ({error}). {hint}") from error
    if hashlib.sha256(blob).hexdigest() != header.get("sha256"):
        raise ArtefactError(f"{file} is truncated or was edited (checksum differs). {hint}")

    try:
        return load_safetensors(blob), header["meta"]
    except (SafetensorError, ValueError) as error:
        raise ArtefactError(f"{file} is no safetensors file ({error}). {hint}") from error


def check_tensors(
    folder: str | os.PathLike,
    tensors: dict[str, torch.Tensor],
    shapes: dict[str, tuple[int | None, ...]],
) -> None:
    """Refuse an artefact whose checksums are right and whose tensors are not what is expected.

    Args:
        folder: the folder of the artefact, for the message.
        tensors: what :func:`load_artefact` read.
        shapes: the shape of each expected tensor; None stands for any size.

    Raises:
        ArtefactError: a tensor is missing, has another shape, or holds a number that is not finite.
    """
    hint = _hint(folder, None)
    for name, shape in shapes.items():
        if name not in tensors:
            raise ArtefactError(f"{folder} does not hold {name!r}. {hint}")
        sizes = tuple(tensors[name].shape)
        same_rank = len(sizes) == len(shape)
        if not same_rank or any(b not in (None, a) for a, b in zip(sizes, shape, strict=True)):
            raise ArtefactError(f"{folder}: {name!r} has shape {sizes} instead of {shape}. {hint}")
    check_finite(folder, tensors)


def check_finite(
    folder: str | os.PathLike, tensors: dict[str, torch.Tensor], advice: str | None = None
) -> None:
    """Refuse an artefact with numbers that are not finite.

    Args:
        folder: the folder of the artefact, for the message.
        tensors: what :func:`load_artefact` read.
        advice: as in :func:`load_artefact`.

    Raises:
        ArtefactError: a tensor of ``tensors`` holds such a number.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            hint = _hint(folder, advice)
            raise ArtefactError(f"{folder}: {name!r} holds numbers that are not finite. {hint}")


def _hint(folder: str | os.PathLike, advice: str | None) -> str:
    """The advice about a damaged artefact; without one it belongs to a cache."""
    return f"Delete the folder {folder}; it is made again." if advice is None else advice


def _is_header(header: dict) -> bool:
    """Whether ``meta.json`` is as it was written, and names a file of its own folder."""
    name = header.get("tensors")
    meta = header.get("meta")
    if not isinstance(name, str) or not isinstance(meta, dict):
        return False
    if re.fullmatch(TENSORS_FILE, name) is None:
        return False
    return digest(meta, size=64) == header.get("meta_digest")
