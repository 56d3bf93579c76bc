"""Keys of stored results: digests of settings, files and folders."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from recbole_genrec.errors import DataError

EDGE = 2**20


def digest(*parts: object, size: int = 16) -> str:
    """Hex SHA-256 prefix of the JSON form of ``parts``; the key under which results are stored."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:size]


def read_bytes(file: str | os.PathLike) -> bytes:
    """What ``file`` holds; :class:`DataError` when it cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}).") from error


def file_digest(file: str | os.PathLike) -> str:
    """SHA-256 of what ``file`` holds; :class:`DataError` when it cannot be read."""
    return hashlib.sha256(read_bytes(file)).hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """Per file: name, size, and a hash of its first and last MiB (enough to tell fine-tuned weights apart, quick for large ones)."""
    files = []
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"
    ):
        size = path.stat().st_size
        with open(path, "rb") as stream:
            edges = stream.read(EDGE)
            stream.seek(max(EDGE, size - EDGE))
            edges += stream.read(EDGE)
        files.append((path.relative_to(folder).as_posix(), size, hashlib.sha256(edges).hexdigest()))
    return digest(files)
