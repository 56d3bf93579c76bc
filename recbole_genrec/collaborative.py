"""Collaborative item vectors and item sequences, both from the training split alone.

The vectors are the item embeddings of RecBole's SASRec, as in LETTER (arXiv 2405.07314, section 3.1). Nothing held out reaches them: no
gradient, no choice of the epoch, and neither the numbering nor the number of items (all our choice, unpublished).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from recbole.utils.argument_list import dataset_arguments, evaluation_arguments, general_arguments

from recbole_genrec.compat import rng_state, set_rng_state
from recbole_genrec.config import COMPUTED, COSMETIC, GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.files import digest, load_artefact, made_once, publish_folder, save_artefact
from recbole_genrec.loaders import create_dataset, make_loaders
from recbole_genrec.trainer import GenRecTrainer

SETTINGS = ("cf_dim", "cf_epochs", "cf_file", "allow_external_cf")
# What the model of the vectors takes over from the run: data, split, seed and device, nothing of the run's own model. Not its history
# length either, so that generators with different ones share the codes.
CARRIED = {*dataset_arguments, *evaluation_arguments, *general_arguments} - COMPUTED - {"config_file", "log_wandb", "MAX_ITEM_LIST_LENGTH"}


class TrainingInteractions:
    """What a tokenizer may learn from interactions: sequences and collaborative vectors of the training split of ``config``.

    The split is made anew from the settings, with all rows, whatever ``train_rows`` the run uses. Everything is keyed by raw ids.
    Nothing is read before it is asked for. Random states and log handlers of the caller stay as they are.

    Args:
        config: the run's ``GenRecConfig``; reads ``cf_dim``, ``cf_epochs``, ``cf_file``, ``allow_external_cf``, ``cache_dir``.
        log: takes one line of text.

    Raises:
        ConfigError: ``cf_file`` is given without ``allow_external_cf: true``.
    """

    def __init__(self, config, log: Callable[[str], None] = print):
        self.settings = {key: config[key] for key in SETTINGS}
        self.file = Path(self.settings["cf_file"]).expanduser() if self.settings["cf_file"] else None
        if self.file and not self.settings["allow_external_cf"]:
            raise ConfigError(
                f"cf_file: {self.file} holds vectors made elsewhere, perhaps from validation and test interactions. Leave cf_file out to "
                "train them on the training split, or set allow_external_cf: true to use them unchecked."
            )
        self.run_config, self.log = config, log

    @cached_property
    def config(self) -> GenRecConfig:
        """Settings of the model that gives the vectors."""
        return sasrec_config(self.run_config, self.settings["cf_dim"], self.settings["cf_epochs"])

    @cached_property
    def sequences(self) -> dict[str, list[str]]:
        """Raw item ids of every user's training interactions, oldest first; users sorted by raw id."""
        with kept_randomness():
            return training_sequences(training_split(self.config))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of (user, item sequence) of the training split and of all that the vectors depend on besides."""
        if self.file:
            return digest(self.sequences, hashlib.sha256(_read(self.file)).hexdigest())
        data = {*dataset_arguments, *evaluation_arguments} - {"MAX_ITEM_LIST_LENGTH"}  # they act through the sequences
        settings = {key: value for key, value in self.config.plain().items() if key not in COSMETIC | data | {"dataset"}}
        return digest(self.sequences, settings)

    def vectors(self) -> tuple[list[str], np.ndarray]:
        """``(raw item ids, float32 [n, d])`` of the items that occur in the training split: stored, or trained now and stored.

        With ``cf_file``: the items and vectors of that file.

        Raises:
            ArtefactError: the stored vectors are damaged.
            DataError: the dataset or ``cf_file`` cannot be used.
        """
        if self.file:
            self.log(f"WARNING: collaborative vectors come from {self.file}; whether they saw held-out interactions is unchecked.")
            return read_vectors(self.file)
        folder = Path(self.run_config["cache_dir"]) / f"cf-{self.fingerprint}"
        with made_once(folder, self.log) as missing:
            if missing:
                tokens, vectors = self._train()
                with publish_folder(folder) as temporary:
                    meta = {"fingerprint": self.fingerprint, "tokens": tokens, **self.settings}
                    save_artefact(temporary, {"vectors": torch.from_numpy(vectors)}, meta)
                self.log(f"Collaborative vectors stored in {folder}.")
        if not missing:
            self.log(f"Collaborative vectors not trained again: reused from {folder}.")
        tensors, meta = load_artefact(folder)
        if meta.get("fingerprint") != self.fingerprint:
            raise ArtefactError(f"{folder} was renamed or replaced: its vectors belong to other data or settings. Delete the folder.")
        return meta["tokens"], tensors["vectors"].numpy()

    def _train(self) -> tuple[list[str], np.ndarray]:
        config = self.config
        with kept_randomness():
            data = only_trained_items(training_split(config))
            self.log(
                f"Collaborative vectors: training SASRec (d = {config['hidden_size']}, {config['epochs']} epochs) on the training split, "
                f"{len(data.inter_feat)} rows, {data.item_num - 1} items."
            )
            init_seed(config["seed"], config["reproducibility"])
            model = config.model_class(config, data).to(config["device"])
            trainer = _Trainer(config, model)
            rows = TrainDataLoader(config, data, None, shuffle=True)
            config["resume"] = trainer.resume_file.is_file()
            trainer.fit(rows, verbose=False, show_progress=config["show_progress"])
            trainer.tensorboard.close()
            trainer.resume_file.unlink(missing_ok=True)
        first, last = (trainer.history[epoch]["loss"][0] for epoch in (0, -1))
        self.log(f"Collaborative vectors: loss {first:.4f} in the first epoch, {last:.4f} in the last.")
        return list(data.field2id_token[data.iid_field][1:].tolist()), model.item_embedding.weight[1:].detach().cpu().numpy()


class _Trainer(GenRecTrainer):
    """Keeps its curves out of the TensorBoard folder, which belongs to the run, and nothing but its resume file."""

    def _save_checkpoint(self, *_, **__):
        pass

    def _add_train_loss_to_tensorboard(self, *_, **__):
        pass

    def _add_hparam_to_tensorboard(self, *_):
        pass


def sasrec_config(config, dim: int, epochs: int) -> GenRecConfig:
    """Settings of RecBole's SASRec with hidden size ``dim`` on the data, split, seed and device of ``config``."""
    values = {key: value for key, value in config.plain().items() if key in CARRIED}
    values["data_path"] = str(Path(values["data_path"]).parent)
    values |= {"hidden_size": dim, "inner_size": 4 * dim, "n_heads": 2 if dim % 2 == 0 else 1, "loss_type": "CE"}
    values |= {"checkpoint_dir": config["cache_dir"]}  # for the resume file
    values |= {"epochs": epochs, "learner": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "train_batch_size": 512}
    return GenRecConfig("SASRec", config["dataset"], config_dict=values)


def training_split(config):
    """RecBole's training split for a SASRec ``config``: all rows (prefix -> next item) before each user's held-out ones."""
    return make_loaders(config, create_dataset(config), grouped=False)[0]._dataset


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
    """Order of the rows by raw user id; rows of one user keep their order, which is that of time."""
    users = data.inter_feat[data.uid_field].numpy()
    return np.argsort(data.field2id_token[data.uid_field].astype(str)[users], kind="stable")


@contextlib.contextmanager
def kept_randomness() -> Iterator[None]:
    """Give the caller's random states back at the end."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"cf_file: {file} cannot be read ({error.strerror}).") from error


def read_vectors(file: Path) -> tuple[list[str], np.ndarray]:
    """``(raw item ids, float32 [n, d])`` from lines ``item_id<TAB>v1 v2 ... vd`` (no header).

    Raises:
        DataError: names the first bad line.
    """
    vectors: dict[str, np.ndarray] = {}
    size = 0
    for number, line in enumerate(_read(file).decode("utf-8", "replace").splitlines(), start=1):
        token, _, values = line.partition("\t")
        try:
            vector = np.array(values.split(), dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        size = size or len(vector)
        if not token or token in vectors or not len(vector) or len(vector) != size or not np.isfinite(vector).all():
            raise DataError(
                f"{file}, line {number}, item {token!r}: expected a new item id, a tab and {size or 'some'} finite numbers, "
                "separated by spaces."
            )
        vectors[token] = vector
    if not vectors:
        raise DataError(f"{file} holds no vectors; expected lines of item id, tab, numbers.")
    return list(vectors), np.stack(list(vectors.values()))
