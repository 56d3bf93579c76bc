"""What can be done with a checkpoint: test it again, recommend, export, describe items."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_genrec.data.histories import unreachable_targets
from recbole_genrec.data.ids import raw_id, read_ids
from recbole_genrec.errors import ArtefactError, ConfigError, explained
from recbole_genrec.experiments.ensemble import tested
from recbole_genrec.experiments.ensemble_file import EnsembleFile, is_ensemble
from recbole_genrec.experiments.ensemble_members import load_members
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.loading import (
    Served,
    Trained,
    load_data_and_model,
    load_model,
    load_recommender,
    restored,
)
from recbole_genrec.experiments.model_card import model_card, result_beside
from recbole_genrec.experiments.stages import check_topk, metrics_of_test, start_summary
from recbole_genrec.experiments.stored_settings import config_from_plain
from recbole_genrec.model.outside import check_stored_class
from recbole_genrec.model.registry import is_generative
from recbole_genrec.report.objects import Result
from recbole_genrec.settings.classification import evaluation_keys
from recbole_genrec.settings.recbole_values import history_masked
from recbole_genrec.settings.rules import did_you_mean
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.accounting import Stages, commit, versions
from recbole_genrec.training.trainer_class import get_trainer_class

MOVABLE = ("backbone",)
"""Keys that name a place whose content, not its name, decides the weights."""

__all__ = [
    "Trained",
    "evaluate",
    "export",
    "inspect",
    "load_data_and_model",
    "load_model",
    "load_recommender",
    "recommend",
]


def evaluate(checkpoint: str, model_class: type | str | None = None, **changes: Any) -> Result:
    """Test a checkpoint again, under another search if wanted; nothing is trained.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        model_class: as in :func:`load_data_and_model`.
        **changes: keys that the weights do not depend on, and their values;
            ``recbole-genrec keys METHOD`` lists what affects the search.

    Returns:
        ``{"model", "dataset", "checkpoint", "changes", "test_result", "report", "seconds",
        "cpu_seconds", ...}``, as in a result file.

    Raises:
        ConfigError: a key that says how the model was trained, or a wrong value.
        ArtefactError: items were added to the model after its training.
    """
    if is_ensemble(checkpoint):
        return Result(_evaluate_ensemble(checkpoint, changes))
    stages = Stages()
    checkpoint = local_checkpoint(checkpoint)
    state = load_checkpoint(checkpoint)
    _check_changes(checkpoint, state, model_class, changes)
    config, model, dataset, train, valid, test = restored(checkpoint, state, model_class, changes)
    if test is None:
        raise ConfigError(
            f"{checkpoint} was trained on every interaction (hold_out: False), so nothing is held "
            "out to test it on."
        )
    check_topk(config, dataset)
    _check_no_added_items(checkpoint, model, dataset)
    logging.getLogger().info(start_summary(config, dataset))
    unreachable = unreachable_targets(valid, test)
    stages.end("data")

    trainer = get_trainer_class(config.model_class, config.settings.model)(config, model)
    trainer.eval_collector.data_collect(train)  # as fit does
    metrics = metrics_of_test(trainer, test, load_best_model=False)
    trainer.tensorboard.close()
    stages.end("test")

    report = model.report() if is_generative(config.model_class) else {}
    result = {
        "model": config.settings.model,
        "dataset": config.settings.dataset,
        "checkpoint": str(checkpoint),
        "changes": changes,
        "history_masked": history_masked(config.final_config_dict),
        "unreachable_targets": unreachable,
        **metrics,
        "report": report,
        "seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "commit": commit(),
        "versions": versions(),
    }
    return Result(result)


def _evaluate_ensemble(path: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The test of an ensemble with changes of all its members."""
    stages = Stages()
    file = EnsembleFile.read(path)
    for checkpoint in file.checkpoints:
        _check_changes(checkpoint, load_checkpoint(checkpoint), None, changes)
    members = load_members(file.checkpoints, changes)
    stages.end("data")
    result = tested(members, file)
    stages.end("test")
    first = members[0].trained
    return {
        **result,
        "checkpoint": str(path),
        "changes": changes,
        "unreachable_targets": unreachable_targets(first.valid, first.test),
        "seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "commit": commit(),
        "versions": versions(),
    }


def _check_changes(
    checkpoint: str,
    state: dict[str, Any],
    model_class: type | str | None,
    changes: dict[str, object],
) -> None:
    with explained(f"The checkpoint {checkpoint}", "Train the model again."):
        check_stored_class(state["config"], model_class, checkpoint)
        known = evaluation_keys(config_from_plain(state["config"]).declarations)
    for name in changes:
        if name not in known and name not in MOVABLE:
            raise ConfigError(
                f"{name} cannot be changed for a trained model. "
                f"evaluate takes {', '.join(known)}.{did_you_mean(name, known)}"
            )


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
            f"{type(model).__name__} cannot add without training, so it cannot be tested on this "
            "data. Train again, from these weights with --init_from."
        )


def recommend(
    checkpoint: str,
    user: str | None = None,
    history: list[str] | None = None,
    k: int = 10,
    candidate_file: str | None = None,
    exclude_seen: bool | None = None,
    **changes: Any,
) -> list[dict[str, Any]]:
    """The best next items for a user of the dataset, or for any history.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        user: raw id of a user of the dataset.
        history: raw item ids, oldest first; the person need not be in the dataset.
        k: how many items.
        candidate_file: a file of raw item ids, one a line, to choose among; default all items.
        exclude_seen: whether items of the history stay out; default as ``exclude_history`` says.
        **changes: settings to replace.

    Returns:
        ``[{"rank", "item", "text", "score", ...}]``, best first; from a search ``certified`` too.

    Raises:
        ConfigError: an unknown user or item id, an empty history or file, or not exactly one of
            user and history; a model of RecBole that knows people by their user ids alone.
    """
    if (user is None) == (history is None):
        raise ConfigError("Give either a user or a history.")
    candidates = None if candidate_file is None else read_ids(candidate_file)
    served = load_recommender(checkpoint, candidate_file=None, **changes)
    if history is not None:
        return served.model.recommend(
            list(history), k=k, candidates=candidates, exclude_seen=exclude_seen
        )
    return recommend_for_user(served, user, k, candidates, exclude_seen)


def recommend_for_user(
    served: Served,
    user: object,
    k: int,
    candidates: list[str] | None = None,
    exclude_seen: bool | None = None,
) -> list[dict[str, Any]]:
    """The best next items for a user of the data; see :func:`recommend`.

    Items of the user that the model does not know do not count.

    Raises:
        ConfigError: no such user, or no item of theirs is known.
    """
    model, name = served.model, served.config.settings.dataset
    person = raw_id(user)
    if served.histories is None:
        raise ConfigError(
            f"The files of {name} are not in {served.config.settings.data_path}, so what user "
            f"{person!r} has chosen is unknown. Give --data_path, or a history of item ids."
        )
    if person not in served.histories:
        raise ConfigError(
            f"There is no user {person!r} in {name}. Use --history=item,item,... for people "
            "outside it."
        )
    known = set(model.item_tokens[1:])
    items = [item for item in served.histories[person] if item in known]
    if not items:
        raise ConfigError(f"The model knows none of the items that user {person!r} has chosen.")
    in_training = person if model.catalogue.has_user(person) else None
    return model.recommend(
        items, k=k, candidates=candidates, user=in_training, exclude_seen=exclude_seen
    )


def export(checkpoint: str, folder: str, merge: bool = False, **changes: Any) -> None:
    """Write the model of a checkpoint to a new folder, as safetensors and JSON, with a model card.

    :func:`~recbole_genrec.experiments.loading.load` reads the folder without the dataset, also from
    a hub.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        folder: the new folder.
        merge: whether to write one model for transformers, whose vocabulary holds the codes;
            for methods with a causal language model. See ``save_pretrained`` of the model.
        **changes: settings to replace.

    Raises:
        ArtefactError: the checkpoint holds a model of RecBole.
        ConfigError: ``merge`` is not for this method, or the folder exists.
    """
    checkpoint = local_checkpoint(checkpoint)
    model = load_model(checkpoint, **changes).model
    card = model_card(model, result_beside(Path(checkpoint)))
    model.save_pretrained(folder, merge, {"README.md": card})


def inspect(checkpoint: str, items: list[str], **changes: Any) -> list[dict[str, Any]]:
    """Let a model that learned to describe items (LCRec) describe them from their codes alone.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        items: raw item ids.
        **changes: settings to replace.

    Returns:
        ``[{"item", "codes", "generated", "text"}]``; ``text`` is the true text.

    Raises:
        ConfigError: an unknown item id.
        ArtefactError: the checkpoint holds another model.
    """
    served = load_model(checkpoint, **changes)
    if not hasattr(served.model, "inspect_items"):
        raise ArtefactError(
            f"{checkpoint} holds {served.config.settings.model}, which does not describe items; "
            f"inspect works for LCRec."
        )
    return served.model.inspect_items(items)
