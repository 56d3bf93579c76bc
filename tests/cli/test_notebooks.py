"""The notebooks of ``examples/`` run in their time, and are committed with clean outputs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 60_000
"""Bytes of a committed notebook."""
CPU_SECONDS = 90


def cells_of(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8"))["cells"]


def code_cells_of(file: Path) -> list[dict]:
    return [cell for cell in cells_of(file) if cell["cell_type"] == "code"]


@pytest.fixture
def execute(monkeypatch) -> ModuleType:
    """``examples/execute.py``."""
    for package in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason="notebooks need the dev extra")
    specification = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return module


def test_there_are_three_and_the_page_names_them():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = sorted(re.findall(r"\(([\w-]+)\.ipynb\)", page))
    assert [file.stem for file in NOTEBOOKS] == names == ["own-data", "quick-start", "tokenizers"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_committed_with_clean_output(file):
    assert file.stat().st_size < LARGEST
    cells = code_cells_of(file)
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "it was not run from top to bottom"
    assert any(cell["outputs"] for cell in cells)
    for cell in cells:
        shown = json.dumps(cell["outputs"])
        assert '"stderr"' not in shown and '"output_type": "error"' not in shown, shown
        assert not re.search(r"/(home|root|tmp|usr|work)/|[A-Z]:\\\\", shown), shown


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_lead_to_files(file):
    texts = [cell["source"] for cell in cells_of(file) if cell["cell_type"] == "markdown"]
    for text in texts:
        for target in re.findall(r"\]\(([^)#\s]+)", "".join(text)):
            assert (FOLDER / target).exists(), f"{file.name} links to {target}"


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs(execute, file):
    before = os.times()
    notebook = execute.executed(file)
    after = os.times()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    spent = after.children_user + after.children_system  # 0 on Windows
    spent -= before.children_user + before.children_system
    assert spent < CPU_SECONDS
