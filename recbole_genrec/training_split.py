"""The training split made anew: interactions by raw id, and models trained on them alone.

Nothing held out reaches these models: no gradient, no choice of the epoch, and neither the numbering nor the number of users and items
(all our choice, unpublished).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from recbole.utils.argument_list import dataset_arguments, evaluation_arguments
from torch import nn
from tqdm import tqdm

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.loaders import by_user_and_time, create_dataset, make_loaders
from recbole_genrec.runtime.randomness import kept_randomness
from recbole_genrec.settings.shared_keys import CARRIED, COSMETIC
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.storage.atomic import made_once, publish_folder
from recbole_genrec.storage.digests import read_bytes
from recbole_genrec.trainer import GenRecTrainer


def model_config(config, model: str, **values: object) -> GenRecConfig:
    """Settings of RecBole's ``model``: data, split, seed and device of ``config``, and ``values``."""
    carried = {key: value for key, value in config.plain().items() if key in CARRIED}
    carried["data_path"] = str(Path(carried["data_path"]).parent)
    carried["checkpoint_dir"] = config["cache_dir"]  # for the resume file
    return GenRecConfig(model, config["dataset"], config_dict={**carried, **values})


def settings_that_count(config: GenRecConfig) -> dict:
    """All settings of a :func:`model_config` that its vectors depend on besides the interactions."""
    data = {"cold_users", *dataset_arguments, *evaluation_arguments} - {"MAX_ITEM_LIST_LENGTH"}  # they act through the interactions
    return {key: value for key, value in config.plain().items() if key not in COSMETIC | data | {"dataset"}}


# --- interactions -------------------------------------------------------------------------------------------------------------------


def training_split(config):
    """RecBole's training split for a SASRec ``config``: all rows (prefix -> next item) before each user's held-out ones."""
    return make_loaders(config, create_dataset(config), grouped=False)[0]._dataset


def read_sequences(config) -> dict[str, list[str]]:
    """:func:`training_sequences` of the split that ``config`` describes, whatever its ``train_rows`` and history length.

    Random states of the caller stay as they are.
    """
    with kept_randomness():
        return training_sequences(training_split(model_config(config, "SASRec")))


def training_sequences(data) -> dict[str, list[str]]:
    """Raw item ids by raw user id, users sorted: the history of a user's first row, then the target of each row.

    Args:
        data: RecBole's training dataset with all its rows (not with ``train_rows: longest``, whose histories are cut).
    """
    rows = data.inter_feat[_by_user(data)]
    users = data.id2token(data.uid_field, rows[data.uid_field].numpy()).tolist()
    targets = data.id2token(data.iid_field, rows[data.iid_field].numpy()).tolist()
    histories, lengths = rows[_history_field(data)].numpy(), rows[data.item_list_length_field].tolist()
    sequences = {}
    for user, group in groupby(range(len(users)), key=users.__getitem__):
        own = list(group)
        start = data.id2token(data.iid_field, histories[own[0], : lengths[own[0]]]).tolist()
        sequences[str(user)] = start + [targets[row] for row in own]
    return sequences


def edges_only(data, sequences: dict[str, list[str]]):
    """The bipartite graph of ``sequences`` as a dataset: one row for each (user, item) pair, users and items numbered by raw id.

    Args:
        data: a sequential RecBole dataset, for fields and settings; none of its rows is taken over.
        sequences: raw item ids by raw user id.
    """
    users, items = sorted(sequences), sorted({item for sequence in sequences.values() for item in sequence})
    number = {item: row for row, item in enumerate(items, start=1)}
    pairs = [(row, number[item]) for row, user in enumerate(users, start=1) for item in dict.fromkeys(sequences[user])]
    columns = dict(zip((data.uid_field, data.iid_field), torch.tensor(pairs).unbind(1), strict=True))
    # no history: to a row whose history is one item long RecBole's inter_matrix would add an edge to this item
    columns |= {data.item_list_length_field: torch.zeros(len(pairs), dtype=torch.long)}
    columns |= {_history_field(data): torch.zeros(len(pairs), 1, dtype=torch.long)}
    copy = data.copy(Interaction(columns))
    padding = data.field2id_token[data.iid_field][0]
    tokens = {data.uid_field: np.array([padding, *users]), data.iid_field: np.array([padding, *items])}
    copy.field2id_token = {**data.field2id_token, **tokens}
    return copy


def only_trained_items(data):
    """A copy of the training dataset whose items are those of its rows, numbered by raw id, and whose rows are sorted by raw user id.

    RecBole numbers items by their first appearance in the whole file. Held-out interactions would thereby decide which random start an
    item gets and how many items the softmax has.
    """
    item, history = data.iid_field, _history_field(data)
    rows = data.inter_feat[_by_user(data)]
    ids = torch.cat([rows[item], rows[history].flatten()]).unique()
    ids = ids[ids > 0].numpy()
    tokens = data.id2token(item, ids).astype(str)
    order = np.argsort(tokens, kind="stable")
    number = torch.zeros(data.item_num, dtype=torch.long)
    number[torch.from_numpy(ids[order])] = torch.arange(1, len(ids) + 1)
    columns = {field: number[rows[field]] if field in (item, history) else rows[field] for field in rows.columns}
    copy = data.copy(Interaction(columns))
    copy.field2id_token = {**data.field2id_token, item: np.array([data.field2id_token[item][0], *tokens[order]])}
    return copy


def _history_field(data) -> str:
    return data.iid_field + data.config["LIST_SUFFIX"]


def _by_user(data) -> np.ndarray:
    """Order of the rows by raw user id and time."""
    _, rank = np.unique(data.field2id_token[data.uid_field].astype(str), return_inverse=True)
    return by_user_and_time(data, rank[data.inter_feat[data.uid_field].numpy()])


# --- models that are trained on it --------------------------------------------------------------------------------------------------


class _Trainer(GenRecTrainer):
    """One progress bar over all epochs, or some twenty lines in the log; keeps its curves out of the TensorBoard folder, which belongs to
    the run, and nothing but its resume file."""

    def train(self, rows, label: str, show_progress: bool) -> None:
        """Train on ``rows`` without validation; a training that was killed continues."""
        self.config["resume"] = self.resume_file.is_file()
        with tqdm(total=self.epochs, desc=label, disable=not show_progress, ncols=100) as self.bar:
            self.fit(rows, verbose=False)
        self.tensorboard.close()
        self.resume_file.unlink(missing_ok=True)

    def _save_checkpoint(self, *_, **__):
        pass

    def _train_epoch(self, *args, **options):
        loss = super()._train_epoch(*args, **options)
        shown = f"{self.history[-1]['loss'][0]:.4f}"
        self.bar.set_postfix(loss=shown)
        self.bar.update()
        if self.bar.disable and len(self.history) % -(-self.epochs // 20) == 0:
            self.logger.info(f"Collaborative vectors: epoch {len(self.history)} of {self.epochs}, loss {shown}")
        return loss

    def _add_train_loss_to_tensorboard(self, *_, **__):
        pass

    def _add_hparam_to_tensorboard(self, *_):
        pass


def trained_model(config, data, rows: TrainDataLoader, log: Callable[[str], None]) -> nn.Module:
    """The model of ``config``, trained from its seed on ``rows`` of ``data`` for all its epochs."""
    size = f"{len(data.inter_feat)} rows, {data.item_num - 1} items"
    log(f"Collaborative vectors: training {config['model']}, {config['epochs']} epochs on the training split, {size}.")
    init_seed(config["seed"], config["reproducibility"])
    model = config.model_class(config, data).to(config["device"])
    trainer = _Trainer(config, model)
    trainer.train(rows, f"{config['model']} vectors", config["show_progress"])
    first, last = (trainer.history[epoch]["loss"][0] for epoch in (0, -1))
    log(f"Collaborative vectors: loss {first:.4f} in the first epoch, {last:.4f} in the last.")
    return model


def stored_vectors(folder: Path, key: str, make: Callable[[], tuple[dict, dict]], log: Callable[[str], None]) -> tuple[dict, dict]:
    """Tensors and meta data that ``make()`` gives, kept in ``folder`` under ``key``; made by one process at a time.

    Raises:
        ArtefactError: the folder is damaged, or belongs to another key.
    """
    with made_once(folder, log) as missing:
        if missing:
            tensors, meta = make()
            with publish_folder(folder) as temporary:
                save_artefact(temporary, tensors, {"fingerprint": key, **meta})
            log(f"Collaborative vectors stored in {folder}.")
    if not missing:
        log(f"Collaborative vectors not trained again: reused from {folder}.")
    tensors, meta = load_artefact(folder)
    if meta.pop("fingerprint", None) != key:
        raise ArtefactError(f"{folder} was renamed or replaced: its vectors belong to other data or settings. Delete the folder.")
    return tensors, meta


# --- vectors made elsewhere ---------------------------------------------------------------------------------------------------------


def external_file(config, key: str) -> Path | None:
    """The file of vectors that ``key`` names, if it does.

    Raises:
        ConfigError: it does, without ``allow_external_cf: true``.
    """
    if not config[key]:
        return None
    file = Path(config[key]).expanduser()
    if not config["allow_external_cf"]:
        raise ConfigError(
            f"{key}: {file} holds vectors made elsewhere, perhaps from validation and test interactions. Leave {key} out to "
            "train them on the training split, or set allow_external_cf: true to use them unchecked."
        )
    return file


def read_vectors(file: Path) -> tuple[list[str], np.ndarray]:
    """``(raw ids, float32 [n, d])`` from lines ``id<TAB>v1 v2 ... vd`` (no header).

    Raises:
        DataError: names the first bad line.
    """
    vectors: dict[str, np.ndarray] = {}
    size = 0
    for number, line in enumerate(read_bytes(file).decode("utf-8", "replace").splitlines(), start=1):
        token, _, values = line.partition("\t")
        try:
            vector = np.array(values.split(), dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        size = size or len(vector)
        if not token or token in vectors or not len(vector) or len(vector) != size or not np.isfinite(vector).all():
            raise DataError(
                f"{file}, line {number}, id {token!r}: expected a new id, a tab and {size or 'some'} finite numbers, separated by spaces."
            )
        vectors[token] = vector
    if not vectors:
        raise DataError(f"{file} holds no vectors; expected lines of id, tab, numbers.")
    return list(vectors), np.stack(list(vectors.values()))
