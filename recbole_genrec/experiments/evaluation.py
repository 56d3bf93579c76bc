"""A test of a checkpoint, or of an ensemble, after its training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_genrec.data.histories.evaluated_histories import unreachable_targets
from recbole_genrec.errors import ConfigError, explained_files
from recbole_genrec.experiments.command_line import command_of_test
from recbole_genrec.experiments.ensemble import tested
from recbole_genrec.experiments.ensemble_file import EnsembleFile, is_ensemble
from recbole_genrec.experiments.ensemble_members import load_members
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.loading import Trained
from recbole_genrec.experiments.opened import Opened
from recbole_genrec.experiments.rank_files import RankFile
from recbole_genrec.experiments.results_beside import cost_of_trainings
from recbole_genrec.experiments.stages import (
    candidates_of_test,
    metrics_of_test,
    start_summary,
    tested_entries,
)
from recbole_genrec.experiments.testable import testable
from recbole_genrec.model.registry import is_generative
from recbole_genrec.report.objects import Result
from recbole_genrec.report.ranks import ranks_folder
from recbole_genrec.runtime import processes
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import check_writable
from recbole_genrec.training.accounting import Stages, entries_without_training
from recbole_genrec.training.held_runs import held_output


@explained_files()
def evaluate(
    checkpoint: str,
    model_class: type | str | None = None,
    result_file: str | Path | None = None,
    **changes: Any,
) -> Result:
    """Test a checkpoint again, under another search if wanted; nothing is trained.

    Args:
        checkpoint: as in :func:`~.loading.load_data_and_model`.
        model_class: as in :func:`~.loading.load_data_and_model`.
        result_file: where the result goes, as JSON, with the ranks of the test users beside it as
            ``save_ranks`` says: a leaderboard or a report takes it in. Default: nowhere.
        **changes: keys that the weights do not depend on, and their values;
            ``recbole-genrec keys METHOD`` lists what affects the search.

    Returns:
        ``{"model", "dataset", "checkpoint", "changes", "test_result", "report", "seconds",
        "cpu_seconds", ...}``, as in a result file.

    Raises:
        ConfigError: a key that says how the model was trained, a wrong value, or ``save_ranks``
            without a result file.
        ArtefactError: items were added to the model after its training.
        HeldError: another process is going to write the same result file.
    """
    checkpoint = local_checkpoint(checkpoint)
    test = _evaluate_ensemble if is_ensemble(checkpoint) else _evaluate_model
    if result_file is None:
        if changes.get("save_ranks") is True:
            raise ConfigError(
                "save_ranks stores ranks beside a result file. Give --result_file=F.json."
            )
        return Result(test(checkpoint, model_class, None, changes))

    result_file = Path(result_file).expanduser()
    check_writable(result_file)
    with held_output(result_file, "result_file", logging.getLogger().warning):
        result = test(checkpoint, model_class, result_file, changes)
        if processes.rank() == 0:
            write_json(result_file, result)
    return Result(result)


def _evaluate_model(
    checkpoint: str,
    model_class: type | str | None,
    result_file: str | Path | None,
    changes: dict[str, Any],
) -> dict[str, Any]:
    """The test of one model with changes of its settings."""
    stages = Stages()
    trained = _loaded(checkpoint, model_class, changes)
    config = trained.config
    model = trained.model
    ranks = None if result_file is None else RankFile(config, trained.test)
    candidates = candidates_of_test(config)
    unreachable = unreachable_targets(trained.valid, trained.test)
    stages.end("data")
    collector, metrics = _tested(trained, ranks)
    stages.end("test")

    ranks_name = None
    if ranks is not None and result_file is not None and processes.rank() == 0:
        ranks_name = ranks.write(collector, metrics, result_file)
    report = model.report() if is_generative(config.model_class) else {}
    entries = tested_entries(config, trained.test, metrics, report, ranks_name)
    entries["config"]["result_file"] = None if result_file is None else str(result_file)
    return {
        **_entries_of_test(checkpoint, [checkpoint], changes, stages, [model]),
        **entries,
        "candidates": candidates,
        "unreachable_targets": unreachable,
    }


def _loaded(checkpoint: str, model_class: type | str | None, changes: dict[str, Any]) -> Trained:
    """A model and its data, which can be tested."""
    trained = testable(Opened.of(checkpoint, model_class, changes))
    if trained.test is None:
        raise ConfigError(
            f"{checkpoint} was trained on every interaction (hold_out: False), so nothing is held "
            "out to test it on."
        )
    logging.getLogger().info(start_summary(trained.config, trained.dataset))
    return trained


def _tested(trained: Trained, ranks: RankFile | None) -> tuple[Any, dict[str, Any]]:
    """RecBole's collector after the test of a model, and the entries with the metrics."""
    trainer = trained.evaluator()
    if ranks is not None:
        ranks.check(trainer.eval_collector)
    metrics = metrics_of_test(trainer, trained.test, load_best_model=False)
    return trainer.eval_collector, metrics


def _evaluate_ensemble(
    path: str,
    model_class: type | str | None,
    result_file: str | Path | None,
    changes: dict[str, Any],
) -> dict[str, Any]:
    """The test of an ensemble with changes of all its members."""
    stages = Stages()
    file = EnsembleFile.read(path)
    members = load_members(file.checkpoints, file.changed(changes), model_class)
    stages.end("data")
    first = members[0].trained
    ranks = None
    if result_file is not None and first.config.settings.save_ranks:
        ranks = ranks_folder(result_file)
    entries = tested(members, file, ranks)
    stages.end("test")
    models = [member.trained.model for member in members]
    return {
        **_entries_of_test(path, file.checkpoints, changes, stages, models),
        **entries,
        "unreachable_targets": unreachable_targets(first.valid, first.test),
    }


def _entries_of_test(
    path: str,
    checkpoints: Sequence[str],
    changes: dict[str, Any],
    stages: Stages,
    models: Sequence[AbstractRecommender],
) -> dict[str, Any]:
    """Entries that say what a test cost and how it is repeated.

    Args:
        path: of what was tested, a checkpoint or an ensemble.
        checkpoints: whose trainings it took.
        changes: of the settings.
        stages: of the test.
        models: what was tested.
    """
    return {
        **entries_without_training(stages, models, command_of_test(path, changes)),
        "checkpoint": str(path),
        "cpu_seconds": {**cost_of_trainings(checkpoints), **stages.cpu_seconds},
        "changes": changes,
    }
