"""Blocks of users that several commands or processes share, and the files of their lists."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_genrec.errors import ConfigError
from recbole_genrec.serving.list_files import join_parts, join_shards
from recbole_genrec.storage.artefacts import read_json, write_json


@dataclass(frozen=True)
class Shard:
    """One of several blocks of the users.

    Attributes:
        number: from 1.
        count: how many blocks there are.
    """

    number: int
    count: int

    @classmethod
    def read(cls, text: str | None) -> Shard:
        """The shard that ``3/16`` means; ``None`` means all users.

        Raises:
            ConfigError: it is written in another way.
        """
        if text is None:
            return cls(1, 1)
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(
                f"--shard={text} must be written like 3/16, the third of sixteen blocks of the "
                "users; the first is 1/16."
            )
        return cls(int(match[1]), int(match[2]))

    def block(self, users: list[str]) -> list[str]:
        """The users of the block."""
        start = (self.number - 1) * len(users) // self.count
        end = self.number * len(users) // self.count
        return users[start:end]

    @property
    def ending(self) -> str:
        """What tells the files of this shard from those of the others."""
        if self.count == 1:
            return ""
        return f".shard-{self.number}-of-{self.count}"

    def file(self, output: Path) -> Path:
        """The file of the shard, ``recs.shard-3-of-16.parquet`` for ``recs.parquet``."""
        return output.with_name(f"{output.stem}{self.ending}{output.suffix}")


def write_shard(parts: Sequence[Path], shard: Shard, output: Path, key: str) -> None:
    """Write the file of a shard, and beside it a small one that says whose lists it holds.

    Args:
        parts: files of its lists.
        shard: which.
        output: the file that all shards become.
        key: of the job.
    """
    file = shard.file(output)
    # A kill must not leave the mark of other lists beside these.
    _mark_of(file).unlink(missing_ok=True)
    join_parts(parts, file)
    write_json(_mark_of(file), {"key": key})


def join_finished(shard: Shard, output: Path, key: str, log: logging.Logger) -> Path | None:
    """Write the whole file when the shards of the same lists are all there.

    Args:
        shard: one of them.
        output: the whole file.
        key: of the job.
        log: names the shards that hold other lists.

    Returns:
        The whole file, or ``None``.
    """
    numbers = range(1, shard.count + 1)
    files = [Shard(number, shard.count).file(output) for number in numbers]
    present = [file for file in files if file.is_file()]
    others = [file for file in present if not _belongs(file, key)]
    for other in others:
        log.warning(
            f"{other} holds other lists than {shard.file(output)}: of another checkpoint, other "
            "data or other options. Give the same command for this shard too."
        )
    if others or len(present) < shard.count:
        return None
    join_shards(files, output)
    for file in files:
        _mark_of(file).unlink(missing_ok=True)
        file.unlink(missing_ok=True)
    return output


def _mark_of(file: Path) -> Path:
    """The small file that says which lists a shard belongs to."""
    return file.with_name(f"{file.name}.json")


def _belongs(file: Path, key: str) -> bool:
    mark = _mark_of(file)
    if not mark.is_file():
        return False
    advice = f"Delete it, and make the lists of {file} again."
    return read_json(mark, {"key": str}, advice)["key"] == key
