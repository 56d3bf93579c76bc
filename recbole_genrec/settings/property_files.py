"""The YAML files of ``properties/``."""

from __future__ import annotations

from pathlib import Path

from recbole_genrec.settings.parsing import read_yaml


def shipped(name: str) -> dict:
    """Keys of ``properties/<name>.yaml``; ``{}`` if there is no such file."""
    file = properties_folder() / f"{name}.yaml"
    return _read_like(file) if file.is_file() else {}


def own_settings(name: str, data_path: object) -> dict:
    """Keys of the YAML file in the folder of a dataset; ``{}`` if there is no such file.

    Args:
        name: of the dataset.
        data_path: folder of all datasets.
    """
    file = Path(str(data_path)).expanduser() / name / f"{name}.yaml"
    return read_yaml(file) if file.is_file() else {}


def _read_like(file: Path) -> dict:
    """Keys of a property file, over those of the file beside it that its ``like`` names."""
    content = read_yaml(file)
    like = content.pop("like", None)
    return content if like is None else {**_read_like(file.with_name(f"{like}.yaml")), **content}


def properties_folder() -> Path:
    """Where our YAML files are: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "properties"
    return inside if inside.is_dir() else package.parent / "properties"
