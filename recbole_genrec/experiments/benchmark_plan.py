"""The runs of a benchmark, and where their files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError
from recbole_genrec.report.ranks import ranks_folder
from recbole_genrec.storage.artefacts import META, read_json
from recbole_genrec.training.earlier_runs import is_result_of


@dataclass(frozen=True)
class PlannedRun:
    """One (run, dataset, seed).

    Attributes:
        name: name of the run.
        model: name of the model.
        tokenizer: name of the item tokenizer, None for models without.
        dataset: name of the dataset.
        seed: random seed.
        argv: arguments of its command.
        run_name: the name that its settings and data give the checkpoint.
        config: all its settings.
    """

    name: str
    model: str
    tokenizer: str | None
    dataset: str
    seed: int
    argv: tuple[str, ...]
    run_name: str
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def id(self) -> str:
        """Stem of the files of this run."""
        return file_stem(self.name, self.dataset, self.seed)


@dataclass(frozen=True)
class Benchmark:
    """The runs of a benchmark.

    Attributes:
        output: folder for results, logs, checkpoints and the leaderboard.
        baseline: name of the run that the others are tested against.
        processes: runs at once.
        threads: threads of each run.
        runs: all of (run, dataset, seed).
        only: names of the runs to carry out.
    """

    output: Path
    baseline: str | None
    processes: int
    threads: int
    runs: tuple[PlannedRun, ...]
    only: tuple[str, ...]

    def result(self, run: PlannedRun) -> Path:
        """The result file of a run."""
        return result_file(self.output, run.id)

    def log(self, run: PlannedRun) -> Path:
        """Everything that a run printed."""
        return self.output / "logs" / f"{run.id}.log"

    def resume_file(self, run: PlannedRun) -> Path:
        """Where an interrupted run goes on from."""
        return checkpoint_folder(self.output, run.name) / f"{run.run_name}.resume.pth"

    def is_done(self, run: PlannedRun) -> bool:
        """Whether the result of the same settings and data, and the ranks it names, are there."""
        file = self.result(run)
        if not file.is_file():
            return False
        try:
            result = read_json(file, {"checkpoint": str})
        except ArtefactError:
            return False
        if not is_result_of(result, run.run_name):
            return False
        return not result.get("ranks") or (ranks_folder(file) / META).is_file()


def file_stem(name: str, dataset: str, seed: int) -> str:
    """Stem of the files of a run."""
    return f"{name}-{dataset}-{seed}"


def result_file(output: Path, stem: str) -> Path:
    """The result file of a run."""
    return output / "results" / f"{stem}.json"


def checkpoint_folder(output: Path, name: str) -> Path:
    """Folder of a run's checkpoints.

    Each run has its own, because two runs may have the same settings, which name the files.
    """
    return output / "checkpoints" / name
