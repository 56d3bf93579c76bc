"""A result is made by one process at a time, and killed writers leave nothing behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import filelock
import pytest

from recbole_genrec.errors import ArtefactError, HeldError
from recbole_genrec.storage.atomic import atomic_write, held_alone, made_once, publish_folder


def hold(folder: Path) -> None:
    """Body of a process that starts to make ``result`` and to write ``other``, and never ends."""
    with made_once(folder / "result", print), atomic_write(folder / "other"):
        (folder / "ready").touch()
        time.sleep(600)


@pytest.fixture
def holder(tmp_path, request) -> Iterator[BaseProcess]:
    work = getattr(request, "param", hold)
    process = multiprocessing.get_context("spawn").Process(target=work, args=(tmp_path,))
    process.start()
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    (tmp_path / "ready").unlink()
    yield process
    process.kill()
    process.join()


def hold_alone(folder: Path) -> None:
    """Body of a process that works on ``result`` alone, and never ends."""
    with held_alone(folder / "result", "unused"):
        (folder / "ready").touch()
        time.sleep(600)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_another_process_waits_and_goes_on_when_the_holder_is_killed(tmp_path, holder):
    log: list[str] = []

    def kill(sentence: str) -> None:
        log.append(sentence)
        threading.Timer(0.2, holder.kill).start()

    with made_once(tmp_path / "result", kill) as missing:
        assert missing
        (tmp_path / "result").touch()
    assert log == [f"Another run is making {tmp_path / 'result'}. Waiting for it."]
    assert not [name for name in names(tmp_path) if name.startswith(".result")]

    with made_once(tmp_path / "result", log.append) as missing:
        assert not missing
    assert len(log) == 1


def test_a_file_of_a_living_writer_stays_until_it_is_killed(tmp_path, holder):
    before = names(tmp_path)
    with atomic_write(tmp_path / "other") as temporary:
        temporary.write_text("complete")
    assert names(tmp_path) == sorted([*before, "other"])

    holder.kill()
    holder.join()
    with atomic_write(tmp_path / "other") as temporary:
        temporary.write_text("complete")
    assert [name for name in names(tmp_path) if "other" in name] == ["other"]


@pytest.mark.parametrize("holder", [hold_alone], indirect=True)
def test_a_refusal_names_the_holder_until_it_is_killed(tmp_path, holder):
    for _ in range(2):  # a refusal leaves the lock as it is
        with (
            pytest.raises(
                HeldError, match=f"Name another. The other one is process {holder.pid} on "
            ),
            held_alone(tmp_path / "result", "Name another."),
        ):
            pass
    holder.kill()
    holder.join()
    with (
        held_alone(tmp_path / "result", "Name another."),
        pytest.raises(HeldError, match=f"process {os.getpid()} on "),
        held_alone(tmp_path / "result", "Name another."),
    ):
        pass
    assert names(tmp_path) == []


def test_an_error_of_the_maker_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), made_once(tmp_path / "result", print):
        raise ZeroDivisionError
    assert names(tmp_path) == []
    with made_once(tmp_path / "result", print) as missing:
        assert missing


def test_a_folder_that_may_not_be_written_is_no_folder_without_locks(tmp_path):
    (tmp_path / "wall").touch()
    log: list[str] = []
    with (
        pytest.raises(ArtefactError, match="wall/result cannot be written"),
        made_once(tmp_path / "wall" / "result", log.append),
    ):
        pass
    assert log == []


def test_a_file_system_without_locks_is_used_and_named(tmp_path, monkeypatch):
    def unsupported(*_, **__) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    log: list[str] = []
    for path in ("alone", "unnamed"):
        with held_alone(tmp_path / path, "unused", log.append if path == "alone" else None):
            pass
    assert "without locks (No locks available): two processes at once may" in log.pop()
    leftover = tmp_path / ".result.0123456789ab.tmp"
    leftover.mkdir()
    with made_once(tmp_path / "result", log.append) as missing:
        assert missing
        with publish_folder(tmp_path / "result") as temporary:
            (temporary / "file").touch()
    assert "file system without locks (No locks available)" in log[0]
    assert names(tmp_path) == [leftover.name, "result"], "its writer may live: nobody can tell"
