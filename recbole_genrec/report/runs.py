"""Finished runs as a leaderboard reads them: from benchmark folders and from result files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError, ConfigError, explained
from recbole_genrec.report.comparable import check_comparable
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.report.result_files import ranks_of
from recbole_genrec.report.result_names import distinct_names, tokenizer_of
from recbole_genrec.storage.artefacts import check_content, read_json

STATE = "runs.json"  # what a benchmark writes: its runs and how they stand
# Keys that tell the result of a run from other JSON files.
RESULT = {"model", "dataset", "seed", "config", "report", "test_result"}
OBJECTS = {"config": dict, "report": dict, "test_result": dict}
"""Keys of a result whose values are objects."""

RESULT_ADVICE = (
    "Run the model again, or evaluate its checkpoint with --result_file, which writes it anew."
)
STATE_ADVICE = (
    "Give the command of the benchmark again, which keeps its finished runs, or name the folder "
    "of its results."
)


@dataclass(frozen=True)
class Run:
    """One (name, dataset, seed) and how it ended.

    Attributes:
        name: name of the row in the leaderboard.
        dataset: name of the dataset.
        seed: random seed.
        model: name of the model.
        tokenizer: name of the item tokenizer, None for models without.
        status: ``done``, ``failed`` or ``pending``.
        error: why it failed.
        file: its result file.
        result: the content of the result file, where it is done.
    """

    name: str
    dataset: str
    seed: int
    model: str
    tokenizer: str | None = None
    status: str = "done"
    error: str | None = None
    file: Path | None = None
    result: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What must be unique."""
        return self.name, self.dataset, self.seed


def collect(
    paths: Iterable[str | os.PathLike[str]], compared: bool = True
) -> tuple[list[Run], dict[str, Any]]:
    """The runs of benchmark folders, of folders with result files, and of single result files.

    Without a benchmark folder a run is named after its model and tokenizer; where several settings
    share these, after the settings that differ.

    Args:
        paths: the folders and files.
        compared: whether the runs shall stand in one table.

    Returns:
        The runs, and ``{"baseline": name, "threads": n}`` as far as a benchmark folder says so.

    Raises:
        ArtefactError: a path is missing or damaged, or there is no result in it.
        ConfigError: a result is given twice, seeds of a run have other settings, or results of a
            dataset another protocol.
    """
    folders = [Path(path) for path in paths]
    runs: list[Run] = []
    about: dict[str, Any] = {}
    results: list[tuple[Path, dict[str, Any]]] = []
    for path in folders:
        if not (path / STATE).is_file():
            results += _results(path)
            continue
        state = read_json(path / STATE, {"runs": list}, STATE_ADVICE)
        runs += _benchmark_runs(path, state)
        for key in ("baseline", "threads"):
            if state.get(key) is not None:
                about[key] = state[key]
    runs += _named_runs(results)

    if not runs:
        raise ArtefactError(
            f"There is no result file in {', '.join(map(str, folders))}. "
            f"Name the output folder of a benchmark, or JSON files that runs wrote."
        )
    check_unique(runs)
    if compared:
        check_comparable(runs)
    return runs, about


def state_row(run: Run, result: str) -> dict[str, Any]:
    """The row of a run in ``runs.json``.

    Args:
        run: the run.
        result: its result file, relative to the folder of ``runs.json``.
    """
    return {
        "name": run.name,
        "model": run.model,
        "tokenizer": run.tokenizer,
        "dataset": run.dataset,
        "seed": run.seed,
        "status": run.status,
        "error": run.error,
        "result": result,
    }


def saved_ranks(run: Run) -> UserRanks | None:
    """The ranks that a run kept beside its result, or ``None``.

    Raises:
        ArtefactError: they are damaged, or those of another result.
    """
    if run.result is None or run.file is None:
        return None
    return ranks_of(run.result, run.file)


def _benchmark_runs(folder: Path, state: dict[str, Any]) -> list[Run]:
    """The runs of a benchmark, finished or not."""
    with explained(str(folder / STATE), STATE_ADVICE):
        return [_benchmark_run(folder, entry) for entry in state["runs"]]


def _benchmark_run(folder: Path, entry: dict[str, Any]) -> Run:
    """The run of an entry of ``runs.json``."""
    file = folder / entry["result"]
    result = None
    if entry["status"] == "done":
        result = read_json(file, OBJECTS, RESULT_ADVICE)
        _check_entry(entry, file, result, folder)
    return Run(
        entry["name"],
        entry["dataset"],
        entry["seed"],
        entry["model"],
        entry["tokenizer"],
        entry["status"],
        entry["error"],
        file,
        result,
    )


def _check_entry(entry: dict[str, Any], file: Path, result: dict[str, Any], folder: Path) -> None:
    """Check that a result is that of its entry in ``runs.json``.

    Results call a model by another name where ``generator`` chooses its class.

    Raises:
        ArtefactError: it is that of another dataset or seed.
    """
    listed = entry["dataset"], entry["seed"]
    found = result["dataset"], result["seed"]
    if found != listed:
        raise ArtefactError(
            f"{file} is a result on {found[0]} with seed {found[1]}, but {folder / STATE} lists it "
            f"as one on {listed[0]} with seed {listed[1]}. {STATE_ADVICE}"
        )


def _results(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The result files in a folder, or the one file, with their contents."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    contents = [(file, read_json(file, advice=RESULT_ADVICE)) for file in files]
    results = [(file, content) for file, content in contents if content.keys() >= RESULT]
    for file, content in results:
        check_content(file, content, OBJECTS, RESULT_ADVICE)
    return results


def _named_runs(results: Sequence[tuple[Path, dict[str, Any]]]) -> list[Run]:
    """Runs of result files, named after what tells them apart."""
    names = distinct_names([content for _, content in results])
    runs = []
    for name, (file, content) in zip(names, results, strict=True):
        runs.append(
            Run(
                name,
                content["dataset"],
                content["seed"],
                content["model"],
                tokenizer_of(content),
                file=file,
                result=content,
            )
        )
    return runs


def check_unique(runs: Sequence[Run]) -> None:
    """Check that no run is given twice.

    Raises:
        ConfigError: two have the same name, dataset and seed.
    """
    keys = [run.key for run in runs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ConfigError(
            f"Two results claim the same run, dataset and seed: {repeated[0]}. "
            f"Give each of them once."
        )
