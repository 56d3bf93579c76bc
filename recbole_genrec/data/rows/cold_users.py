"""Users whom ``cold_users`` keeps out of training, to test how a model serves strangers."""

from __future__ import annotations

import numpy as np
import torch

from recbole_genrec.data.rows.loader_dataset import dataset_of, part_of
from recbole_genrec.errors import ConfigError


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
    if not config.settings.is_sequential:
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


def without_cold_users(config, data, test_data):
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
