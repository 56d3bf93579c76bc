"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from recbole_genrec.errors import ArtefactError


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
            with contextlib.suppress(
                OSError
            ):  # a file system without locks: nothing is ever deleted there
                stack.enter_context(_locked(temporary))
            try:
                yield temporary
            finally:
                _remove(temporary)
        with (
            contextlib.suppress(OSError),
            _opened(path.parent) as parent,
        ):  # some file systems refuse it for folders
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
        log(
            f"{path.parent} lies on a file system without locks ({error.strerror}): two runs at once may both make {path.name}."
        )
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False
