"""What the fault harness survives: ``python benchmarks/reliability.py`` runs ``tests/faults``
with its slow tests and writes the figures.

Kills at random moments, full disks, damaged and hostile files and a long training; nothing here is
a timing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from common import write_result

FAULTS = Path(__file__).resolve().parents[1] / "tests" / "faults"
NOTES = (
    "Killed runs (kill -9 at random moments of tokenizer fit, embeddings, training, "
    "evaluation and writing of a small STORE and a small "
    "TIGER with LETTER's tokenizer) were continued by the same command with --resume and "
    "had to end with exactly the losses and metrics "
    "of the uninterrupted run. Damaged files had to be refused with a message or read with "
    "their old content. Memory growth counts from "
    "epoch 50 on."
)


def main() -> int:
    """Exit status of pytest; the figures are written when the tests ran, failed ones included."""
    status = int(
        pytest.main(
            [
                str(FAULTS),
                "-m",
                "",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--rootdir={FAULTS.parents[1]}",
            ]
        )
    )
    if status > 1:
        return status
    counts = sys.modules["counts"]
    rows = [(what, f"{good} / {tried}") for what, (good, tried) in counts.COUNTS.items()]
    rows += [
        (f"{model}: {what}", f"{number:.4g}")
        for model, figures in counts.SOAK.items()
        for what, number in figures.items()
    ]
    result = {"passed": status == 0, "counts": counts.COUNTS, "soak": counts.SOAK}
    write_result("reliability", "Faults survived", result, ("what", "number"), rows, NOTES)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
