"""Files and folders that appear complete or not at all, and results that one process makes."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from recbole_genrec.errors import ArtefactError, HeldError

TEMPORARY = ".tmp"
LOCK = ".lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without locks answer; every other error is one of writing."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``.

    On success the temporary file is flushed to disk and renamed to ``path``, on error it is
    removed. The file gets the permissions of any new file (the umask's), unlike those of
    ``tempfile``.

    Args:
        path: the file to write.

    Raises:
        ArtefactError: the system refuses (no space, no permission); the old file is unchanged.
    """
    path = Path(path)
    with _temporary(path, lambda file: file.touch(exist_ok=False)) as temporary:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write text atomically, as UTF-8.

    Args:
        path: the file to write.
        text: its content.

    Raises:
        ArtefactError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def publish_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``; rename it on success, remove it on error.

    When another process was first, its result stays.

    Args:
        folder: the folder to make.

    Raises:
        ArtefactError: the system refuses (no space, no permission).
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
    """Raise now, not after hours of training, when ``path`` cannot be written.

    Args:
        path: a file that will be written later.

    Raises:
        ArtefactError: ``path`` is a folder, or a new file cannot be created beside it.
    """
    path = Path(path)
    if path.is_dir():
        raise ArtefactError(f"{path} is a folder, and a file is to be written. Name a file.")
    with _temporary(path, Path.touch):
        pass


@contextlib.contextmanager
def made_once(path: str | os.PathLike, log: Callable[[str], None]) -> Iterator[bool]:
    """Yield whether ``path`` is missing, and let one process at a time make it.

    Other processes wait, and find it made. The lock is a hidden file beside ``path``; the
    system releases it when the process that holds it ends, also after a kill.

    Args:
        path: the file or folder that the block makes when the yielded value is true.
        log: called with a sentence when this process waits, or when locks are not available.

    Raises:
        ArtefactError: the lock file cannot be created.
    """
    path = Path(path)
    if path.exists():
        yield False
        return

    lock = _lock(path.with_name(f".{path.name}{LOCK}"))
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _wait_for(lock, path, log)
    try:
        yield not path.exists()
    finally:
        _give_back(lock)


@contextlib.contextmanager
def held_alone(
    path: str | os.PathLike, refusal: str, log: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Keep other processes out for the time of the block; unlike :func:`made_once` none waits.

    The system releases the lock when this process ends, also after a kill.

    Args:
        path: the file or folder that the block works on.
        refusal: what another process is told; the number of the one that holds it follows.
        log: called with a sentence when locks are not available.

    Raises:
        HeldError: another process holds it.
        ArtefactError: the lock file cannot be created.
    """
    path = Path(path)
    file = _lock_file(path.with_name(f".{path.name}"))
    lock = _lock(file)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = _holder(file)
        try:
            lock.acquire(blocking=False)
            _sign(file)
        except filelock.Timeout as error:
            raise HeldError(refusal + holder) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            if log is not None:
                log(
                    _without_locks(path, error, f"two processes at once may both write {path.name}")
                )
    try:
        yield
    finally:
        _give_back(lock)


def _wait_for(lock: filelock.BaseFileLock, path: Path, log: Callable[[str], None]) -> None:
    """Acquire the lock of ``path``, however long another process holds it."""
    try:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            log(f"Another run is making {path}. Waiting for it.")
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log(_without_locks(path, error, f"two runs at once may both make {path.name}"))


def _without_locks(path: Path, error: OSError, risk: str) -> str:
    """A sentence about a file system that refuses locks."""
    return f"{path.parent} lies on a file system without locks ({error.strerror}): {risk}."


def _sign(file: Path) -> None:
    """Write into the file of a lock which process holds it, where the system lets it."""
    with contextlib.suppress(OSError):
        file.write_text(f"{os.getpid()} on {platform.node()}", encoding="utf-8")


def _holder(file: Path) -> str:
    """A sentence about the process that signed the file of a lock; empty where none did."""
    signature = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        signature = file.read_text(encoding="utf-8").strip()
    return f" The other one is process {signature}." if signature else ""


@contextlib.contextmanager
def _temporary(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new file or folder beside ``path``; remove it at the end unless it was renamed."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)

        name = f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY}"
        temporary = path.with_name(name)
        with _marked_as_living(temporary):
            try:
                create(temporary)
                yield temporary
            finally:
                _remove(temporary)
        _flush_names(path.parent)


@contextlib.contextmanager
def _marked_as_living(temporary: Path) -> Iterator[None]:
    """Hold a lock beside a temporary file, so that no other process takes it for a leftover."""
    lock = _lock(_lock_file(temporary))
    try:
        lock.acquire()
    except OSError as error:
        # On a file system without locks, no process ever removes a leftover.
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        _give_back(lock)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` whose writers were killed: their locks are free."""
    pattern = f".{glob.escape(path.name)}.*{TEMPORARY}"
    leftovers = set(path.parent.glob(pattern))
    for lock_file in path.parent.glob(pattern + LOCK):
        leftovers.add(lock_file.with_name(lock_file.name.removesuffix(LOCK)))

    for leftover in leftovers:
        lock = _lock(_lock_file(leftover))
        with contextlib.suppress(OSError):  # the writer lives, or there are no locks
            lock.acquire(blocking=False)
            _remove(leftover)
            _give_back(lock)


def _lock_file(temporary: Path) -> Path:
    return temporary.with_name(temporary.name + LOCK)


def _lock(file: Path) -> filelock.BaseFileLock:
    """A lock of the system, which ends with its process; never a marker that outlives it."""
    return filelock.FileLock(file, fallback_to_soft=False)


def _give_back(lock: filelock.BaseFileLock) -> None:
    """Remove the file of a lock and release it.

    The file is removed first: a process that has already opened it then sees that it is gone
    and tries again. Windows refuses that; there filelock removes the file after the release.
    """
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn a refusal of the system into a sentence."""
    try:
        yield
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be written: {error.strerror or error}. What was there is unchanged. "
            "Make room, or choose another folder with the setting that names this one "
            "(checkpoint_dir, cache_dir, result_file, data_path)."
        ) from error


def _flush_names(folder: Path) -> None:
    """Write the names in ``folder`` to disk; some systems refuse it for folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
