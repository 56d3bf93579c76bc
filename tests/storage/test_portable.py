"""The package can be imported on every system that Python runs on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import recbole_genrec

PACKAGE = Path(recbole_genrec.__file__).parent
ON_SOME_SYSTEMS = {"fcntl", "grp", "msvcrt", "posix", "pwd", "resource", "syslog", "termios", "tty"}


def imported_at_once(tree: ast.AST) -> Iterator[str]:
    """Modules that are imported when the file is, not when one of its functions is called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imported_at_once(node)


def test_no_module_needs_one_system_to_be_imported():
    for file in PACKAGE.rglob("*.py"):
        modules = set(imported_at_once(ast.parse(file.read_text(encoding="utf-8"))))
        assert not modules & ON_SOME_SYSTEMS, file
