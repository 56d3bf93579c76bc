"""One call that opens whatever a path holds: a trained model, a result, a benchmark."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.benchmark import run_benchmark
from recbole_genrec.experiments.benchmark_file import read_benchmark
from recbole_genrec.experiments.ensemble_file import names_members
from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.report.leaderboard import Leaderboard
from recbole_genrec.report.objects import Result
from recbole_genrec.report.runs import OBJECTS, RESULT, RESULT_ADVICE, STATE
from recbole_genrec.storage.artefacts import check_content, read_json


def load(path: str | os.PathLike[str], **changes: Any) -> Any:
    """What a path holds.

    Args:
        path: a checkpoint (``.pth``), the folder or hub id of an export, or the file of an
            ensemble: the trained model, with ``recommend`` and ``recommend_all``; a result file
            (``.json``): the :class:`Result`; the output folder of a benchmark: its
            :class:`Leaderboard`.
        **changes: settings to replace in a trained model, for example ``data_path``.

    Raises:
        ArtefactError: there is nothing, or it is damaged or something else.
        ConfigError: settings for something that is no model.
    """
    place = Path(path).expanduser()
    is_board = (place / STATE).is_file()
    is_result = place.suffix == ".json" and not names_members(place)
    if changes and (is_board or is_result):
        raise ConfigError(f"{path} holds results; {', '.join(changes)} can be set for models only.")
    if is_board:
        return Leaderboard.of([place])
    if is_result:
        return load_result(place)
    return load_recommender(str(path), **changes).model


def load_result(path: str | os.PathLike[str]) -> Result:
    """The content of a result file.

    Raises:
        ArtefactError: it is missing, damaged or no result of a run.
    """
    content = read_json(path, advice=RESULT_ADVICE)
    missing = RESULT - content.keys()
    if missing:
        raise ArtefactError(
            f"{path} is no result of a run: it has no {', '.join(sorted(missing))}. Name the JSON "
            "file that a run wrote beside its checkpoint."
        )
    check_content(path, content, OBJECTS, RESULT_ADVICE)
    return Result(content)


def benchmark(file: str | os.PathLike[str], **changes: Any) -> Leaderboard:
    """Carry out the runs of a benchmark file that are not done yet.

    Args:
        file: the YAML file.
        **changes: keys that replace those of the file, for example ``seeds=[2020]``.

    Returns:
        The leaderboard, which is also written to the output folder. Failed runs stand in its rows.
    """
    plan = read_benchmark(str(file), **changes)
    run_benchmark(plan)
    leaderboard = Leaderboard.of([plan.output])
    leaderboard.write(plan.output)
    return leaderboard
