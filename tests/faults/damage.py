"""A finished run whose files a test may damage, and the ways in which it damages them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from counts import REFUSED, tried
from toy import TINY_OF, write_dataset

from recbole_genrec.errors import ArtefactError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.single import SingleRun
from recbole_genrec.storage.artefacts import META

write = SingleRun.write


def write_and_keep_resume_file(self, result: dict) -> None:
    """The end of a run, after which the resume file is there again, as if the run had stopped."""
    content = self.trainer.resume_points.file.read_bytes()
    write(self, result)
    self.trainer.resume_points.file.write_bytes(content)


class Trained:
    """A finished run of one epoch, and settings for more of them in the same folder."""

    def __init__(self, home: Path, model: str = "STORE") -> None:
        self.home = home
        self.model = model
        self.data = write_dataset(home / "data")
        self.result = self.run()
        self.checkpoint = Path(self.result["checkpoint"])
        self.resume = self.checkpoint.with_suffix(".resume.pth")
        # the folder of the tokenizer; SETRec has none
        self.stores = [file.parent for file in (home / "cache").glob("*/made-for.json")]

    def artefacts(self) -> list[Path]:
        """Every artefact that the run left."""
        return sorted(file.parent for file in self.home.rglob(META))

    def run(self, data: Path | None = None, **changes) -> dict:
        settings = {
            **TINY_OF[self.model],
            "cache_dir": str(self.home / "cache"),
            "checkpoint_dir": str(self.home / "saved"),
            "data_path": str(data or self.data),
            "epochs": 1,
            "save_ranks": True,
        }
        if self.model == "STORE":
            settings["tokenizer_epochs"] = 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SingleRun, "write", write_and_keep_resume_file)
            return run_recbole_genrec(self.model, "toy", config_dict={**settings, **changes})

    def copy(self, folder: Path) -> Trained:
        """A copy that a test may damage."""
        other = object.__new__(Trained)
        other.home = folder
        other.model = self.model
        other.data = self.data
        other.result = self.result
        for name in ("cache", "saved"):
            shutil.copytree(self.home / name, folder / name)
        other.checkpoint = folder / "saved" / self.checkpoint.name
        other.resume = folder / "saved" / self.resume.name
        other.stores = [folder / "cache" / store.name for store in self.stores]
        return other


# --- bits and bytes -------------------------------------------------------------------------------


def flip(content: bytearray, draw: random.Random) -> None:
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8


def truncate(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def zero(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    length = min(512, len(content) - start)
    content[start : start + length] = bytes(length)


def shift(content: bytearray, draw: random.Random) -> None:
    content.insert(draw.randrange(len(content)), draw.randrange(256))


def mix(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    content[start : start + 64] = draw.randbytes(64)


def flip_near_an_end(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(min(600, len(content)))
    content[at if draw.random() < 0.5 else -1 - at] ^= 1 << draw.randrange(8)


DAMAGES = (flip, truncate, zero, shift, mix, flip_near_an_end)


def same(a: object, b: object) -> bool:
    """Whether two values read from files are equal, tensors included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def damaged(file: Path, load: Callable[[], object], cases: int) -> None:
    """Damage ``file`` in many ways; ``load`` must refuse it or give what it gives without
    damage, and leave it alone.
    """
    whole, expected = file.read_bytes(), load()
    assert same(expected, load())
    for case in range(cases):
        content = bytearray(whole)
        DAMAGES[case % len(DAMAGES)](content, random.Random(f"{file.name} {case}"))
        file.write_bytes(content)
        with tried(REFUSED):
            try:
                assert same(load(), expected), f"{file} case {case} was read with other content"
            except ArtefactError as error:
                assert len(str(error)) > 40
            assert file.read_bytes() == content
    file.write_bytes(whole)
