"""Files on disk: atomic, checksummed, never pickle.

An *artefact* is a folder with ``meta.json`` and one safetensors file that ``meta.json`` names together with its SHA-256.
``meta.json`` is renamed into place last, so a reader sees the old artefact or the new one, never half of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors

from recbole_genrec.errors import ArtefactError
from recbole_genrec.storage.atomic import atomic_write
from recbole_genrec.storage.digests import digest

META = "meta.json"


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write JSON atomically, readable by people (indented, UTF-8)."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON object; :class:`ArtefactError` names the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} does not exist.") from error
    except (ValueError, OSError) as error:
        raise ArtefactError(f"{path} is damaged ({error}). Delete it; it is made again.") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path} is damaged (not a JSON object). Delete it; it is made again.")
    return content


def save_artefact(folder: str | os.PathLike, tensors: dict[str, torch.Tensor], meta: dict) -> None:
    """Store ``tensors`` and the JSON-serialisable ``meta`` in ``folder``, replacing what was there."""
    folder = Path(folder)
    meta = json.loads(
        json.dumps(meta, default=str)
    )  # as a reader will see it: keys are text, tuples are lists
    blob = dump_safetensors(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )
    checksum = hashlib.sha256(blob).hexdigest()
    name = f"tensors-{checksum[:12]}.safetensors"
    with atomic_write(folder / name) as temporary:
        temporary.write_bytes(blob)
    write_json(
        folder / META,
        {"tensors": name, "sha256": checksum, "meta_digest": digest(meta, size=64), "meta": meta},
    )
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_artefact(folder: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict]:
    """Return ``(tensors, meta)``; :class:`ArtefactError` when a file is missing, truncated or edited."""
    folder = Path(folder)
    header = read_json(folder / META)
    meta = header.get("meta")
    name = header.get("tensors")
    hint = f"Delete the folder {folder}; it is made again."
    if (
        not isinstance(name, str)
        or not isinstance(meta, dict)
        or not re.fullmatch(r"tensors-[0-9a-f]{12}\.safetensors", name)
        or digest(meta, size=64) != header.get("meta_digest")
    ):
        raise ArtefactError(f"{folder / META} was edited or is damaged. {hint}")
    try:
        blob = (folder / name).read_bytes()
    except OSError as error:
        raise ArtefactError(f"{folder / name} cannot be read ({error}). {hint}") from error
    if hashlib.sha256(blob).hexdigest() != header.get("sha256"):
        raise ArtefactError(
            f"{folder / name} is truncated or was edited (checksum differs). {hint}"
        )
    try:
        return load_safetensors(blob), meta
    except (SafetensorError, ValueError) as error:
        raise ArtefactError(f"{folder / name} is no safetensors file ({error}). {hint}") from error
