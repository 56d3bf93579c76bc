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


@dataclass(frozen=True)
class EnsembleFile:
    """Members, weights and changed settings.

    Attributes:
        checkpoints: paths of the members' checkpoints.
        weights: one for each member, positive.
        changes: settings that replace those of all members, by key or ``Model.key``.
    """

    checkpoints: tuple[str, ...]
    weights: tuple[float, ...]
    changes: dict[str, Any] = field(default_factory=dict)

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
            {"checkpoint": os.path.relpath(checkpoint, folder), "weight": weight}
            for checkpoint, weight in zip(self.checkpoints, self.weights, strict=True)
        ]
        return {"format": FORMAT, "members": members, "changes": self.changes}

    @classmethod
    def read(cls, path: str | os.PathLike) -> EnsembleFile:
        """The members that a file names.

        Raises:
            ArtefactError: the file is damaged, names fewer than two members, or a checkpoint is
                missing.
        """
        content = read_json(path, advice=ADVICE)
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
        return cls(checkpoints, checked_weights(weights, len(checkpoints)), changes)


def is_ensemble(path: str | os.PathLike) -> bool:
    """Whether a path given as a checkpoint is the file of an ensemble."""
    return str(path).endswith(".json") and Path(path).is_file()


def names_members(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file is that of an ensemble, and not the result of a run or an ensemble.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    content = read_json(path, advice="Make it again with the command that wrote it.")
    return "members" in content and "test_result" not in content


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
