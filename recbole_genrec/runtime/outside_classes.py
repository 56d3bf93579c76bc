"""Classes from outside this package.

A program registers them, an entry point names them, or a setting does: ``package.module:Class``.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from recbole_genrec.errors import ConfigError

LOCATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""``package.module:Class``."""


class OutsideClasses:
    """Classes of one kind by name.

    Args:
        what: the kind, for people: ``tokenizer``.
        group: of the entry points.
        base: every class derives from it.
    """

    def __init__(self, what: str, group: str, base: type) -> None:
        self.what = what
        self.group = group
        self.base = base
        self._registered: dict[str, type] = {}

    def register(self, name: str, new_class: type) -> None:
        """Make a class known by ``name``; one that had the name before is forgotten.

        Raises:
            ConfigError: the class is of another kind.
        """
        if not (isinstance(new_class, type) and issubclass(new_class, self.base)):
            raise ConfigError(
                f"{new_class!r} is no {self.what}. It must derive from {self.base.__name__} of "
                f"{self.base.__module__}."
            )
        self._registered[name] = new_class

    @property
    def names(self) -> list[str]:
        """Names of registered classes and of entry points."""
        return sorted({*self._registered, *self._entry_points})

    def is_known(self, name: str) -> bool:
        """Whether :meth:`find` needs no module that only ``name`` itself names."""
        return name in self._registered or name in self._entry_points

    def find(self, name: str) -> type | None:
        """The class of ``name``, or ``None``.

        Args:
            name: of a registered class or of an entry point, or ``package.module:Class``. The
                working folder counts as a place of modules.

        Raises:
            ConfigError: the module or the class cannot be found, or is of another kind.
        """
        if name not in self._registered:
            if name in self._entry_points:
                point = self._entry_points[name]
                self.register(name, self._imported(point.value.partition("[")[0].strip()))
            elif LOCATION.fullmatch(name):
                self.register(name, self._imported(name))
        return self._registered.get(name)

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _imported(self, location: str) -> type:
        module, _, path = location.partition(":")
        with _working_folder():
            try:
                value: object = importlib.import_module(module)
                for word in path.split("."):
                    value = getattr(value, word)
            except (ImportError, AttributeError) as error:
                raise ConfigError(
                    f"The {self.what} {location} cannot be loaded: {error}. Write "
                    "package.module:Class; the module must be installed, on PYTHONPATH, or in the "
                    "working folder."
                ) from error
        return value  # type: ignore[return-value]  # register() checks it


@contextmanager
def _working_folder() -> Iterator[None]:
    """Modules in the working folder can be imported."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
