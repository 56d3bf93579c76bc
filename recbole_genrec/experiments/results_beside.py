"""Result files beside the checkpoints of their runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError
from recbole_genrec.report.result_files import beside_checkpoint
from recbole_genrec.storage.artefacts import read_json

TRAINING = ("train", "fit", "valid")
"""Stages of a run that belong to its training."""

DECISION = "after_fit"
"""The stage after it of methods that decide on the validation split."""


def result_beside(checkpoint: Path) -> dict[str, Any]:
    """The result file of the run that wrote a checkpoint; empty where it is not there."""
    file = beside_checkpoint(checkpoint)
    if not file.is_file():
        return {}
    try:
        return read_json(file)
    except ArtefactError:
        return {}


def cost_of_trainings(checkpoints: Iterable[str]) -> dict[str, float]:
    """CPU seconds of the trainings of some checkpoints together, by stage.

    Args:
        checkpoints: files that runs wrote.

    Returns:
        The stages of :data:`TRAINING`, and :data:`DECISION` where a run has it; empty where the
        result of one run is not there.
    """
    total = dict.fromkeys(TRAINING, 0.0)
    for checkpoint in checkpoints:
        cost = result_beside(Path(checkpoint)).get("cpu_seconds", {})
        for stage in TRAINING:
            if stage not in cost:
                return {}
            total[stage] += cost[stage]
        if DECISION in cost:
            total[DECISION] = total.get(DECISION, 0.0) + cost[DECISION]
    return total
