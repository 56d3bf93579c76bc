"""The file of an ensemble: checkpoints, their weights and changed settings, as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.storage.artefacts import read_json

FORMAT = "recbole_genrec ensemble"
ADVICE = "Make it again with recbole-genrec ensemble."
RESULT_ENDING = ".result.json"
"""Of the result that is written beside a new ensemble."""


@dataclass(frozen=True)
class EnsembleFile:
    """Members, weights and changed settings.

    Attributes:
        checkpoints: paths of the members' checkpoints.
        weights: one for each member, positive.
        changes: settings that replace those of all members, by key or ``Model.key``.
        chosen: whether the weights were chosen on validation; ``None`` in files of earlier
            versions, which do not say it.
    """

    checkpoints: tuple[str, ...]
    weights: tuple[float, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    chosen: bool | None = None

    def changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The settings to replace when members are loaded.

        Args:
            changes: what is asked for now. It wins, a plain key also over ``Model.key``.
        """
        kept = {
            name: value
            for name, value in self.changes.items()
            if name.rpartition(".")[2] not in changes
        }
        return {**kept, **changes}

    def content(self, folder: str | os.PathLike) -> dict[str, Any]:
        """What :meth:`read` reads; paths are relative to the folder of the file.

        Args:
            folder: where the file will lie.
        """
        members = [
            {"checkpoint": _relative(checkpoint, folder), "weight": weight}
            for checkpoint, weight in zip(self.checkpoints, self.weights, strict=True)
        ]
        return {
            "format": FORMAT,
            "members": members,
            "changes": self.changes,
            "chosen": self.chosen,
        }

    @classmethod
    def read(cls, path: str | os.PathLike) -> EnsembleFile:
        """The members that a file names.

        Raises:
            ArtefactError: the file is damaged or no ensemble, names fewer than two members, or a
                checkpoint is missing.
        """
        content = read_json(path, advice=ADVICE)
        if not _is_of_ensemble(content):
            raise ArtefactError(_no_ensemble(path, content))
        try:
            members = content["members"]
            names = [str(member["checkpoint"]) for member in members]
            weights = tuple(float(member["weight"]) for member in members)
            changes = dict(content.get("changes", {}))  # older files have none
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{path} is no ensemble: it needs members with a checkpoint and a weight each. "
                "recbole-genrec ensemble writes such a file."
            ) from error
        if len(names) < 2:
            raise ArtefactError(
                f"{path} names {len(names)} members; an ensemble needs two checkpoints or more. "
                f"{ADVICE}"
            )
        folder = Path(path).parent
        checkpoints = tuple(str(folder / name) for name in names)
        for checkpoint in checkpoints:
            if not Path(checkpoint).exists():
                raise ArtefactError(
                    f"{path} names {checkpoint}, which is not there. Move the checkpoints along "
                    "with the file, or make the ensemble again."
                )
        weights = checked_weights(weights, len(checkpoints))
        return cls(checkpoints, weights, changes, content.get("chosen"))


def _relative(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """A path from a folder on, also where one of the two is reached through a link.

    Args:
        path: of a file or a folder, which itself may be a link.
        folder: where the path starts.
    """
    path = Path(path)
    return os.path.relpath(path.parent.resolve() / path.name, Path(folder).resolve())


def is_ensemble(path: str | os.PathLike) -> bool:
    """Whether a path given as a checkpoint is a JSON file, which only an ensemble can be."""
    return str(path).endswith(".json") and Path(path).is_file()


def names_members(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file is that of an ensemble, and not the result of a run or an ensemble.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    return _is_of_ensemble(read_json(path, advice="Make it again with the command that wrote it."))


def _is_of_ensemble(content: Mapping[str, Any]) -> bool:
    return content.get("format") == FORMAT


def _no_ensemble(path: str | os.PathLike, content: Mapping[str, Any]) -> str:
    """What to name in place of a JSON file that is no ensemble.

    Args:
        path: the file.
        content: what it holds.
    """
    if "test_result" not in content:
        return (
            f"{path} is no ensemble and no checkpoint. recbole-genrec ensemble writes the file of "
            "an ensemble; a checkpoint is the .pth file of a run."
        )
    tested = content.get("checkpoint")
    if tested is None and str(path).endswith(RESULT_ENDING):
        tested = str(path).removesuffix(RESULT_ENDING) + ".json"
    advice = "Name the checkpoint or the ensemble that was tested."
    if tested is not None:
        advice = f"Name what was tested: {tested}."
    return f"{path} is the result of a test and holds no model. {advice}"


def checked_weights(weights: Sequence[float], n_members: int) -> tuple[float, ...]:
    """Weights of the members.

    Args:
        weights: as given.
        n_members: number of members.

    Raises:
        ConfigError: another number of weights, or one that is not above 0.
    """
    if len(weights) != n_members:
        raise ConfigError(f"There are {n_members} checkpoints and {len(weights)} weights.")
    wrong = [weight for weight in weights if not 0 < weight < float("inf")]
    if wrong:
        raise ConfigError(f"The weight {wrong[0]} must be a number above 0. Leave the member out.")
    return tuple(float(weight) for weight in weights)
