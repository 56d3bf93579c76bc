"""Which earlier run ``resume`` can mean when the settings have changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.settings.classification import named_values
from recbole_genrec.storage.artefacts import read_json
from recbole_genrec.storage.checkpoints import load_checkpoint

RESUME = ".resume.pth"


def finished_result(config: Any) -> dict[str, Any] | None:
    """The result of a run of the same settings that has ended; ``None`` without one.

    Args:
        config: a ``GenRecConfig``.
    """
    name = config.run_name()
    folder = Path(config.settings.checkpoint_dir)
    if not (folder / f"{name}.pth").is_file() or (folder / f"{name}{RESUME}").is_file():
        return None
    file = Path(config.settings.result_file or folder / f"{name}.json")
    if not file.is_file():
        return None
    result = read_json(file)
    if Path(str(result.get("checkpoint"))).stem != name:
        return None
    return result


def resume_file_with_fewer_epochs(config: Any, name: str) -> Path | None:
    """The resume file of an interrupted run that differs in the number of epochs alone.

    Args:
        config: a ``GenRecConfig``.
        name: of the run.

    Raises:
        ConfigError: such a run has ended, so that its state is gone.
    """
    folder = Path(config.settings.checkpoint_dir)
    pattern = f"{config.settings.model}-{config.settings.dataset}-*.pth"
    for file in sorted(folder.glob(pattern)):
        if file.name.startswith(f"{name}."):
            continue
        try:
            stored = load_checkpoint(file)
        except ArtefactError:
            continue
        if differing_keys(config, stored) != ["epochs"]:
            continue
        if not file.name.endswith(RESUME):
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
