"""A working skeleton of a new method, to start from: its class, settings and test."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from recbole_genrec.errors import ConfigError
from recbole_genrec.model.registry import model_names
from recbole_genrec.storage.atomic import write_text


def write_new_method(name: str, folder: str | Path = ".") -> list[Path]:
    """Write the files of a method that trains, is tested and recommends as it is.

    Args:
        name: of the class, for example ``NextCode``; its module becomes ``next_code``.
        folder: where the files go.

    Returns:
        The module, its settings and its test.

    Raises:
        ConfigError: the name is no class name or is taken, or a file exists already.
    """
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise ConfigError(
            f"{name!r} is no name of a class. Use letters and digits and begin with a capital "
            "letter, for example NextCode."
        )
    if name in model_names():
        raise ConfigError(f"There is a model {name} already. Choose another name.")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = {"Class": name, "module": module, "test_module": f"test_{module}"}
    templates = {
        f"{module}.py": "method.py.txt",
        f"{name}.yaml": "settings.yaml.txt",
        f"test_{module}.py": "test_method.py.txt",
    }
    paths = [Path(folder) / file for file in templates]
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} exists already. Choose another name or another folder.")

    for path, template in zip(paths, templates.values(), strict=True):
        source = files("recbole_genrec.experiments") / "skeleton" / template
        text = Template(source.read_text(encoding="utf-8")).substitute(words)
        write_text(path, text)
    return paths
