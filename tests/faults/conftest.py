"""Counts what the fault harness tried and what it survived, and prints it at the end."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from counts import COUNTS, SOAK


def pytest_terminal_summary(terminalreporter) -> None:
    if any(tried for _, tried in COUNTS.values()):
        terminalreporter.section("reliability")
        for what, (good, tried) in COUNTS.items():
            if tried:
                terminalreporter.write_line(f"{what}: {good} / {tried}")
        for model, figures in SOAK.items():
            terminalreporter.write_line(
                f"{model}, a long training: "
                + ", ".join(f"{what} {n:.4g}" for what, n in figures.items())
            )
