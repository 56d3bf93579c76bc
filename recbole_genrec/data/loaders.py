"""RecBole's data loaders, with fewer training rows and batches of similar length."""

from __future__ import annotations

from logging import INFO, WARNING, getLogger
from pathlib import Path

import numpy as np
import torch
from recbole.data import data_preparation
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader

from recbole_genrec.data.dataset import create_dataset, refuse_pickle
from recbole_genrec.data.histories.evaluated_histories import excluding
from recbole_genrec.data.rows.cold_users import without_cold_users
from recbole_genrec.data.rows.evaluation_rows import RowLoader, rows_are_interactions
from recbole_genrec.data.rows.loader_dataset import dataset_of, drawn_rows, part_of
from recbole_genrec.data.rows.row_order import by_user_and_time
from recbole_genrec.data.rows.sampled_candidates import draw_same_candidates
from recbole_genrec.data.rows.training_rows import (
    LengthGroupedLoader,
    TargetLoader,
    WindowLoader,
    check_growing,
    row_mask,
    training_rows,
)
from recbole_genrec.errors import DataError, explained
from recbole_genrec.runtime.logs import without_recbole_settings

__all__ = ["create_dataset", "make_loaders", "training_data"]

MANY_DROPPED = 0.1
"""Share of dropped training targets from which the log warns (our choice)."""


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
    data = without_cold_users(config, dataset_of(train), dataset_of(test))
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
    if not settings.is_sequential or settings.benchmark_filename is not None:
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
    every = without_cold_users(config, dataset_of(train), test_data)
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
    ranks_sequences = settings.is_sequential and isinstance(valid, FullSortEvalDataLoader)
    if not 0 < users < len(data) or not ranks_sequences:
        return valid
    return part_of(config, valid, drawn_rows(len(data), users, settings.seed))
