"""The name of a run, made of its settings and of the content of what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_genrec.data.read_files import files_read, further_paths, path_digest
from recbole_genrec.runtime import processes
from recbole_genrec.settings.classification import named_values
from recbole_genrec.settings.declaration import Key
from recbole_genrec.storage.digests import digest


def run_name(config: Any) -> str:
    """``<Model>-<dataset>-<hash>``: the same settings and files give the same name.

    That is how ``--resume`` finds its run.

    Args:
        config: a ``GenRecConfig``.
    """
    values = named_values(config.declarations, config.plain())
    values = _with_fractions(config.declarations, values)
    if config.settings.local_steps:  # else the numbers do not depend on how many there are
        values["processes"] = processes.planned_size(config.settings)
    files = [file for file in files_read(config, values) if file.is_file()]
    digests = [path_digest(path) for path in [*files, *further_paths(config, values)]]
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
