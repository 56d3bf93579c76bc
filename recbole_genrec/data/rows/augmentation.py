"""RecBole's rows of prefixes and its leave-one-out split, without a Python loop over rows.

recbole/data/dataset/sequential_dataset.py: ``data_augmentation`` and recbole/data/dataset/
dataset.py: ``leave_one_out`` walk over all interactions one by one. The rows, their columns and
their order are the same here.

One thing differs: every model holds out the same interactions. A sequential model's first row is a
user's second interaction, so RecBole tests a general model on users of two interactions, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_genrec.data.rows.event_rows import EventRows, HistoryColumns
from recbole_genrec.data.rows.row_order import begins_user

HELD_OUT = {
    "valid_and_test": ("valid", "test"),
    "valid_only": ("valid",),
    "test_only": ("test",),
}
"""The parts that get a row of each user, in the order of time, by the value of ``LS``."""


class RowsAtOnce(Dataset):
    """What stands before RecBole's dataset so that rows are made and split all at once."""

    def data_augmentation(self) -> None:
        """As RecBole's."""
        method = super().data_augmentation
        if method.__func__ is SequentialDataset.data_augmentation:
            augment(self)
        else:
            method()

    def split_last(self, group_by: str, mode: str) -> list[Any]:
        """RecBole's leave-one-out split into training, validation and test.

        Args:
            group_by: the column whose values tell users apart.
            mode: a key of :data:`HELD_OUT`.
        """
        n_kept = 1 if self.config.settings.is_sequential else 2
        held_out = HELD_OUT[mode]
        training, *others = leave_out(
            self.inter_feat[group_by].numpy(), len(held_out), n_kept=n_kept
        )
        splits = {"train": training, **dict(zip(held_out, others, strict=True))}
        self._drop_unused_col()
        none = training[:0]
        parts = [splits.get(name, none) for name in ("train", "valid", "test")]
        return [self.copy(taken(self.inter_feat, rows)) for rows in parts]


def augment(dataset: Any) -> None:
    """Put one row for each item of a history but the first in the place of the interactions.

    Args:
        dataset: RecBole's sequential dataset, its columns as tensors.
    """
    dataset._aug_presets()
    dataset._check_field("uid_field", "time_field")
    dataset.sort(by=[dataset.uid_field, dataset.time_field], ascending=True)
    events = dataset.inter_feat
    width = dataset.config["MAX_ITEM_LIST_LENGTH"]
    target, start = prefixes(events[dataset.uid_field], width)
    length = target - start

    # The columns stand in RecBole's order.
    columns: dict[str, Tensor | None] = {}
    for name, values in events.interaction.items():
        columns[name] = values[target]
    columns[dataset.item_list_length_field] = length
    histories = {}
    for field in events:
        if field != dataset.uid_field:
            name = getattr(dataset, f"{field}_list_field")
            columns[name] = None
            histories[name] = events[field]
    rows = EventRows(HistoryColumns(columns, histories, start, length, width))
    dataset.inter_feat = rows[torch.arange(len(rows))]


def prefixes(users: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The rows of sorted interactions.

    Args:
        users: user of each interaction ``[n]``; those of a user follow each other.
        width: most items of a history.

    Returns:
        For each row the place of its target and that of the first item of its history ``[rows]``.
    """
    places = torch.arange(len(users))
    begins = begins_user(users)
    first = places[begins][begins.cumsum(0) - 1]  # of each interaction's user
    target = places[~begins]
    return target, torch.maximum(first[target], target - width)


def taken(rows: Interaction, index: Tensor) -> Interaction:
    """Rows by their numbers; RecBole's own makes a list of Python numbers first."""
    if isinstance(rows, EventRows):
        return rows[index]
    return Interaction({name: values[index] for name, values in rows.interaction.items()})


def leave_out(users: np.ndarray, n_held_out: int, n_kept: int = 1) -> list[Tensor]:
    """The rows that are for training, and the last of each user one by one.

    Users stand in the order of their first rows.

    Args:
        users: user of each row ``[n]``.
        n_held_out: rows of a user that are held out, where there are enough.
        n_kept: rows that each user keeps for training, where there are as many.

    Returns:
        Row numbers of the ``n_held_out + 1`` splits.
    """
    _, first, user, count = np.unique(
        users, return_index=True, return_inverse=True, return_counts=True
    )
    by_user = np.argsort(first[user.reshape(-1)], kind="stable")
    order = np.argsort(first, kind="stable")
    sizes = count[order]
    from_end = np.repeat(sizes.cumsum(), sizes) - np.arange(len(users))  # the last row has 1
    held_out = np.repeat((sizes - n_kept).clip(0, n_held_out), sizes)
    splits = [by_user[from_end > held_out]]
    for place in range(n_held_out, 0, -1):
        splits.append(by_user[(from_end == place) & (held_out >= place)])
    return [torch.from_numpy(rows) for rows in splits]
