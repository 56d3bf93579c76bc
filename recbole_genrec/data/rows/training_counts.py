"""Which items the training split names, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_genrec.data.ids import history_column
from recbole_genrec.data.rows.row_order import begins_user, by_user_and_time


def training_counts(data: Any) -> dict[int, int]:
    """Training interactions of each item, the same for all models.

    A sequential model's rows lack the first event of each user: it stands in the first history.

    Args:
        data: RecBole's training dataset with all its rows.
    """
    rows = data.inter_feat
    items = [rows[data.iid_field].numpy()]
    history = history_column(data.config)
    if history in rows:
        users = rows[data.uid_field].numpy()
        order = by_user_and_time(data, users)
        first = order[begins_user(users[order])]
        items.append(rows[torch.from_numpy(first)][history].numpy().reshape(-1))
    counts = np.bincount(np.concatenate(items))
    return {int(item): int(counts[item]) for item in np.flatnonzero(counts) if item}


def items_in_training(dataset: Any) -> Tensor:
    """Which items a training interaction names, bool ``[n_items]``.

    Args:
        dataset: RecBole's training dataset of a sequential model, with all its rows.
    """
    rows = dataset.inter_feat
    is_trained = torch.zeros(dataset.item_num, dtype=torch.bool)
    is_trained[rows[dataset.iid_field]] = True
    is_trained[rows[history_column(dataset.config)].flatten()] = True
    is_trained[0] = False  # the padding item
    return is_trained
