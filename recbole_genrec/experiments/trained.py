"""What can be done with a checkpoint: load it, test it again, recommend, export, describe items."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import init_seed

from recbole_genrec.config import GenRecConfig, config_from_plain
from recbole_genrec.data.histories import items_of_user, unreachable_targets
from recbole_genrec.data.ids import check_same_ids, read_ids
from recbole_genrec.data.loaders import create_dataset, make_loaders, user_history
from recbole_genrec.errors import ArtefactError, ConfigError, explained
from recbole_genrec.experiments.stages import check_topk, metrics_of_test, start_summary
from recbole_genrec.model.outside import check_stored_class
from recbole_genrec.model.registry import is_generative
from recbole_genrec.settings.classification import evaluation_keys
from recbole_genrec.settings.recbole_values import history_masked
from recbole_genrec.settings.rules import did_you_mean
from recbole_genrec.storage.checkpoints import load_checkpoint, load_state
from recbole_genrec.training.accounting import Stages, commit, versions
from recbole_genrec.training.trainer import get_trainer_class


class Trained(NamedTuple):
    """A trained model and its data.

    Attributes:
        config: the settings of its run, with the changes asked for.
        model: the model in evaluation mode, on its device.
        dataset: RecBole's dataset.
        train: loader of the training split.
        valid: loader of the validation split.
        test: loader of the test split.
    """

    config: GenRecConfig
    model: AbstractRecommender
    dataset: Dataset
    train: Any
    valid: Any
    test: Any


def load_data_and_model(
    checkpoint: str, model_class: type | str | None = None, **changes: Any
) -> Trained:
    """Load a checkpoint of ours and its data; nothing is trained and no stage runs again.

    Args:
        checkpoint: the ``.pth`` file beside the result file, or the folder of an export.
        model_class: the class of a model from outside this package, or ``package.module:Class``.
            Not needed for registered classes and those of entry points.
        **changes: settings to replace, for example ``data_path`` or ``beam_width``.

    Returns:
        ``(config, model, dataset, train, valid, test)``.

    Raises:
        ArtefactError: the file is damaged, the dataset holds other items than the checkpoint, or
            the model's class is from outside and nobody named it.
        ConfigError: the checkpoint's class has another name than ``model_class``.
    """
    return _restored(checkpoint, load_checkpoint(checkpoint), model_class, changes)


def _restored(
    checkpoint: str,
    state: dict[str, Any],
    model_class: type | str | None,
    changes: dict[str, object],
) -> Trained:
    """The data and the model of ``state``, the content of ``checkpoint``."""
    with explained(f"The checkpoint {checkpoint}", "Train the model again."):
        check_stored_class(state["config"], model_class, checkpoint)
        config = config_from_plain(state["config"], **changes)
        init_seed(config.settings.seed, config.settings.reproducibility)
        dataset = create_dataset(config)
        generative = is_generative(config.model_class)
        train, valid, test = make_loaders(config, dataset, generative)
        if generative:
            model = config.model_class.from_checkpoint(config, train._dataset, state)
        else:
            model = _recbole_model(config, train._dataset, state)
    model = model.to(config.settings.device).eval()
    return Trained(config, model, dataset, train, valid, test)


def _recbole_model(
    config: GenRecConfig, dataset: Dataset, state: dict[str, Any]
) -> AbstractRecommender:
    """A model of RecBole with the weights in ``state``."""
    model = config.model_class(config, dataset)
    id_fields = ["items"]
    if hasattr(model, "n_users"):
        id_fields.append("users")
    check_same_ids(state["ids"], dataset, id_fields)
    load_state(model, state["state_dict"])

    other = {}
    for name, value in state["other_parameter"].items():
        if torch.is_tensor(value):
            value = value.to(config.settings.device)
        other[name] = value
    model.load_other_parameter(other)
    return model


def evaluate(
    checkpoint: str, model_class: type | str | None = None, **changes: Any
) -> dict[str, Any]:
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
    stages = Stages()
    state = load_checkpoint(checkpoint)
    _check_changes(checkpoint, state, model_class, changes)
    config, model, dataset, train, valid, test = _restored(checkpoint, state, model_class, changes)
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
    return {
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
        if name not in known:
            raise ConfigError(
                f"{name} cannot be changed for a trained model. "
                f"evaluate takes {', '.join(known)}.{did_you_mean(name, known)}"
            )


def _check_no_added_items(checkpoint: str, model: AbstractRecommender, dataset: Dataset) -> None:
    added = getattr(model, "n_items", 0) - dataset.item_num
    if added > 0:
        raise ArtefactError(
            f"{checkpoint} holds items that add_items added ({added}), which no user of the data "
            f"chose. Test the checkpoint that its run wrote."
        )


def recommend(
    checkpoint: str,
    user: str | None = None,
    history: list[str] | None = None,
    k: int = 10,
    candidate_file: str | None = None,
    **changes: Any,
) -> list[dict[str, Any]]:
    """The best next items for a user of the dataset, or for any history.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        user: raw id of a user of the dataset.
        history: raw item ids, oldest first; the person need not be in the dataset.
        k: how many items.
        candidate_file: a file of raw item ids, one a line, to choose among; default all items.
        **changes: settings to replace.

    Returns:
        ``[{"rank", "item", "text", "score", ...}]``, best first; from a search ``certified`` too.

    Raises:
        ConfigError: an unknown user or item id, an empty history or file, or not exactly one of
            user and history.
        ArtefactError: the checkpoint holds a model of RecBole.
    """
    candidates = None if candidate_file is None else read_ids(candidate_file)
    trained = load_data_and_model(checkpoint, candidate_file=None, **changes)
    if not is_generative(type(trained.model)):
        raise ArtefactError(
            f"{checkpoint} holds {trained.config.settings.model}; "
            f"recommend works for the generative models of this package."
        )

    excluded = None
    if user is not None and history is None:
        items = user_history(trained.dataset, user)
        if trained.config.settings.exclude_history:
            excluded = items_of_user(trained.dataset, user)
    elif history is not None and user is None:
        items = list(history)
    else:
        raise ConfigError("Give either a user or a history.")
    return trained.model.recommend(items, k=k, candidates=candidates, user=user, excluded=excluded)


def export(checkpoint: str, folder: str, merge: bool = False, **changes: Any) -> None:
    """Write the model of a checkpoint to a new folder, as safetensors and JSON.

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
    trained = load_data_and_model(checkpoint, **changes)
    if not hasattr(trained.model, "save_pretrained"):
        raise ArtefactError(
            f"{checkpoint} holds {trained.config.settings.model}; "
            f"export works for the methods of this package."
        )
    trained.model.save_pretrained(folder, merge)


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
    trained = load_data_and_model(checkpoint, **changes)
    if not hasattr(trained.model, "inspect_items"):
        raise ArtefactError(
            f"{checkpoint} holds {trained.config.settings.model}, which does not describe items; "
            f"inspect works for LCRec."
        )
    return trained.model.inspect_items(items)
