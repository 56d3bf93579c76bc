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
from recbole.utils import ModelType
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recbole_genrec.data.evaluation_rows import (
    RowLoader,
    order_of_events,
    rows_are_interactions,
)
from recbole_genrec.data.ids import history_column
from recbole_genrec.data.loader_dataset import dataset_of
from recbole_genrec.data.presplit import WHOLE_HISTORY
from recbole_genrec.errors import ConfigError

EXCLUDED = "excluded_items"
"""Column of a batch: item ids ``[B, H]`` that the row must not get, 0 = none."""

END = "history_end"
"""Column of a split: how many of its user's items come before the row."""


class Histories:
    """The distinct items of each user, in the order of their first appearance.

    Args:
        users: int64 ``[P]``, users of events.
        items: int64 ``[P]``, their items; 0 is no item.
        places: int64 ``[P]``, when they happened; only the order counts.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, places: np.ndarray):
        real = items > 0
        events = np.stack([users[real], items[real], places[real]])
        by_pair = np.lexsort(events[::-1])
        events = events[:, by_pair]
        first = np.ones(events.shape[1], dtype=bool)
        first[1:] = (events[:2, 1:] != events[:2, :-1]).any(0)
        users, items, places = events[:, first]
        order = np.lexsort([places, users])
        self.users = users[order]
        self.items = items[order]
        self.places = places[order]

        # By user and item, and where each of these pairs stands in the order of events.
        self._pairs = users, items
        self._position = np.empty(len(order), dtype=np.int64)
        self._position[order] = np.arange(len(order))

    def ends(self, users: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How many items users have before places in the order of events.

        Args:
            users: int64 ``[n]``.
            places: int64 ``[n]``, one for each of ``users``.

        Returns:
            int64 ``[n]``.
        """
        span = 1 + max(self.places.max(initial=0), places.max(initial=0))
        keys = self.users * span + self.places  # ascending
        place = np.searchsorted(keys, users * span + places)
        return place - np.searchsorted(self.users, users)

    def gather(self, users: np.ndarray, ends: np.ndarray) -> list[Tensor]:
        """The first items of users.

        Args:
            users: int64 ``[n]``.
            ends: int64 ``[n]``, how many items of each.

        Returns:
            Item ids int64 ``[ends]`` of each user, in the order of their first appearance.
        """
        starts = np.searchsorted(self.users, users)
        slices = zip(starts.tolist(), (starts + ends).tolist(), strict=True)
        return [torch.from_numpy(self.items[start:end]) for start, end in slices]

    def contain(self, users: np.ndarray, ends: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether items are among the first ones of users.

        Args:
            users: int64 ``[n]``.
            ends: int64 ``[n]``, how many items of each user count.
            items: int64 ``[n]``, one for each of ``users``.

        Returns:
            bool ``[n]``.
        """
        if not len(self.items):
            return np.zeros(len(users), dtype=bool)
        known_users, known_items = self._pairs
        span = 1 + max(known_items.max(), items.max(initial=0))
        known = known_users * span + known_items  # ascending
        sought = users * span + items
        row = np.searchsorted(known, sought).clip(max=len(known) - 1)
        before = self._position[row] < np.searchsorted(self.users, users) + ends
        return (known[row] == sought) & before


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
    if config.settings.MODEL_TYPE == ModelType.SEQUENTIAL:
        histories, places = _of_rows(config, datasets)
    elif rows_are_interactions(config):
        histories, places = _of_interactions(datasets)
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
        keys = [rows[data.item_list_length_field].numpy()]
        if data.time_field in rows:
            keys.append(rows[data.time_field].numpy())
        users = rows[data.uid_field].numpy()
        order = np.lexsort([*keys, users])
        _, first = np.unique(users[order], return_index=True)
        items.append(rows[torch.from_numpy(order[first])][history].numpy().reshape(-1))
    counts = np.bincount(np.concatenate(items))
    return {int(item): int(counts[item]) for item in np.flatnonzero(counts) if item}


def _of_splits(datasets: Sequence[Any]) -> tuple[Histories, list[np.ndarray]]:
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
    histories = Histories(np.concatenate(users), np.concatenate(items), np.concatenate(places) + 1)
    return histories, [np.full(len(data.inter_feat), n + 1) for n, data in enumerate(datasets)]


def _of_interactions(datasets: Sequence[Any]) -> tuple[Histories, list[np.ndarray]]:
    """Histories by event of a general model's rows, and the place of each row."""
    first = datasets[0]
    users, items = (_joined(datasets, name) for name in (first.uid_field, first.iid_field))
    places = 2 * order_of_events(users, _times(datasets)) + 1
    histories = Histories(users, items, places)
    if WHOLE_HISTORY in first.inter_feat:
        chosen = np.arange(len(users))
        before = _joined_rows(datasets, WHOLE_HISTORY, chosen)
        histories = _with_told(users, items, places, chosen, before)
    borders = np.cumsum([len(data.inter_feat) for data in datasets])[:-1]
    return histories, np.split(places, borders)


def _of_rows(config, datasets: Sequence[Any]) -> tuple[Histories, list[np.ndarray]]:
    """Histories by event, and the place of each row among the events of its user.

    An event stands at an odd place, what a row says of the time before it one place earlier.
    """
    first = datasets[0]
    names = [first.uid_field, first.iid_field]
    column = history_column(config)
    users, items = (_joined(datasets, name) for name in names)
    lengths = _joined(datasets, first.item_list_length_field)
    order = np.lexsort([lengths, _times(datasets), users])
    places = np.empty(len(order), dtype=np.int64)
    places[order] = 2 * np.arange(len(order)) + 1

    if config.settings.benchmark_filename is None:
        # Of a user's first row alone: what the others hold is the target of an earlier row.
        ordered = users[order]
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        chosen = np.sort(order[is_first])
    else:
        chosen = np.arange(len(order))
        if WHOLE_HISTORY in first.inter_feat:
            column = WHOLE_HISTORY
    before = _joined_rows(datasets, column, chosen)  # [rows, longest history]
    borders = np.cumsum([len(data.inter_feat) for data in datasets])[:-1]
    return _with_told(users, items, places, chosen, before), np.split(places, borders)


def _with_told(
    users: np.ndarray, items: np.ndarray, places: np.ndarray, chosen: np.ndarray, before: np.ndarray
) -> Histories:
    """Histories of events, and of what some of their rows tell of the time before.

    Args:
        users: of all rows ``[n]``.
        items: of all rows ``[n]``.
        places: of all rows ``[n]``, odd numbers.
        chosen: numbers of the rows that tell ``[m]``.
        before: what they tell ``[m, longest history]``, 0 = no item.
    """
    width = before.shape[1]
    return Histories(
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
