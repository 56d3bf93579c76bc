"""What a run was made with and what it used: versions, commit, time, memory."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recbole_genrec.runtime import processes
from recbole_genrec.runtime.memory import peak_memory_mb

PACKAGES = (
    "recbole-genrec",
    "recbole",
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "transformers",
    "peft",
    "sentence-transformers",
)


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries a number depends on."""
    numbers = {"python": platform.python_version()}
    for name in PACKAGES:
        shown = name.replace("recbole-genrec", "recbole_genrec")
        try:
            numbers[shown] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return numbers


def commit() -> str | None:
    """Commit of the checkout that this package runs from.

    Returns:
        Twelve digits, with ``-dirty`` after local changes; ``None`` for an installed wheel.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


class Stages:
    """What the stages of a run use, one after another.

    Attributes:
        seconds: wall time by stage.
        cpu_seconds: CPU time by stage.
        memory: highest memory so far at the end of each stage, MiB on the ``cpu`` and the ``gpu``.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.memory: dict[str, dict[str, float]] = {}
        self._last = clocks()

    def end(self, name: str, before: tuple[float, float] = (0.0, 0.0)) -> None:
        """Note what the stage has used that ran since the last call, or since the start.

        Args:
            name: of the stage.
            before: wall and CPU seconds that it used in an interrupted run.
        """
        wall, cpu = clocks()
        self.seconds[name] = before[0] + wall - self._last[0]
        self.cpu_seconds[name] = before[1] + cpu - self._last[1]
        self.memory[name] = peaks_by_device()
        self._last = wall, cpu


def n_parameters(*models: nn.Module) -> int:
    """Number of parameters of some models together."""
    return sum(parameter.numel() for model in models for parameter in model.parameters())


def entries_without_training(
    stages: Stages, models: Sequence[nn.Module], command: str | None
) -> dict[str, Any]:
    """Entries of the result file of a test that no training came before.

    Args:
        stages: of the test.
        models: what was tested.
        command: that repeats the test.

    Returns:
        The entries, those of a training empty.
    """
    return {
        "best_valid_score": None,
        "best_valid_result": None,
        "test_by_user": None,
        "parameters": n_parameters(*models),
        "processes": processes.size(),
        "tokenizer_curves": {},
        "seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "peak_memory_mb": stages.memory,
        "epochs": [],
        "checkpoint": None,
        "command": command,
        "commit": commit(),
        "versions": versions(),
    }


def peaks_by_device() -> dict[str, float]:
    """Highest memory of the process so far on the ``cpu`` and the ``gpu``, MiB."""
    peak = {"cpu": peak_memory_mb()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def clocks() -> tuple[float, float]:
    """Wall and CPU seconds so far, of this process with all its threads."""
    return time.perf_counter(), time.process_time()
