"""Files on disk: atomic, checksummed, never pickle.

An *artefact* is a folder with ``meta.json`` and one safetensors file that ``meta.json`` names together with its SHA-256.
``meta.json`` is renamed into place last, so a reader sees the old artefact or the new one, never half of each.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors

from recbole_genrec.errors import ArtefactError, DataError

META = "meta.json"
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


def properties_folder() -> Path:
    """Where our YAML files are: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "properties"
    return inside if inside.is_dir() else package.parent / "properties"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed, on error it is removed.

    The file gets the permissions of any new file (the umask's), unlike those of ``tempfile``. :class:`ArtefactError` when the system
    refuses (no space, no permission); what was there stays.
    """
    path = Path(path)
    with _temporary(path, lambda file: file.touch(exist_ok=False)) as temporary:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def publish_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``; on success it is renamed to it, on error it is removed.

    When another process was first, its result stays.
    """
    folder = Path(folder)
    with _temporary(folder, Path.mkdir) as temporary:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def check_writable(path: str | os.PathLike) -> None:
    """Raise :class:`ArtefactError` now, not after hours of training, when ``path`` cannot be written."""
    with _temporary(Path(path), Path.touch):
        pass


@contextlib.contextmanager
def _temporary(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new file or folder beside ``path``, gone at the end unless it was renamed.

    The writer holds a lock on it. One without a lock was left by a process that was killed, and is deleted here.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            with contextlib.suppress(OSError), _locked(old):
                _remove(old)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        create(temporary)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is ever deleted there
                stack.enter_context(_locked(temporary))
            try:
                yield temporary
            finally:
                _remove(temporary)
        with contextlib.suppress(OSError), _opened(path.parent) as parent:  # some file systems refuse it for folders
            os.fsync(parent)  # the new name


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the system refuses, in one sentence."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be written: {error.strerror or error}. What was there is unchanged. Make room, or choose another folder with "
            "the setting that names this one (checkpoint_dir, cache_dir, result_file, data_path)."
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which ends with the process; ``OSError`` when another process holds it."""
    with _opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def made_once(path: str | os.PathLike, log: Callable[[str], None]) -> Iterator[bool]:
    """Yield whether ``path`` has to be made, and let one process at a time make it: the others wait, and find it made.

    The lock is a hidden file beside ``path``; the system releases it when its holder ends, in whatever way.
    """
    path = Path(path)
    if path.exists():
        yield False
        return
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as stack:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            while not _obtained(stack.enter_context(open(lock, "a")).fileno(), lock, path, log):
                pass
        stack.callback(lock.unlink, missing_ok=True)
        yield not path.exists()


def _obtained(descriptor: int, lock: Path, path: Path, log: Callable[[str], None]) -> bool:
    """Wait for the lock; ``False`` when its last holder has removed the file meanwhile, so that others do not look at it any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log(f"Another run is making {path}. Waiting for it.")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        log(f"{path.parent} lies on a file system without locks ({error.strerror}): two runs at once may both make {path.name}.")
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write JSON atomically, readable by people (indented, UTF-8)."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


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
    meta = json.loads(json.dumps(meta, default=str))  # as a reader will see it: keys are text, tuples are lists
    blob = dump_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    checksum = hashlib.sha256(blob).hexdigest()
    name = f"tensors-{checksum[:12]}.safetensors"
    with atomic_write(folder / name) as temporary:
        temporary.write_bytes(blob)
    write_json(folder / META, {"tensors": name, "sha256": checksum, "meta_digest": digest(meta, size=64), "meta": meta})
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
        raise ArtefactError(f"{folder / name} is truncated or was edited (checksum differs). {hint}")
    try:
        return load_safetensors(blob), meta
    except (SafetensorError, ValueError) as error:
        raise ArtefactError(f"{folder / name} is no safetensors file ({error}). {hint}") from error


def folder_fingerprint(folder: Path) -> str:
    """Per file: name, size, and a hash of its first and last MiB (enough to tell fine-tuned weights apart, quick for large ones)."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"):
        size = path.stat().st_size
        with open(path, "rb") as stream:
            edges = stream.read(EDGE)
            stream.seek(max(EDGE, size - EDGE))
            edges += stream.read(EDGE)
        files.append((path.relative_to(folder).as_posix(), size, hashlib.sha256(edges).hexdigest()))
    return digest(files)
