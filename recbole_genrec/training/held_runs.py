"""One process at a time writes the files of a run or a test; two would mix what they write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from recbole_genrec.runtime import processes
from recbole_genrec.storage.atomic import held_alone


def held_run(config: Any, log: Callable[[str], None]) -> AbstractContextManager[None]:
    """Keep other processes from a run's checkpoint, resume file and result.

    Args:
        config: the run's ``GenRecConfig``.
        log: called with a sentence when locks are not available.

    Raises:
        HeldError: another process runs these settings, or writes the same result file.
    """
    run = Path(config.settings.checkpoint_dir, config.run_name())
    refusals = {
        run: (
            f"Another process runs these settings: it writes {run}.pth. Wait until it has ended or "
            "stop it; to run them once more beside it, name another --checkpoint_dir."
        )
    }
    result = Path(config.settings.result_file or f"{run}.json")
    if result.absolute() != Path(f"{run}.json").absolute():
        refusals[result] = _written_by_another(result, "result_file")
    return _held_by_first(refusals, log)


def held_resume_file(
    file: Path, name: str, log: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Keep an earlier run from going on while its files are read.

    Args:
        file: its resume file.
        name: of that run.
        log: called with a sentence when locks are not available.

    Raises:
        HeldError: another process goes on with it.
    """
    refusal = (
        f"--resume goes on from {file}, but another process runs it at present. Wait until it has "
        "ended or stop it, or leave out --resume."
    )
    return _held_by_first({file.with_name(name): refusal}, log)


def held_output(
    file: str | os.PathLike, key: str, log: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Keep other processes from the files that a command is going to write.

    Args:
        file: the first of them.
        key: the command's option that names it.
        log: called with a sentence when locks are not available.

    Raises:
        HeldError: another process is going to write it.
    """
    return _held_by_first({Path(file): _written_by_another(file, key)}, log)


def _written_by_another(file: str | os.PathLike, key: str) -> str:
    """What the second of two processes is told that have the same file to write."""
    return (
        f"Another process is going to write {file} too. Wait until it has ended or stop it, or "
        f"name another --{key}."
    )


@contextmanager
def _held_by_first(refusals: dict[Path, str], log: Callable[[str], None]) -> Iterator[None]:
    """Process 0 of a run holds the paths; the others go on when it does.

    Args:
        refusals: what another run is told, by path.
        log: called with a sentence when locks are not available.
    """
    is_first = processes.rank() == 0
    with ExitStack() as held:
        with processes.first_process_first("taking the files of the run"):
            if is_first:
                for path, refusal in refusals.items():
                    held.enter_context(held_alone(path, refusal, log))
        yield
