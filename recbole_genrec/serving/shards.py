"""Blocks of users that several commands or processes share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from recbole_genrec.errors import ConfigError


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

    def start(self, n_users: int) -> int:
        """Number of the first user of the block."""
        return (self.number - 1) * n_users // self.count

    def block(self, users: list[str]) -> list[str]:
        """The users of the block."""
        return users[self.start(len(users)) : self.number * len(users) // self.count]

    @property
    def ending(self) -> str:
        """What tells the files of this shard from those of the others."""
        if self.count == 1:
            return ""
        return f".shard-{self.number}-of-{self.count}"

    def file(self, output: Path) -> Path:
        """The file of the shard, ``recs.shard-3-of-16.parquet`` for ``recs.parquet``."""
        return output.with_name(f"{output.stem}{self.ending}{output.suffix}")
