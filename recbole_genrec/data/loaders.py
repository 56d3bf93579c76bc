"""RecBole's data loaders, with fewer training rows and batches of similar length."""

from __future__ import annotations

from logging import INFO, WARNING, getLogger
from pathlib import Path

import numpy as np
import torch
from recbole.data import data_preparation
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.utils import ModelType

from recbole_genrec.data.dataset import create_dataset, refuse_pickle
from recbole_genrec.data.evaluation_rows import RowLoader, rows_are_interactions
from recbole_genrec.data.histories import excluding
from recbole_genrec.data.loader_dataset import dataset_of
from recbole_genrec.data.sampled_candidates import draw_same_candidates
from recbole_genrec.data.training_rows import (
    LengthGroupedLoader,
    TargetLoader,
    WindowLoader,
    check_growing,
    row_mask,
    training_rows,
)
from recbole_genrec.errors import ConfigError, DataError, explained
from recbole_genrec.runtime.logs import without_recbole_settings

__all__ = [
    "LengthGroupedLoader",
    "WindowLoader",
    "by_user_and_time",
    "cold_users",
    "create_dataset",
    "drawn_rows",
    "make_loaders",
    "part_of",
    "row_mask",
    "seen_and_unseen",
    "training_data",
]


MANY_DROPPED = 0.1
"""Share of dropped training targets from which the log warns (our choice)."""


def by_user_and_time(data, users: np.ndarray | None = None) -> np.ndarray:
    """Order of the rows (prefix -> next item) of a split by user, oldest target first.

    RecBole's leave-one-out split has that order; splits by ratio over all users and files of
    ``benchmark_filename`` need not.

    Args:
        data: a part of a sequential split.
        users: what to sort users by, one entry a row; default their first row.
    """
    rows = data.inter_feat
    if users is None:
        _, first, number = np.unique(
            rows[data.uid_field].numpy(), return_index=True, return_inverse=True
        )
        users = first[number]
    keys = [data.item_list_length_field]
    if data.time_field in rows:
        keys.append(data.time_field)
    return np.lexsort([*(rows[key].numpy() for key in keys), users])


def make_loaders(config, dataset, grouped: bool, evaluated: bool = True):
    """``(train, valid, test)`` loaders of RecBole.

    Without ``hold_out`` there is nothing to validate or test: the last two are ``None``. So is the
    second when ``eval_step`` is 0 and the split has no validation part.

    After ``train_rows``, ``batch_targets``, ``cold_users``, ``group_by_length`` and
    ``valid_users``.

    Args:
        config: settings of the run.
        dataset: from :func:`create_dataset`.
        grouped: whether the model is one of ours, which may get batches of similar length.
        evaluated: whether the parts for validation and test are needed.

    Raises:
        DataError: RecBole cannot split the data, or a part that is needed is empty.
        ConfigError: settings that cannot go together on this data.
    """
    split = _prepared(config, dataset)
    train, valid, test = split
    for part in (valid, test):
        draw_same_candidates(part, config.settings.seed)
    if rows_are_interactions(config):
        valid = RowLoader(config, dataset_of(valid), valid._sampler)
        test = RowLoader(config, dataset_of(test), test._sampler)
    train = _training_loader(config, train, dataset_of(test), grouped)

    if config.settings.hold_out is False:
        valid = None
        test = None
    elif not config.settings.eval_step and not len(dataset_of(valid)):
        valid = None
    needed = {"training": train}
    if evaluated:
        needed |= {"validation": valid, "test": test}
    for name, loader in needed.items():
        if loader is not None:
            _check_filled(config, name, dataset_of(loader))

    if config.settings.exclude_history and test is not None:
        excluding_valid, test = excluding(config, split)
        if valid is not None:
            valid = excluding_valid
    return train, _validation_loader(config, valid), test


def training_data(config, dataset):
    """All rows of the training split as RecBole's dataset, whatever ``train_rows`` chooses.

    Args:
        config: settings of the run.
        dataset: from :func:`create_dataset`.

    Raises:
        DataError: RecBole cannot split the data, or there are no such rows.
        ConfigError: settings that cannot go together on this data.
    """
    train, _, test = _prepared(config, dataset)
    data = _without_cold_users(config, dataset_of(train), dataset_of(test))
    _check_filled(config, "training", data)
    return data


def _prepared(config, dataset) -> tuple:
    """RecBole's loaders."""
    file = (
        Path(config.settings.checkpoint_dir)
        / f"{config.settings.dataset}-for-{config.settings.model}-dataloader.pth"
    )
    if file.exists():
        refuse_pickle(file)
    _check_histories(config, dataset)
    hint = "RecBole cannot split it; check eval_args."
    with explained(config.settings.dataset, hint, DataError), without_recbole_settings():
        return data_preparation(config, dataset)


def _check_filled(config, name: str, data) -> None:
    """Refuse a part of the split without rows."""
    if not len(data):
        raise DataError(
            f"The {name} split of {config.settings.dataset} is empty under split "
            f"{config.settings.eval_args['split']}. Leave-one-out (LS: valid_and_test) needs "
            "users with three or more interactions; four or more give each a training, a "
            "validation and a test step. --eval_step=0 trains without a validation part, "
            "--hold_out=False on every interaction."
        )


def _check_histories(config, dataset) -> None:
    """Refuse data in which nobody has a history, of which RecBole makes no rows at all.

    Raises:
        DataError: a sequential model, and no user has more than one interaction.
    """
    settings = config.settings
    if settings.MODEL_TYPE != ModelType.SEQUENTIAL or settings.benchmark_filename is not None:
        return
    users = np.asarray(dataset.inter_feat[dataset.uid_field])
    if len(users) and np.bincount(users).max() == 1:
        raise DataError(
            f"Each user of {settings.dataset} has one interaction, so no history leads to a next "
            f"item. {settings.model} needs users with four or more. Is "
            f"USER_ID_FIELD: {dataset.uid_field} the column of the users, or that of orders?"
        )


def _training_loader(config, train, test_data, grouped: bool):
    """RecBole's training loader, or ours with fewer rows or with batches of similar length."""
    settings = config.settings
    every = _without_cold_users(config, dataset_of(train), test_data)
    data = every
    rows = training_rows(config)
    if rows != "all":
        data = data.copy(data.inter_feat[by_user_and_time(data)])
        check_growing(config, data)
    keep = row_mask(data.inter_feat[data.uid_field], rows, settings.MAX_ITEM_LIST_LENGTH)
    if rows == "longest":
        _log_dropped(keep, data.inter_feat[settings.ITEM_LIST_LENGTH_FIELD][keep])
    if rows != "all" and settings.batch_targets:
        train = TargetLoader(config, data, train._sampler, settings.shuffle, rows)
    elif rows == "windows":
        windows = torch.nonzero(keep).flatten()
        train = WindowLoader(config, data, train._sampler, settings.shuffle, windows)
    elif grouped or settings.cold_users or rows == "longest":
        by_length = grouped and settings.group_by_length
        loader = LengthGroupedLoader if by_length else TrainDataLoader
        if rows != "all":
            data = data.copy(data.inter_feat[keep])
        train = loader(config, data, train._sampler, shuffle=settings.shuffle)
    train.counted = every  # for metrics of popularity
    return train


def _without_cold_users(config, data, test_data):
    """The training split without the users whom ``cold_users`` keeps out."""
    settings = config.settings
    if not settings.cold_users:
        return data
    if settings.hold_out is False:
        raise ConfigError(
            "cold_users keeps users out of training to test them, and hold_out: False trains on "
            "everything. Leave one of them out."
        )
    is_cold = cold_users(config, test_data)[data.inter_feat[data.uid_field]]
    return data.copy(data.inter_feat[~is_cold])


def _log_dropped(keep: torch.Tensor, lengths: torch.Tensor) -> None:
    """Say how many targets the longest rows leave out.

    Args:
        keep: which rows stay, bool ``[rows]``.
        lengths: items of the histories that stay.
    """
    dropped = len(keep) - int(lengths.sum())
    level = WARNING if dropped > MANY_DROPPED * len(keep) else INFO
    getLogger().log(
        level,
        f"train_rows longest: {dropped:,} of {len(keep):,} training targets "
        f"({dropped / max(1, len(keep)):.1%}) lie beyond MAX_ITEM_LIST_LENGTH and are dropped "
        "(train_rows windows keeps them).",
    )


def _validation_loader(config, valid):
    """The validation loader, of ``valid_users`` users drawn with the seed where that key is set."""
    if valid is None:
        return None
    settings = config.settings
    data = dataset_of(valid)
    users = settings.valid_users or 0
    ranks_sequences = settings.MODEL_TYPE == ModelType.SEQUENTIAL and isinstance(
        valid, FullSortEvalDataLoader
    )
    if not 0 < users < len(data) or not ranks_sequences:
        return valid
    return part_of(config, valid, drawn_rows(len(data), users, settings.seed))


def drawn_rows(n_rows: int, count: int, seed: int) -> torch.Tensor:
    """Numbers of rows, drawn with the seed and ascending, int64 ``[count]``."""
    drawn = np.random.default_rng(seed).choice(n_rows, count, replace=False)
    return torch.from_numpy(np.sort(drawn))


def part_of(config, loader, rows: torch.Tensor):
    """An evaluation loader of some rows of another one.

    Args:
        config: settings of the run.
        loader: of an evaluation.
        rows: numbers int64 ``[n]``, or which rows, bool ``[rows of the loader]``.
    """
    data = dataset_of(loader)
    subset = data.copy(data.inter_feat[rows])
    return type(loader)(config, subset, loader._sampler, shuffle=False)


def cold_users(config, data) -> torch.Tensor:
    """Whom the key ``cold_users`` keeps out of training, bool ``[n_users]``.

    That share of the users in ``data``, drawn with the seed.

    Their rows leave the training split before anything is learned from it; validation and test keep
    them. The draw goes by raw id, so it does not depend on the order of the file.

    Args:
        config: settings of the run.
        data: RecBole's test dataset.

    Raises:
        ConfigError: a model that knows users by their ids alone.
    """
    if config.settings.MODEL_TYPE != ModelType.SEQUENTIAL:
        raise ConfigError(
            f"cold_users: {config.settings.model} knows users by their ids alone; use a sequential "
            "model, or cold_users: 0."
        )
    users = data.inter_feat[data.uid_field].unique().numpy()
    users = users[np.argsort(data.field2id_token[data.uid_field].astype(str)[users])]
    count = max(1, round(config.settings.cold_users * len(users)))
    chosen = torch.zeros(data.user_num, dtype=torch.bool)
    chosen[np.random.default_rng(config.settings.seed).choice(users, count, replace=False)] = True
    return chosen


def seen_and_unseen(config, loader) -> dict:
    """A test loader's users as two loaders.

    Those in training, and those whom ``cold_users`` kept out.
    """
    data = dataset_of(loader)
    unseen = cold_users(config, data)[data.inter_feat[data.uid_field]]
    return {
        "seen": part_of(config, loader, ~unseen),
        "unseen": part_of(config, loader, unseen),
    }
