"""Runs the notebooks and writes them back with their outputs: ``python examples/execute.py``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_NUM_THREADS": "1",  # threads add numbers up in another order
    "PYTHONWARNINGS": "ignore:IProgress",  # tqdm, where ipywidgets is not installed
}
"""Without bars and warnings in the outputs."""


def executed(file: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """A notebook with new outputs; it runs in an empty folder.

    Args:
        file: the notebook.
        timeout: seconds that a cell may take.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
    environment = {**os.environ, **ENVIRONMENT}
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for notebook_file in NOTEBOOKS:
        nbformat.write(executed(notebook_file), notebook_file)
        print(notebook_file.name)
