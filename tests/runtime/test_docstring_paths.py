"""Files that docstrings name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import recbole_genrec

PACKAGE = Path(recbole_genrec.__file__).parent
FILE = re.compile(r"``([\w/]+/\w+\.py)``")


def named_files(path: Path) -> set[str]:
    """Python files that the docstring of a module names."""
    return set(FILE.findall(ast.get_docstring(ast.parse(path.read_text())) or ""))


def test_module_docstrings_name_files_that_are_there():
    missing = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in sorted(named_files(path))
        if not any((root / name).is_file() for root in (PACKAGE, PACKAGE.parent, path.parent))
    ]
    assert missing == []
