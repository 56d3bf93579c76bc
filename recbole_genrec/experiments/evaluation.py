"""A test of a checkpoint, or of an ensemble, after its training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_genrec.data.histories import unreachable_targets
from recbole_genrec.data.tested_pairs import pairs_of_test
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.command_line import command_of_test
from recbole_genrec.experiments.ensemble import tested
from recbole_genrec.experiments.ensemble_file import EnsembleFile, is_ensemble
from recbole_genrec.experiments.ensemble_members import load_members
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.loading import restored
from recbole_genrec.experiments.rank_files import RankFile
from recbole_genrec.experiments.results_beside import cost_of_trainings
from recbole_genrec.experiments.stages import check_topk, metrics_of_test, start_summary
from recbole_genrec.experiments.stored_settings import check_changes
from recbole_genrec.model.registry import is_generative
from recbole_genrec.report.objects import Result
from recbole_genrec.report.ranks import ranks_folder
from recbole_genrec.runtime import processes
from recbole_genrec.settings.recbole_values import history_masked
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.atomic import check_writable
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.accounting import Stages, entries_without_training
from recbole_genrec.training.held_runs import held_output
from recbole_genrec.training.trainer_class import get_trainer_class


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
    if result_file is None:
        if changes.get("save_ranks") is True:
            raise ConfigError(
                "save_ranks stores ranks beside a result file. Give --result_file=F.json."
            )
        return Result(_evaluated(checkpoint, model_class, None, changes))

    result_file = Path(result_file).expanduser()
    check_writable(result_file)
    with held_output(result_file, "result_file", logging.getLogger().warning):
        result = _evaluated(checkpoint, model_class, result_file, changes)
        if processes.rank() == 0:
            write_json(result_file, result)
    return Result(result)


def _evaluated(
    checkpoint: str,
    model_class: type | str | None,
    result_file: str | Path | None,
    changes: dict[str, Any],
) -> dict[str, Any]:
    """The result of a test of a model or an ensemble; its ranks are written."""
    if is_ensemble(checkpoint):
        return _evaluate_ensemble(checkpoint, model_class, result_file, changes)
    return _evaluate_model(checkpoint, model_class, result_file, changes)


def _evaluate_model(
    checkpoint: str,
    model_class: type | str | None,
    result_file: str | Path | None,
    changes: dict[str, Any],
) -> dict[str, Any]:
    """The test of one model with changes of its settings."""
    stages = Stages()
    state = load_checkpoint(checkpoint)
    check_changes(checkpoint, state["config"], model_class, changes)
    config, model, dataset, train, valid, test = restored(checkpoint, state, model_class, changes)
    if test is None:
        raise ConfigError(
            f"{checkpoint} was trained on every interaction (hold_out: False), so nothing is held "
            "out to test it on."
        )
    check_topk(config, dataset)
    _check_no_added_items(checkpoint, model, dataset)
    ranks = None if result_file is None else RankFile(config, test)
    logging.getLogger().info(start_summary(config, dataset))
    unreachable = unreachable_targets(valid, test)
    stages.end("data")

    trainer = get_trainer_class(config.model_class, config.settings.model)(config, model)
    collector = trainer.eval_collector
    collector.data_collect(train)  # as fit does
    if ranks is not None:
        ranks.check(collector)
    metrics = metrics_of_test(trainer, test, load_best_model=False)
    trainer.tensorboard.close()
    stages.end("test")

    ranks_name = None
    if ranks is not None and result_file is not None and processes.rank() == 0:
        ranks_name = ranks.write(collector, metrics, result_file)
    report = model.report() if is_generative(config.model_class) else {}
    command = command_of_test(checkpoint, changes)
    stored_in = None if result_file is None else str(result_file)
    return {
        **entries_without_training(stages, [model], command),
        "model": config.settings.model,
        "dataset": config.settings.dataset,
        "checkpoint": str(checkpoint),
        "cpu_seconds": {**cost_of_trainings([checkpoint]), **stages.cpu_seconds},
        "changes": changes,
        "history_masked": history_masked(config.final_config_dict),
        "unreachable_targets": unreachable,
        "tested_pairs": pairs_of_test(test),
        **metrics,
        "seed": config.settings.seed,
        "report": report,
        "ranks": ranks_name,
        "config": {**config.plain(), "result_file": stored_in},
    }


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
    result = tested(members, file, ranks)
    stages.end("test")
    command = command_of_test(path, changes)
    models = [member.trained.model for member in members]
    return {
        **entries_without_training(stages, models, command),
        **result,
        "checkpoint": str(path),
        "cpu_seconds": {**cost_of_trainings(file.checkpoints), **stages.cpu_seconds},
        "changes": changes,
        "unreachable_targets": unreachable_targets(first.valid, first.test),
    }


def _check_no_added_items(checkpoint: str, model: AbstractRecommender, dataset: Dataset) -> None:
    if not is_generative(type(model)):
        return
    added = model.catalogue.added
    if added and not model.catalogue.chosen.intersection(added):
        raise ArtefactError(
            f"{checkpoint} holds items that add_items added ({len(added)}), which no user of the "
            f"data chose. Test the checkpoint that its run wrote."
        )
    missing = dataset.item_num - model.n_items
    if missing > 0:
        raise ArtefactError(
            f"The data has {missing} items that {checkpoint} does not know and that "
            f"{type(model).__name__} could not add without training, so it cannot be tested on "
            "this data. The log says what they lack: give it to them, train again from the "
            "beginning, without init_from, or give the data of its training with --data_path."
        )
