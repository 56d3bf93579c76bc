"""The folder beside an output where the parts of a job lie until all of them are done."""

from __future__ import annotations

import contextlib
import glob
import shutil
from pathlib import Path

from recbole_genrec.storage.atomic import held_alone

PARTS = ".parts"


class PartFolder:
    """Where one job keeps its parts.

    The key of the job is in the name of the folder, so no job takes over the parts of another one,
    and an interrupted job finds its own again.

    Args:
        output: the file that the parts become.
        ending: of the shard, see :attr:`~recbole_genrec.serving.shards.Shard.ending`.
        key: of the job.

    Attributes:
        path: the folder.
    """

    def __init__(self, output: Path, ending: str, key: str) -> None:
        self.output = output
        self.ending = ending
        self.path = output.with_name(f"{output.name}{ending}.{key}{PARTS}")

    def part(self, process: int, start: int) -> Path:
        """The file of a part.

        Args:
            process: number of the process that makes it.
            start: number of its first user among the users of that process.
        """
        return self.path / f"{process:04d}-{start:012d}.parquet"

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes out of the folder for the time of a block.

        Raises:
            ArtefactError: on entry, another process holds it.
        """
        return held_alone(
            self.path,
            f"Another process makes the same lists for {self.output}. Wait for it, or name another "
            "--output.",
        )

    def remove(self) -> None:
        """Remove the parts, which the output holds now."""
        shutil.rmtree(self.path, ignore_errors=True)

    def others(self) -> list[Path]:
        """Folders of parts of other jobs for the same output, interrupted or at work.

        Those of earlier versions have no key in their names.
        """
        parent = self.output.parent
        name = glob.escape(self.output.name + self.ending)
        found = [*parent.glob(f"{name}{PARTS}"), *parent.glob(f"{name}.*{PARTS}")]
        return sorted(folder for folder in found if folder != self.path)
