"""The name of a run, made of its settings and of the content of what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_genrec.data.read_files import files_read, further_paths, path_digest, written_after
from recbole_genrec.runtime import processes
from recbole_genrec.settings.classification import named_values
from recbole_genrec.settings.declaration import Key
from recbole_genrec.storage.digests import digest, folder_fingerprint

ENDINGS = (".pth", ".resume.pth")


@dataclass(frozen=True)
class Counted:
    """What a version of this package counts in a name; the defaults are those of this version.

    Attributes:
        fractions: whether ``0`` and ``0.0`` are one value of a key that takes fractions.
        inside: whether the content of a folder counts beyond the ends of its files.
        further: whether what :func:`~.read_files.further_paths` lists counts.
        switches: whether the keys of switches that are off are left out.
    """

    fractions: bool = True
    inside: bool = True
    further: bool = True
    switches: bool = True

    def left_out(self, further: list[Path]) -> list[Path]:
        """What the name does not count, or not in full.

        Args:
            further: what :func:`~.read_files.further_paths` lists.
        """
        if not self.further:
            return further
        return [] if self.inside else [path for path in further if path.is_dir()]


NOW = Counted()
BEFORE = {"fractions": False, "inside": False}
EARLIER = (
    Counted(**BEFORE),
    Counted(**BEFORE, further=False),
    Counted(**BEFORE, further=False, switches=False),
)
"""Earlier versions, the latest first."""


def run_name(config: Any) -> str:
    """``<Model>-<dataset>-<hash>``: the same settings and files give the same name.

    That is how ``--resume`` finds its run. A run whose files stand under the name that an earlier
    version gave goes on under that name, unless something was written since that the name does not
    count.

    Args:
        config: a ``GenRecConfig``.
    """
    name = name_of(config)
    if not config.settings.resume or _files_of(config, name):
        return name
    further = further_paths(config, named_values(config.declarations, config.plain()))
    for counted in EARLIER:
        earlier = name_of(config, counted)
        files = _files_of(config, earlier)
        if files and not any(written_after(counted.left_out(further), file) for file in files):
            return earlier
    return name


def name_of(config: Any, counted: Counted = NOW) -> str:
    """The name of a run, of this version or of an earlier one.

    Args:
        config: a ``GenRecConfig``.
        counted: what the version counts.
    """
    values = named_values(config.declarations, config.plain(), counted.switches)
    if counted.fractions:
        values = _with_fractions(config.declarations, values)
    if config.settings.local_steps:  # else the numbers do not depend on how many there are
        values["processes"] = processes.planned_size(config.settings)
    paths = [file for file in files_read(config, values) if file.is_file()]
    if counted.further:
        paths += further_paths(config, values)
    digests = [_digest_of(path, counted.inside) for path in paths]
    return f"{config.model}-{config.dataset}-{digest(values, digests, size=8)}"


def _with_fractions(keys: Mapping[str, Key], values: dict[str, Any]) -> dict[str, Any]:
    """Values in which whole numbers of keys that take fractions are written as fractions."""
    return {
        name: _as_fraction(value) if _takes_fractions(keys.get(name)) else value
        for name, value in values.items()
    }


def _takes_fractions(declared: Key | None) -> bool:
    """Whether the numbers of a key, or those of its list, are fractions."""
    if declared is None:
        return False
    types = {*declared.members, declared.item}
    return float in types and int not in types


def _as_fraction(value: Any) -> Any:
    """A number, or the numbers of a list, as fractions; other values as they are."""
    if isinstance(value, (list, tuple)):
        return [_as_fraction(entry) for entry in value]
    return float(value) if type(value) is int else value


def _digest_of(path: Path, inside: bool) -> str:
    """What names the content of a file or a folder."""
    if path.is_dir() and not inside:
        return folder_fingerprint(path, ends_only=True)
    return path_digest(path)


def _files_of(config: Any, name: str) -> list[Path]:
    """The checkpoint and the resume file under a name, where they are."""
    folder = Path(config.settings.checkpoint_dir)
    files = [folder / f"{name}{ending}" for ending in ENDINGS]
    return [file for file in files if file.is_file()]
