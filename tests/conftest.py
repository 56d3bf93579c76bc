"""Every test runs offline, in an empty folder, on one thread, without arguments, and leaves neither
log handlers nor registered methods behind.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that a test starts

import pytest
import torch
from hypothesis import settings

from recbole_genrec.data.vectors import text_encoding
from recbole_genrec.model import outside

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_encoder_of_another_test() -> None:
    """An encoder stays in memory for the next new items; tests put others in its place."""
    text_encoding._KEPT.clear()


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path) -> Iterator[None]:
    """RecBole writes ``log/``, ``saved/`` and TensorBoard files into the working folder and adds
    handlers to the root logger.
    """
    root = logging.getLogger()
    before, level = set(root.handlers), root.level
    methods = outside._classes()._registered
    known, modules = dict(methods), set(sys.modules)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # of its own, so that monkeypatch.undo() in a test leaves it alone
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", ["pytest"])
        yield
    for name in methods.keys() - known.keys():
        module = methods.pop(name).__module__
        if module not in modules:  # the file of a test's own folder
            sys.modules.pop(module, None)
    for handler in set(root.handlers) - before:
        if not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
