"""Whole histories of evaluated rows: what ``exclude_history`` leaves out of the lists.

RecBole's rows hold the last ``MAX_ITEM_LIST_LENGTH`` items. Here all items are kept that a user had
before the row, in training and validation too: for a sequential model everything before the row's
event, for a general model, whose row is a user, everything in the splits before.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch.nn.utils.rnn import pad_sequence

from recbole_genrec.data.histories.seen_items import SeenItems
from recbole_genrec.data.ids import WHOLE_HISTORY, history_column
from recbole_genrec.data.rows.evaluation_rows import RowLoader, rows_are_interactions
from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.data.rows.row_order import begins_user, order_of_rows
from recbole_genrec.errors import ConfigError

EXCLUDED = "excluded_items"
"""Column of a batch: item ids ``[B, H]`` that the row must not get, 0 = none."""

END = "history_end"
"""Column of a split: how many of its user's items come before the row."""


class ExcludingLoader(RowLoader):
    """A loader for full ranking whose batches name the whole histories.

    ``(interaction, history_index, positive_u, positive_i)``: RecBole gives the items at
    ``history_index`` the score -inf. Rows of our own models carry them in :data:`EXCLUDED` too.
    """

    def __init__(self, config, dataset, sampler, shuffle=False):
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        rows = dataset.inter_feat  # sorted by user where the model is general
        self._users = rows[dataset.uid_field].numpy()
        self._ends = rows[END].numpy()
        if not self.is_sequential:
            _, first = np.unique(self._users, return_index=True)
            self._users = self._users[first]
            self._ends = self._ends[first]
        self._fills_columns = bool(getattr(config.model_class, "generative", False))

    def collate_fn(self, index):
        """A batch of rows; see the class."""
        interaction, _, positive_u, positive_i = super().collate_fn(index)
        index = np.array(index)
        items = self._dataset.histories.gather(self._users[index], self._ends[index])
        counts = torch.tensor([len(row) for row in items])
        rows = torch.arange(len(items)).repeat_interleave(counts)
        history_index = rows, torch.cat(items)
        if self._fills_columns:
            interaction[EXCLUDED] = pad_sequence(items, batch_first=True)
        return interaction, history_index, positive_u, positive_i

    def lengths(self) -> np.ndarray:
        """Number of excluded items of each row."""
        return self._ends

    def unreachable(self) -> int:
        """Number of targets that stand in their own history, so that no list can hold them."""
        data = self._dataset
        users = data.inter_feat[data.uid_field].numpy()
        items = data.inter_feat[data.iid_field].numpy()
        ends = data.inter_feat[END].numpy()
        return int(data.histories.contain(users, ends, items).sum())


def excluding(config, loaders: Sequence[Any]) -> tuple[Any, Any]:
    """The loaders of validation and test, their histories left out of the lists.

    Args:
        config: the settings of the run.
        loaders: RecBole's loaders of training, validation and test, as they were split.

    Raises:
        ConfigError: too few items are left for the lists.
    """
    datasets = [dataset_of(loader) for loader in loaders]
    if config.settings.is_sequential or rows_are_interactions(config):
        histories, places = _of_events(config, datasets)
    else:
        histories, places = _of_splits(datasets)
    result = []
    for loader, data, row_places in zip(loaders[1:], datasets[1:], places[1:], strict=True):
        users = data.inter_feat[data.uid_field].numpy()
        ends = histories.ends(users, row_places)
        data.inter_feat.update(Interaction({END: torch.from_numpy(ends)}))
        data.histories = histories
        excluding_loader = ExcludingLoader(config, data, loader._sampler, shuffle=False)
        _check_lists(config, excluding_loader)
        result.append(excluding_loader)
    _drop_whole_histories(datasets)
    valid, test = result
    return valid, test


def _of_splits(datasets: Sequence[Any]) -> tuple[SeenItems, list[np.ndarray]]:
    """Histories by split, and the number of its split for each row."""
    users, items, places = [], [], []
    for number, data in enumerate(datasets):
        rows = data.inter_feat
        users.append(rows[data.uid_field].numpy())
        items.append(rows[data.iid_field].numpy())
        places.append(np.full(len(rows), number))
        if WHOLE_HISTORY in rows:
            width = rows[WHOLE_HISTORY].shape[1]
            users.append(users[-1].repeat(width))
            items.append(rows[WHOLE_HISTORY].numpy().reshape(-1))
            places.append(places[-1].repeat(width) - 1)
    histories = SeenItems(np.concatenate(users), np.concatenate(items), np.concatenate(places) + 1)
    return histories, [np.full(len(data.inter_feat), n + 1) for n, data in enumerate(datasets)]


def _of_events(config, datasets: Sequence[Any]) -> tuple[SeenItems, list[np.ndarray]]:
    """Histories by event, and the place of each row among the events of its user.

    An event stands at an odd place, what a row says of the time before it one place earlier.
    """
    first = datasets[0]
    settings = config.settings
    users, items = (_joined(datasets, name) for name in (first.uid_field, first.iid_field))
    lengths = _joined(datasets, first.item_list_length_field) if settings.is_sequential else None
    order = order_of_rows(users, _times(datasets), lengths)
    places = 2 * np.argsort(order) + 1
    borders = np.cumsum([len(data.inter_feat) for data in datasets])[:-1]
    places_of_rows = np.split(places, borders)

    column = history_column(config)
    telling = np.arange(len(order))
    if settings.is_sequential and settings.benchmark_filename is None:
        # A user's first row alone: what the others hold is the target of an earlier row.
        telling = np.sort(order[begins_user(users[order])])
    elif WHOLE_HISTORY in first.inter_feat:
        column = WHOLE_HISTORY
    elif not settings.is_sequential:
        return SeenItems(users, items, places), places_of_rows
    before = _joined_rows(datasets, column, telling)  # [rows, longest history]
    return _with_told(users, items, places, telling, before), places_of_rows


def _with_told(
    users: np.ndarray, items: np.ndarray, places: np.ndarray, chosen: np.ndarray, before: np.ndarray
) -> SeenItems:
    """Histories of events, and of what some of their rows tell of the time before.

    Args:
        users: of all rows ``[n]``.
        items: of all rows ``[n]``.
        places: of all rows ``[n]``, odd numbers.
        chosen: numbers of the rows that tell ``[m]``.
        before: what they tell ``[m, longest history]``, 0 = no item.
    """
    width = before.shape[1]
    return SeenItems(
        np.concatenate([users, users[chosen].repeat(width)]),
        np.concatenate([items, before.reshape(-1)]),
        np.concatenate([places, (places[chosen] - 1).repeat(width)]),
    )


def _times(datasets: Sequence[Any]) -> np.ndarray:
    """Times of all rows; the number of the split where there are none."""
    first = datasets[0]
    if first.time_field in first.inter_feat:
        return _joined(datasets, first.time_field)
    sizes = [len(data.inter_feat) for data in datasets]
    return np.arange(len(datasets)).repeat(sizes)


def _joined(datasets: Sequence[Any], name: str) -> np.ndarray:
    """A column of all splits, one after another."""
    columns = [data.inter_feat[name].numpy() for data in datasets]
    return np.concatenate(columns)


def _joined_rows(datasets: Sequence[Any], name: str, chosen: np.ndarray) -> np.ndarray:
    """Some rows of a column of all splits, one after another.

    Args:
        datasets: the splits.
        name: of the column.
        chosen: numbers of rows, ascending.
    """
    values = []
    first = 0
    for data in datasets:
        end = first + len(data.inter_feat)
        inside = chosen[(chosen >= first) & (chosen < end)] - first
        values.append(data.inter_feat[torch.from_numpy(inside)][name].numpy())
        first = end
    return np.concatenate(values)


def _drop_whole_histories(datasets: Sequence[Any]) -> None:
    for data in datasets:
        if WHOLE_HISTORY in data.inter_feat:
            data.inter_feat.drop(WHOLE_HISTORY)


def _check_lists(config, loader: ExcludingLoader) -> None:
    """Refuse lists that the items left over do not fill."""
    data = dataset_of(loader)
    if not len(loader.lengths()):
        return  # a split without a validation part
    longest = int(loader.lengths().argmax())
    n_left = data.item_num - 1 - int(loader.lengths()[longest])
    if n_left >= max(config.settings.topk):
        return
    user = str(data.id2token(data.uid_field, int(loader._users[longest])))
    raise ConfigError(
        f"exclude_history: True leaves {n_left} of {data.item_num - 1} items for user {user!r} of "
        f"{config.settings.dataset}, but topk asks for {max(config.settings.topk)}. Use a smaller "
        "topk, or exclude_history: False."
    )


def unreachable_targets(valid: Any, test: Any) -> dict[str, int] | None:
    """Number of targets in their own history by split; ``None`` where all items are ranked."""
    if not isinstance(test, ExcludingLoader):
        return None
    loaders = {"valid": valid, "test": test}
    loaders = {name: loader for name, loader in loaders.items() if loader is not None}
    counts = {name: loader.unreachable() for name, loader in loaders.items()}
    n_targets = {name: len(dataset_of(loader)) for name, loader in loaders.items()}
    for name, count in counts.items():
        if count:
            getLogger().info(
                f"exclude_history: {count:,} of {n_targets[name]:,} {name} targets stand in their "
                "user's history and count as missed."
            )
    return counts
