"""Keys of stored results: digests of settings, files and folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from recbole_genrec.errors import DataError

EDGE = 2**20
"""Bytes at each end of a file that count for the fingerprint of its folder."""

SAMPLES = 64
"""Places inside of a file, at equal distances, that count for the fingerprint of its folder."""

SAMPLE = 2**16
"""Bytes at each of these places."""

BLOCK = 2**20
"""Bytes of a file that are read at once."""


def digest(*values: object, size: int = 16) -> str:
    """Key under which a result is stored.

    Args:
        values: everything that the result depends on, as values that JSON can hold.
        size: number of hexadecimal digits.

    Returns:
        The start of the SHA-256 of the JSON form of ``values``.
    """
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:size]


def read_bytes(file: str | os.PathLike) -> bytes:
    """Read a file of the user.

    Args:
        file: the file to read.

    Returns:
        Its bytes.

    Raises:
        DataError: the file cannot be read.
    """
    with _readable(file):
        return Path(file).read_bytes()


def check_readable(file: str | os.PathLike) -> None:
    """Open a file of the user and close it again.

    Args:
        file: the file.

    Raises:
        DataError: the file cannot be read.
    """
    with _readable(file), open(file, "rb"):
        pass


def file_digest(file: str | os.PathLike) -> str:
    """SHA-256 of a file of the user.

    Args:
        file: the file to read.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    sha256 = hashlib.sha256()
    with _readable(file), open(file, "rb") as stream:
        while block := stream.read(BLOCK):  # checkpoints may be larger than the memory
            sha256.update(block)
    return sha256.hexdigest()


@contextlib.contextmanager
def _readable(file: str | os.PathLike) -> Iterator[None]:
    """:class:`DataError` where the system refuses to read the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}).") from error


def folder_fingerprint(folder: Path, ends_only: bool = False) -> str:
    """Digest of the names and sizes of all files in a folder, and of parts of their content.

    The first and the last MiB of each file count, and 64 KiB at :data:`SAMPLES` places between
    them. That is enough to tell fine-tuned weights apart, and quick for large ones.

    Args:
        folder: the folder of a language model.
        ends_only: whether nothing between the ends counts, as in earlier versions.

    Returns:
        16 hexadecimal digits.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        size = path.stat().st_size
        with open(path, "rb") as stream:
            edges = stream.read(EDGE)
            stream.seek(max(EDGE, size - EDGE))
            edges += stream.read(EDGE)
            if not ends_only:
                edges += _samples(stream, size)
        name = path.relative_to(folder).as_posix()
        files.append((name, size, hashlib.sha256(edges).hexdigest()))
    return digest(files)


def _samples(stream: BinaryIO, size: int) -> bytes:
    """What a file holds at places between its ends, all of it where they touch.

    Args:
        stream: the file.
        size: of the file, in bytes.
    """
    inside = size - 2 * EDGE
    step = max(SAMPLE, inside // SAMPLES)
    samples = []
    for start in range(EDGE, EDGE + inside, step):
        stream.seek(start)
        samples.append(stream.read(SAMPLE))
    return b"".join(samples)
