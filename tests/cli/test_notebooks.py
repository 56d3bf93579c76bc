"""The notebooks of ``examples/`` run from top to bottom, and are committed with their output."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
LARGEST = 200_000
"""Bytes of a committed notebook."""


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_committed_with_output(file):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need the dev extra")
    notebook = nbformat.read(file, as_version=4)
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert any(cell.outputs for cell in code_cells(notebook))
    assert file.stat().st_size < LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs(file):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need the dev extra")
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the dev extra")
    notebook = nbformat.read(file, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert all(cell.execution_count for cell in code_cells(notebook))


def test_there_are_three():
    assert [file.stem for file in NOTEBOOKS] == ["own-data", "quick-start", "tokenizers"]
