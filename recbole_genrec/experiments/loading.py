"""Loading a checkpoint: with its data split as in its run, or alone, to serve people."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import EventHistories, buyers, chosen_items, histories
from recbole_genrec.data.histories.plain_histories import plain_histories
from recbole_genrec.data.ids import check_same_ids, raw_ids
from recbole_genrec.data.inter_files import interaction_files
from recbole_genrec.data.items.cold_items import items_without_interactions
from recbole_genrec.data.items.item_text import PLACEHOLDER, texts_of
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.numbering import KnownData, is_numbered_by
from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.errors import ArtefactError
from recbole_genrec.experiments.ensemble_file import is_ensemble
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.opened import Opened
from recbole_genrec.experiments.other_pasts import sentence_about_other_pasts
from recbole_genrec.experiments.recbole_lists import RecBoleLists
from recbole_genrec.experiments.served import Served
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.model.registry import is_generative
from recbole_genrec.storage.backbone_files import stand_in
from recbole_genrec.storage.checkpoints import load_state
from recbole_genrec.training.trainer import GenRecTrainer
from recbole_genrec.training.trainer_class import get_trainer_class


class _WithoutOptimiser:
    """What goes before a trainer that tests alone: the one of the training may not run here."""

    def _build_optimizer(self, **kwargs: Any) -> None:
        pass


class Trained(NamedTuple):
    """A trained model and its data.

    Attributes:
        config: the settings of its run, with the changes asked for.
        model: the model in evaluation mode, on its device. It knows the items of its checkpoint,
            and new ones of the data that could be added without training.
        dataset: RecBole's dataset; users and items have the numbers of the checkpoint.
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

    def evaluator(self) -> GenRecTrainer:
        """A trainer that tests the model; it knows the counts of the training split."""
        stock = get_trainer_class(self.config.model_class, self.config.settings.model)
        trainer_class = type(f"Testing{stock.__name__}", (_WithoutOptimiser, stock), {})
        with (
            tempfile.TemporaryDirectory() as folder,  # RecBole makes the one of the training
            _other_values(self.config, checkpoint_dir=folder, ema_decay=0.0),
        ):
            trainer = trainer_class(self.config, self.model)
        trainer.tensorboard.close()  # a test has no curves
        trainer.eval_collector.data_collect(self.train)  # as fit does
        return trainer


def load_data_and_model(
    checkpoint: str, model_class: type | str | None = None, **changes: Any
) -> Trained:
    """Load a checkpoint of ours and its data; nothing is trained and no stage runs again.

    Args:
        checkpoint: the ``.pth`` file beside the result file, the folder of an export, or its hub
            id.
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
    return restored(Opened.of(checkpoint, model_class, changes))


def restored(opened: Opened) -> Trained:
    """The data and the model of a checkpoint; errors as of :func:`load_data_and_model`."""
    state = opened.state
    with opened.explained():
        config = opened.config()
        dataset = create_dataset(config, state["ids"])
        generative = is_generative(config.model_class)
        bought = histories(dataset)
        train, valid, test = make_loaders(config, dataset, generative)
        if generative:
            model = _model_of_ours(config, dataset_of(train), state)
            take_in_new_items(config, model, dataset, bought, state["ids"])
            model.histories = bought
        else:
            model = _recbole_model(config, dataset_of(train), state)
    sentence = sentence_about_other_pasts(config, state, bought)
    if sentence:
        logging.getLogger().warning(f"{opened.path}: {sentence}")
    model = model.to(config.settings.device).eval()
    return Trained(config, model, dataset, train, valid, test)


def _model_of_ours(
    config: GenRecConfig, dataset: Dataset | None, state: dict[str, Any]
) -> GenRecModel:
    """The model of a checkpoint; a language model that it holds whole needs no folder."""
    backbone = config.settings.backbone
    files = (state.get("other_parameter") or {}).get("backbone_files")
    if not files or Path(str(backbone)).expanduser().is_dir():
        return config.model_class.from_checkpoint(config, dataset, state)
    with stand_in(files) as folder, _other_values(config, backbone=folder):
        return config.model_class.from_checkpoint(config, dataset, state)


@contextlib.contextmanager
def _other_values(config: GenRecConfig, **values: Any) -> Iterator[None]:
    """Other values of some keys, for the time of the block."""
    before = {name: config[name] for name in values}
    for name, value in values.items():
        config[name] = value
    try:
        yield
    finally:
        for name, value in before.items():
            config[name] = value


def load_model(
    checkpoint: str,
    model_class: type | str | None = None,
    with_data: bool = True,
    **changes: Any,
) -> Served:
    """Load a checkpoint to recommend with it; the files of its dataset need not be there.

    The items are those of the checkpoint. Where the files are there, histories come from them, and
    new items of theirs are added without training, or left out with a count.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        model_class: as in :func:`load_data_and_model`.
        with_data: False: the files of the dataset are not looked at, and the items are those of
            the checkpoint alone.
        **changes: settings to replace.

    Raises:
        ArtefactError: the file is damaged, or holds a model of RecBole.
    """
    served = load_recommender(checkpoint, model_class, with_data=with_data, **changes)
    if not isinstance(served.model, GenRecModel):
        name = served.config.settings.model
        raise ArtefactError(
            f"{checkpoint} holds RecBole's {name}; this works for the methods of this package."
        )
    return served


def load_recommender(
    checkpoint: str,
    model_class: type | str | None = None,
    users: Sequence[str] | None = None,
    with_data: bool = True,
    **changes: Any,
) -> Served:
    """Load a checkpoint of any model to recommend with it.

    One of ours needs no data, see :func:`load_model`; one of RecBole needs the files of its
    dataset, and its sequential models take users of a later day, too.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        model_class: as in :func:`load_data_and_model`.
        users: raw ids of the users whose histories are needed, which saves reading those of the
            others; default all.
        with_data: as in :func:`load_model`, for models of this package.
        **changes: settings to replace.

    Returns:
        What :func:`load_model` does; of RecBole's models ``model`` is a
        :class:`~recbole_genrec.experiments.recbole_lists.RecBoleLists`, and of an ensemble an
        :class:`~recbole_genrec.experiments.ensemble_lists.EnsembleLists`.
    """
    checkpoint = local_checkpoint(checkpoint)
    if is_ensemble(checkpoint):
        from recbole_genrec.experiments.ensemble_lists import EnsembleLists  # loads its members

        return EnsembleLists.load(checkpoint, model_class, **changes)
    opened = Opened.of(checkpoint, model_class, changes)
    state = opened.state
    with opened.explained():
        config = opened.config()
        if not is_generative(config.model_class):
            model = _lists_of_recbole(config, state)
            return Served(config, model, model.histories)
        model = _model_of_ours(config, None, state)
        bought = None
        has_data = all(file.is_file() for file in interaction_files(config))
        if with_data and has_data:
            bought = _histories_for(config, model, state, users)
        elif with_data:
            logging.getLogger().info(
                f"The files of {config.settings.dataset} are not in {config.settings.data_path}; "
                "the checkpoint is used alone."
            )
    model.histories = bought
    return Served(config, model.to(config.settings.device).eval(), bought)


def _histories_for(
    config: GenRecConfig,
    model: GenRecModel,
    state: dict[str, Any],
    users: Sequence[str] | None,
) -> EventHistories:
    """Histories of the data, whose new items the model takes in.

    Args:
        config: a ``GenRecConfig``.
        model: is changed.
        state: the content of the checkpoint.
        users: those who are needed; ``None`` = all.
    """
    plain = plain_histories(config, state["ids"], users)
    if plain is not None:
        items = state["ids"]["items"]
        _note_items(config, model, items[1:], plain.items)
        return plain.histories
    dataset = create_dataset(config, state["ids"])
    bought = histories(dataset)
    take_in_new_items(config, model, dataset, bought, state["ids"])
    return bought


def take_in_new_items(
    config: GenRecConfig,
    model: GenRecModel,
    dataset: Dataset,
    bought: EventHistories,
    ids: dict[str, list[str]],
    begins: bool = False,
) -> list[str]:
    """Add the items that the dataset has and the model lacks.

    Args:
        config: a ``GenRecConfig``.
        model: is changed.
        dataset: RecBole's dataset, before or after its loaders were made.
        bought: raw item ids of each user.
        ids: those of the checkpoint. Its users alone say where an item belongs: the model has
            learned nothing of the others, even where the dataset numbers them.
        begins: whether a training begins, which takes items without a text as every training does.

    Returns:
        Raw ids of the items that stay out.
    """
    items = raw_ids(dataset)["items"][1:]
    new = _note_items(config, model, items, chosen_items(bought))
    if not new:
        return []
    users_of = buyers(bought, new)
    trained = set(ids["users"])
    users = []
    for item in new:
        users.append([user for user in users_of[item] if user in trained])
    texts, titles = texts_of(config, new)
    if begins:
        texts = [text or PLACEHOLDER for text in texts]
    return model.take_in(texts, new, titles, users)


def _note_items(
    config: GenRecConfig, model: GenRecModel, items: Sequence[str], present: set[str]
) -> list[str]:
    """Tell the model, and the log, which items the data has.

    Args:
        config: a ``GenRecConfig``.
        model: is changed.
        items: raw ids of the items of the data, and of those that a checkpoint had numbered.
        present: raw ids of those that someone chose.

    Returns:
        Raw ids of the items that the model lacks.
    """
    model.catalogue.chosen = present
    model.catalogue.without_interactions = set(items_without_interactions(config, set(items)))
    known = set(model.item_tokens)
    gone = [item for item in items if item in known and item not in present]
    if gone:
        log = logging.getLogger()
        tell = log.warning if len(gone) > len(known) / 2 else log.info
        tell(
            f"{len(gone)} of {len(known)} items of the model have no interaction in the data, for "
            f"example {gone[0]!r}; they stay in the lists unless candidates (--candidate_file) "
            "leave them out."
        )
    return [item for item in items if item not in known]


def _lists_of_recbole(config: GenRecConfig, state: dict[str, Any]) -> RecBoleLists:
    """A model of RecBole that makes lists of the users of the data.

    A sequential model reads histories alone, so items and users that came later do no harm.
    """
    dataset = create_dataset(config, state["ids"])
    bought = histories(dataset)
    ids = state["ids"]
    if config.settings.is_sequential and is_numbered_by(dataset, ids):
        data: Any = KnownData(dataset, ids)
        sentence = left_out_sentence(ids, bought)
        if sentence:
            logging.getLogger().warning(sentence)
    else:
        data = dataset_of(make_loaders(config, dataset, False, evaluated=False)[0])
    model = _recbole_model(config, data, state).to(config.settings.device).eval()
    return RecBoleLists(config, model, ids, bought, state.get("histories"))


def left_out_sentence(ids: dict[str, list[str]], bought: EventHistories) -> str | None:
    """How many items of the data a model of RecBole does not know; ``None`` where it knows all."""
    new = chosen_items(bought).difference(ids["items"])
    if not new:
        return None
    return (
        f"{len(new)} items of the data are unknown to the model, for example {min(new)!r}; they "
        "are in no list and do not count in histories. Train again to have them."
    )


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
