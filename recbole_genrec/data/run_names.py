"""The name of a run, made of its settings and of the content of what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.data.read_files import files_read, further_paths, path_digest, written_after
from recbole_genrec.runtime import processes
from recbole_genrec.settings.classification import named_values
from recbole_genrec.storage.digests import digest

ENDINGS = (".pth", ".resume.pth")


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
    for switches in (True, False):
        earlier = name_of(config, switches, counts_further=False)
        files = _files_of(config, earlier)
        if files and not any(written_after(further, file) for file in files):
            return earlier
    return name


def name_of(config: Any, switches: bool = True, counts_further: bool = True) -> str:
    """The name of a run, of this version or of an earlier one.

    Args:
        config: a ``GenRecConfig``.
        switches: False: the keys of switches that are off count, as they once did.
        counts_further: False: what :func:`~.read_files.further_paths` lists does not count, as it
            once did not.
    """
    values = named_values(config.declarations, config.plain(), switches)
    if config.settings.local_steps:  # else the numbers do not depend on how many there are
        values["processes"] = processes.planned_size(config.settings)
    paths = [file for file in files_read(config, values) if file.is_file()]
    if counts_further:
        paths += further_paths(config, values)
    digests = [path_digest(path) for path in paths]
    return f"{config.model}-{config.dataset}-{digest(values, digests, size=8)}"


def _files_of(config: Any, name: str) -> list[Path]:
    """The checkpoint and the resume file under a name, where they are."""
    folder = Path(config.settings.checkpoint_dir)
    files = [folder / f"{name}{ending}" for ending in ENDINGS]
    return [file for file in files if file.is_file()]
