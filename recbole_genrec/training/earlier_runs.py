"""Which earlier run ``resume`` can mean when the settings have changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.data.read_files import digests_read, further_paths, written_after
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.settings.classification import named_values
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.checkpoints import load_checkpoint

RESUME = ".resume.pth"

FEW = 3
"""Settings in which a run may differ that was perhaps meant (our choice)."""


def finished_result(config: Any) -> dict[str, Any] | None:
    """The result of a run of the same settings that has ended; ``None`` without one.

    Where it lies beside the checkpoint and ``result_file`` names another place, it is also put
    there.

    Args:
        config: a ``GenRecConfig``.

    Raises:
        ArtefactError: its result is damaged.
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
        if Path(str(result.get("checkpoint"))).stem == name:
            if file != asked:
                write_json(asked, result)
            return result
    raise ConfigError(
        f"There is nothing to resume: {checkpoint} is a finished run of these settings, and its "
        f"result is neither in {beside} nor in the present --result_file. Test it again by "
        f"evaluate --checkpoint={checkpoint}, or leave out --resume to train from the beginning."
    )


def resume_file_with_fewer_epochs(config: Any, name: str) -> Path | None:
    """The resume file of an interrupted run that differs in the number of epochs alone.

    Args:
        config: a ``GenRecConfig``.
        name: of the run.

    Raises:
        ConfigError: such a run has ended, so that its state is gone; or an interrupted run of these
            settings read other files.
    """
    folder = Path(config.settings.checkpoint_dir)
    pattern = f"{config.settings.model}-{config.settings.dataset}-*.pth"
    for file in sorted(folder.glob(pattern)):
        if file.name.startswith(f"{name}."):
            continue
        try:
            stored = load_checkpoint(file, with_weights=False)
        except ArtefactError:
            continue
        keys = differing_keys(config, stored)
        is_interrupted = _is_interrupted(file)
        if is_interrupted and keys in ([], ["epochs"]):
            _check_files(config, stored, file)
        if keys != ["epochs"]:
            continue
        if not is_interrupted:
            if file.with_name(file.stem + RESUME).is_file():
                continue  # it was interrupted
            raise ConfigError(
                f"There is nothing to resume under these settings. {file} is a finished run that "
                f"differs in epochs: it had {stored['config']['epochs']}, and now epochs is "
                f"{config.settings.epochs}. The state of its training is gone. Leave out "
                f"--resume to train from the beginning, or use --init_from={file} instead of it "
                "to go on from its weights."
            )
        if int(stored["epoch"]) < config.settings.epochs:
            return file
    return None


def nothing_to_resume(config: Any, file: Path) -> str:
    """What a run says that was asked to resume and begins, with the run that may have been meant.

    A finished run with another seed is no such run.

    Args:
        config: a ``GenRecConfig``.
        file: the resume file that is not there.
    """
    text = f"Nothing to resume: there is no {file}. Starting from the beginning."
    nearest: tuple[list[str], Path, dict[str, Any]] | None = None
    pattern = f"{config.settings.model}-{config.settings.dataset}-*.pth"
    interrupted_first = sorted(
        file.parent.glob(pattern), key=lambda path: (not _is_interrupted(path), path)
    )
    for other in interrupted_first:
        try:
            stored = load_checkpoint(other, with_weights=False)
        except ArtefactError:
            continue
        keys = differing_keys(config, stored)
        if "seed" in keys and not _is_interrupted(other):
            continue
        if keys and (nearest is None or len(keys) < len(nearest[0])):
            nearest = keys, other, stored
    if nearest is None or len(nearest[0]) > FEW:
        return text
    keys, other, stored = nearest
    there = ", ".join(f"{key} ({(stored.get('config') or {}).get(key)} there)" for key in keys)
    kind = "interrupted" if _is_interrupted(other) else "finished"
    return f"{text} The {kind} run {other} differs in {there}."


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
    if before is None:  # a run of an earlier version
        return
    now = files_of_run(config)
    changed = sorted(path for path in {*before, *now} if before.get(path) != now.get(path))
    # Earlier versions stored no digests of some files: there the time of writing has to do.
    further = further_paths(config, named_values(config.declarations, config.plain()))
    unknown = [path for path in further if str(path) not in before]
    older = {str(path) for path in unknown} - {str(path) for path in written_after(unknown, file)}
    changed = [path for path in changed if path not in older]
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
