"""Results that may be passed on: without ids of users and items, and without paths of a machine.

A folder of them is small enough for a repository. It is read like the output of a benchmark, and
further seeds and rows join it, wherever they were run.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ConfigError
from recbole_genrec.report.comparable import check_comparable
from recbole_genrec.report.ranks import UserRanks, ranks_folder
from recbole_genrec.report.runs import STATE, Run, check_unique, collect, saved_ranks, state_row
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import held_alone
from recbole_genrec.storage.digests import digest

NOT_SHARED = ("checkpoint", "test_by_user")
"""Entries of a result that name files or users of this machine."""


def share_results(
    paths: Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    name: str | None = None,
) -> list[Path]:
    """Add finished runs, and the ranks that they kept, to a folder that may be passed on.

    A run of the same name, dataset and seed in the folder is replaced. Settings are compared as the
    folder holds them: of an absolute path its last part alone.

    Args:
        paths: as in :func:`~recbole_genrec.report.runs.collect`.
        folder: the folder; it is made where it is missing.
        name: of the row that the runs are seeds of; default the names that a leaderboard of the
            runs alone gives them.

    Returns:
        The result files in the folder that were written.

    Raises:
        ArtefactError: a path is missing, or holds no result.
        ConfigError: no run has finished, two are the same seed of ``name``, two would be written to
            one file, or the runs cannot stand in one table with those of the folder.
        HeldError: another process adds results to the folder.
    """
    folder = Path(folder)
    runs, about = collect(paths)
    finished = [run for run in runs if run.result is not None]
    if not finished:
        raise ConfigError("No run has finished, so there is nothing to share.")
    if name is not None:
        finished = [replace(run, name=name) for run in finished]
    shared = [_without_places(run) for run in finished]
    check_unique(shared)
    # their paths tell files of one name apart
    rows = zip(finished, shared, strict=True)
    check_comparable([replace(run, name=other.name) for run, other in rows])

    refusal = f"Another process adds results to {folder}. Give the command again when it has ended."
    with held_alone(folder / STATE, refusal):
        present: list[Run] = []
        if (folder / STATE).is_file():
            present, before = collect([folder])
            about = {**before, **about}
        added = {run.key for run in shared}
        kept = [run for run in present if run.key not in added]
        check_comparable([*kept, *shared])
        _check_files([*kept, *shared], folder)
        all_ranks = [saved_ranks(run) for run in finished]
        files = [_write(run, ranks, folder) for run, ranks in zip(shared, all_ranks, strict=True)]
        _write_state([*kept, *shared], about, folder)
    return files


def _without_places(run: Run) -> Run:
    """A finished run as it is passed on: without paths of a machine and ids of users."""
    assert run.result is not None
    passed_on = {key: value for key, value in run.result.items() if key not in NOT_SHARED}
    result = without_paths(passed_on)
    if run.result.get("command"):
        words = shlex.split(str(run.result["command"]))
        result["command"] = shlex.join(without_paths(words))
    name = _without_paths_of(run.result["config"], run.name)
    return replace(run, name=name, tokenizer=without_paths(run.tokenizer), result=result)


def _without_paths_of(settings: dict[str, Any], name: str) -> str:
    """The name of a row, with the last part alone of every path of its settings."""
    for text in sorted(set(_texts(settings)), key=len, reverse=True):
        if without_paths(text) != text:
            name = name.replace(text, without_paths(text))
    return name


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value that JSON can hold."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


def _write(run: Run, ranks: UserRanks | None, folder: Path) -> Path:
    """Write the result of a run, and its ranks.

    Args:
        run: what :func:`_without_places` gave.
        ranks: those that the run kept.
        folder: the shared folder.
    """
    assert run.result is not None
    file = _file(run, folder)
    place = None
    if ranks is not None:
        place = ranks_folder(file)
        ranks.without_names().save(place)
    write_json(file, {**run.result, "ranks": place and place.name})
    return file


def _file(run: Run, folder: Path) -> Path:
    """Where the result of a run lies; names that are no file names get a digest."""
    name = re.sub(r"[^\w.+-]+", "_", run.name)
    if name != run.name:
        name += f"-{digest(run.name, size=6)}"
    return folder / "results" / f"{name}-{run.dataset}-{run.seed}.json"


def _check_files(runs: Sequence[Run], folder: Path) -> None:
    """Check that each run has a file of its own.

    Raises:
        ConfigError: names, datasets and seeds of two join to one file name.
    """
    first: dict[Path, Run] = {}
    for run in runs:
        file = _file(run, folder)
        other = first.setdefault(file, run)
        if other is not run:
            raise ConfigError(
                f"{other.name} on {other.dataset} and {run.name} on {run.dataset} would both be "
                f"written to {file}. Give one of them another name with --name."
            )


def _write_state(runs: Sequence[Run], about: dict[str, Any], folder: Path) -> None:
    """Write which runs the folder holds, in the form of a benchmark."""
    rows = []
    for run in sorted(runs, key=lambda run: run.key):
        rows.append(state_row(run, str(_file(run, folder).relative_to(folder))))
    state = {"baseline": about.get("baseline"), "threads": about.get("threads"), "runs": rows}
    write_json(folder / STATE, state)


def without_paths(value: Any) -> Any:
    """Settings or words of a command, with the last part alone of every absolute path.

    Several paths may stand in one word, with commas.

    Args:
        value: values that JSON can hold.
    """
    if isinstance(value, dict):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    key, equals, words = value.partition("=")
    if not equals:
        key, words = "", value
    parts = [_last_part(word) for word in words.split(",")]
    return key + equals + ",".join(parts)


def _last_part(text: str) -> str:
    """The last part of an absolute path; other texts, such as a separator ``/``, as they are."""
    path = Path(text)
    if path.is_absolute() and re.search(r"\w", path.name):
        return path.name
    return text
