"""What a run was made with and what it used: versions, commit, time, memory."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import torch

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
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name.replace("recbole-genrec", "recbole_genrec")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the checkout this package runs from (``-dirty`` with local changes); ``None`` for an installed wheel."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(
            git, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class Stages:
    """Wall seconds, CPU seconds and peak memory of the stages of a run, one after another."""

    def __init__(self) -> None:
        self.seconds, self.cpu_seconds, self.memory = {}, {}, {}
        self._last = clocks()

    def end(self, name: str) -> None:
        """The stage that ran since the last call, or since the start."""
        now = clocks()
        self.seconds[name], self.cpu_seconds[name] = (
            after - before for after, before in zip(now, self._last, strict=True)
        )
        self.memory[name], self._last = _peak_memory_mb(), now


def _peak_memory_mb() -> dict[str, float]:
    """Highest memory of the process so far, MiB."""
    peak = {"cpu": peak_memory_mb()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def clocks() -> tuple[float, float]:
    """Wall and CPU seconds so far, of this process with all its threads."""
    return time.perf_counter(), time.process_time()
