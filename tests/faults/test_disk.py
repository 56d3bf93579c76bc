"""A full disk, forbidden folders and a clock that runs backwards: one sentence, nothing
half-written, nothing lost.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from counts import DISK, tried
from toy import TINY, write_dataset

from recbole_genrec.errors import ArtefactError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.storage.artefacts import save_artefact, write_json
from recbole_genrec.storage.atomic import atomic_write, publish_folder
from recbole_genrec.storage.checkpoints import save_checkpoint

resource = pytest.importorskip("resource", reason="limits of POSIX systems")

TENSORS = {"weights": torch.arange(5_000.0)}
NOBODY = 65534


def write_ranks(folder: Path) -> None:
    UserRanks(np.arange(3_000), tuple(f"user{n}" for n in range(3_000)), 20).save(
        folder / "run.ranks"
    )


def publish(folder: Path) -> None:
    with publish_folder(folder / "store-key") as temporary:
        save_artefact(temporary / "codes", TENSORS, {})


WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda folder: write_json(folder / "result.json", {"numbers": list(range(3_000))}),
    "checkpoint": lambda folder: save_checkpoint(folder / "run.pth", {"state_dict": TENSORS}),
    "artefact": lambda folder: save_artefact(folder / "codes", TENSORS, {"tokens": ["a", "b"]}),
    "ranks": write_ranks,
    "published": publish,
}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: the kernel refuses the write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@writers
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_a_full_disk(tmp_path, write, there):
    if there and write is not publish:  # a published folder is never written again
        write(tmp_path)
    before = content(tmp_path)
    for size in (0, 1, 10, 100, 1_000, 10_000):
        with (
            tried(DISK),
            limited(size),
            pytest.raises(ArtefactError, match=r"cannot be written.*unchanged\. Make room"),
        ):
            write(tmp_path)
        assert content(tmp_path).items() >= before.items() and not list(tmp_path.rglob("*.tmp"))
    write(tmp_path)
    assert not before or content(tmp_path).keys() == before.keys()


@writers
@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "open", "mkdir"])
def test_any_call_may_fail(tmp_path, monkeypatch, write, call):
    """The n-th call of this kind fails, for n = 0, 1, ... until the writer needs no n-th call."""
    codes = itertools.cycle([errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
    for n in itertools.count():
        calls, original = itertools.count(), getattr(os, call)

        def failing(*args, original=original, calls=calls, n=n, **kwargs):
            if (
                next(calls) == n
                and call != "open"
                or call == "open"
                and args[1] & os.O_CREAT
                and next(calls) == n
            ):
                code = next(codes)
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        folder = tmp_path / str(n)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with tried(DISK):
                try:
                    write(folder)
                except ArtefactError as error:
                    assert "cannot be written" in str(error)
        assert not list(folder.rglob("*.tmp"))
        write(folder)
        if next(calls) <= n:
            break
    assert n < 20


def unprivileged(function: Callable[[], None]) -> str:
    """Run in a child without root's rights; the text of the GenRecError it ends with, or what
    else happened.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        try:
            function()
            said = "no error"
        except GenRecError as error:
            said = str(error)
        except BaseException as error:
            said = f"FOREIGN {error!r}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.wait()
    return said


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A folder that everybody may read and that an unprivileged process may not write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data.txt").write_text("kept")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


@writers
def test_permission_denied(forbidden, write):
    before = content(forbidden)
    with tried(DISK):
        said = unprivileged(lambda: write(forbidden))
        assert "cannot be written: Permission denied" in said
        assert content(forbidden) == before


@pytest.mark.parametrize("where", ["log", "checkpoint_dir", "cache_dir", "result_file"])
def test_a_run_that_may_not_write(tmp_path, where):
    """A file lies where the folder should be made, which stops root too."""
    settings = {
        **TINY,
        "data_path": str(write_dataset(tmp_path / "data")),
        "epochs": 1,
        "tokenizer_epochs": 1,
    }
    wall = tmp_path / ("log" if where == "log" else "wall")
    wall.write_text("no folder")
    if where != "log":
        settings[where] = str(wall / "inside")
    with (
        tried(DISK),
        pytest.raises(
            GenRecError,
            match=f"{wall.name}.* cannot be (written|read or written): (Not a "
            "directory|File exists)",
        ),
    ):
        run_recbole_genrec("STORE", "toy", config_dict=settings)
    assert wall.read_text() == "no folder"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    settings = {**TINY, "data_path": str(write_dataset(tmp_path / "data"))}
    original = open

    def guarded(file, *args, **kwargs):
        if str(file).endswith(".item"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return original(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", guarded)
    with (
        tried(DISK),
        pytest.raises(
            GenRecError, match=r"toy\.item' cannot be read or written: Permission denied"
        ),
    ):
        run_recbole_genrec("STORE", "toy", config_dict=settings)


def test_a_clock_that_runs_backwards(tmp_path, monkeypatch):
    settings = {
        **TINY,
        "data_path": str(write_dataset(tmp_path / "data")),
        "epochs": 1,
        "tokenizer_epochs": 1,
        "show_progress": True,
    }
    with tried(DISK):
        straight = run_recbole_genrec(
            "STORE", "toy", config_dict={**settings, "cache_dir": "first"}
        )
        seconds = itertools.count(2_000_000_000, -3_600)
        monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
        monkeypatch.setattr("recbole.trainer.trainer.time", time.time)
        backwards = run_recbole_genrec(
            "STORE", "toy", config_dict={**settings, "cache_dir": "second"}
        )
        assert backwards["test_result"] == straight["test_result"]
        assert all(value >= 0 for value in backwards["seconds"].values())


def test_what_killed_writers_left_is_removed_and_a_living_one_is_not(tmp_path):
    (tmp_path / ".result.json.0123456789ab.tmp").write_text("half of")
    (tmp_path / ".result.json.0123456789ab.tmp.lock").touch()
    (tmp_path / ".result.json.ba9876543210.tmp.lock").touch()  # killed before its first byte
    with atomic_write(tmp_path / "result.json") as living:
        living.write_text("{}")
        write_json(tmp_path / "result.json", {"other": 1})
        assert living.exists()
        lock = living.with_name(f"{living.name}.lock")
        assert sorted(tmp_path.glob(".*")) == [living, lock]
    assert (tmp_path / "result.json").read_text() == "{}" and len(list(tmp_path.iterdir())) == 1
