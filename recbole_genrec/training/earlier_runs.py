"""Which earlier run ``resume`` can mean when the settings have changed since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbole_genrec.data.read_files import digests_read
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.report.ranks import ranks_folder
from recbole_genrec.report.runs import Run, saved_ranks
from recbole_genrec.runtime import processes
from recbole_genrec.settings.classification import named_values
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.checkpoints import load_checkpoint

RESUME = ".resume.pth"

StoredRun = tuple[Path, dict[str, Any]]
"""A checkpoint or resume file, and its content."""

FEW = 3
"""Settings in which a run may differ that was perhaps meant (our choice)."""


def finished_result(config: Any, can_resume: bool = True) -> dict[str, Any] | None:
    """The result of a run of the same settings that has ended; ``None`` without one.

    Where it lies beside the checkpoint and ``result_file`` names another place, it is also put
    there, with its ranks.

    Args:
        config: a ``GenRecConfig``.
        can_resume: whether its training leaves a resume file; else a checkpoint without a result
            may be that of an interrupted run, which begins anew.

    Raises:
        ArtefactError: its result or its ranks are damaged.
        ConfigError: the run has ended, and its result is not to be found.
    """
    name = config.run_name()
    folder = Path(config.settings.checkpoint_dir)
    checkpoint = folder / f"{name}.pth"
    if not checkpoint.is_file() or (folder / f"{name}{RESUME}").is_file():
        return None
    beside = folder / f"{name}.json"
    asked = Path(config.settings.result_file or beside)
    for file in (asked, beside):
        advice = f"Write it again: evaluate --checkpoint={checkpoint} --result_file={file}"
        result = read_json(file, advice=advice) if file.is_file() else {}
        if is_result_of(result, name):
            if file != asked:
                result = _copied(config, result, file, asked)
            return result
    if not can_resume:
        return None
    raise ConfigError(
        f"There is nothing to resume: {checkpoint} is a finished run of these settings, and its "
        f"result is neither in {beside} nor in the present --result_file. Test it again by "
        f"evaluate --checkpoint={checkpoint}, or leave out --resume to train from the beginning."
    )


def is_result_of(result: dict[str, Any], name: str) -> bool:
    """Whether a result is that of a run, not of a test of its checkpoint with other settings.

    Args:
        result: the content of a result file.
        name: of the run.
    """
    return Path(str(result.get("checkpoint"))).stem == name and not result.get("changes")


def _copied(config: Any, result: dict[str, Any], file: Path, asked: Path) -> dict[str, Any]:
    """Put a result, and the ranks that it names, in another place too.

    Args:
        config: the ``GenRecConfig`` of its run.
        result: the content of ``file``.
        file: where it lies.
        asked: where it is also wanted.

    Returns:
        The result that is written there, which names its ranks.
    """
    settings = config.settings
    run = Run("", settings.dataset, settings.seed, settings.model, file=file, result=result)
    ranks = saved_ranks(run)
    result = {**result, "ranks": None if ranks is None else ranks_folder(asked).name}
    if processes.rank() == 0:
        if ranks is not None:
            ranks.save(ranks_folder(asked))
        write_json(asked, result)
    return result


def resume_file_with_fewer_epochs(config: Any, name: str) -> Path | None:
    """The resume file of an interrupted run that differs in the number of epochs or its name alone.

    Of several, that of the run which came farthest.

    Args:
        config: a ``GenRecConfig``.
        name: of the run.

    Raises:
        ConfigError: there is none, but such a run has ended, so that its state is gone; or an
            interrupted run of these settings read other files.
    """
    interrupted, finished = _runs_like(config, name)
    ahead = [
        (file, stored)
        for file, stored in interrupted
        if differing_keys(config, stored) and int(stored["epoch"]) < config.settings.epochs
    ]
    if ahead:
        file, stored = max(ahead, key=lambda run: (int(run[1]["epoch"]), int(run[1]["batch"])))
        _check_files(config, stored, file)
        return file
    for file, stored in interrupted:
        _check_files(config, stored, file)
        if not differing_keys(config, stored):  # this run, under the name of an earlier version
            return file
    if finished:
        file, stored = max(finished, key=lambda run: int(run[1]["config"]["epochs"]))
        raise ConfigError(
            f"There is nothing to resume under these settings. {file} is a finished run that "
            f"differs in epochs: it had {stored['config']['epochs']}, and now epochs is "
            f"{config.settings.epochs}. The state of its training is gone. Leave out "
            f"--resume to train from the beginning, or use --init_from={file} instead of it "
            "to go on from its weights."
        )
    return None


def _runs_like(config: Any, name: str) -> tuple[list[StoredRun], list[StoredRun]]:
    """Interrupted runs that differ from this one in epochs or files, and finished ones in epochs.

    Args:
        config: a ``GenRecConfig``.
        name: of this run, which is none of them.
    """
    interrupted: list[StoredRun] = []
    finished: list[StoredRun] = []
    for file, stored, keys in _runs_in(Path(config.settings.checkpoint_dir), config):
        if file.name.startswith(f"{name}."):
            continue
        if _is_interrupted(file):
            if keys in ([], ["epochs"]):
                interrupted.append((file, stored))
        elif keys == ["epochs"] and not file.with_name(file.stem + RESUME).is_file():
            finished.append((file, stored))
    return interrupted, finished


def nothing_to_resume(config: Any, file: Path) -> str:
    """What a run says that was asked to resume and begins, with the run that may have been meant.

    A finished run with another seed is no such run.

    Args:
        config: a ``GenRecConfig``.
        file: the resume file that is not there.
    """
    text = f"Nothing to resume: there is no {file}. Starting from the beginning."
    others = (
        (other, stored, keys)
        for other, stored, keys in _runs_in(file.parent, config)
        if keys and ("seed" not in keys or _is_interrupted(other))
    )
    nearest = min(
        others,
        key=lambda run: (len(run[2]), not _is_interrupted(run[0]), run[0]),
        default=None,
    )
    if nearest is None or len(nearest[2]) > FEW:
        return text
    other, stored, keys = nearest
    there = ", ".join(f"{key} ({(stored.get('config') or {}).get(key)} there)" for key in keys)
    kind = "interrupted" if _is_interrupted(other) else "finished"
    return f"{text} The {kind} run {other} differs in {there}."


def _runs_in(folder: Path, config: Any) -> Iterator[tuple[Path, dict[str, Any], list[str]]]:
    """Runs of a model on a dataset, by path; damaged files are left out.

    Args:
        folder: where checkpoints and resume files lie.
        config: a ``GenRecConfig`` of that model and dataset.

    Yields:
        A checkpoint or resume file, its content, and the settings in which it differs.
    """
    pattern = f"{config.settings.model}-{config.settings.dataset}-*.pth"
    for file in sorted(folder.glob(pattern)):
        try:
            stored = load_checkpoint(file, with_weights=False)
        except ArtefactError:
            continue
        yield file, stored, differing_keys(config, stored)


def _is_interrupted(checkpoint: Path) -> bool:
    """Whether a file is the state of a training that has not ended."""
    return checkpoint.name.endswith(RESUME)


def files_of_run(config: Any) -> dict[str, str]:
    """Digests by path of the files and folders that a run reads.

    Args:
        config: a ``GenRecConfig``.
    """
    return digests_read(config, named_values(config.declarations, config.plain()))


def _check_files(config: Any, stored: dict[str, Any], file: Path) -> None:
    """Refuse to go on with a run that was interrupted over other files.

    Raises:
        ConfigError: names them.
    """
    before = stored.get("files")
    if before is None:  # runs of 0.1.0 do not say it
        return
    now = files_of_run(config)
    changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    if changed:
        raise ConfigError(
            f"There is nothing to resume on these files: {file} is an interrupted run of these "
            f"settings, and since it began {', '.join(changed)} changed. Put the files back to go "
            f"on with it, or leave out --resume to train from the beginning."
        )


def differing_keys(config: Any, stored: dict[str, Any]) -> list[str]:
    """Names of the settings in which a run differs from that of a checkpoint.

    Args:
        config: a ``GenRecConfig``.
        stored: the content of the checkpoint.
    """
    here = named_values(config.declarations, config.plain())
    there = named_values(config.declarations, stored.get("config") or {})
    names = sorted({*here, *there})
    return [name for name in names if here.get(name) != there.get(name)]
