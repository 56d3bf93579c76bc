"""Which rows a model learns from, and the loaders that put them into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.utils import ModelType
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.data.ids import history_column
from recbole_genrec.data.rows.batching import (
    CHUNK_BATCHES,
    length_grouped,
    sorted_in_chunks,
    target_batches,
)
from recbole_genrec.data.rows.event_rows import ROWS_AT_ONCE
from recbole_genrec.data.rows.row_order import ends_user
from recbole_genrec.errors import ConfigError, DataError

MASKED = ("BERT4Rec",)
"""Models of RecBole that mask positions of a row and learn these, as their papers do."""


def training_rows(config: Any) -> str:
    """``all``, ``longest`` or ``windows``: what the model of a run trains on.

    General models know no histories and train on all interactions.

    Args:
        config: the settings of the run.
    """
    if config.model_class.type != ModelType.SEQUENTIAL:
        return "all"
    return config.settings.train_rows or "all"


def use_batch_targets(config: Any) -> None:
    """Let ``batch_targets`` act as ``train_batch_size`` where a row has one target.

    Args:
        config: the settings of the run.

    Raises:
        ConfigError: a batch would be smaller than a row.
    """
    values = config.final_config_dict
    n_targets = values.setdefault("batch_targets", 0)
    if n_targets is None:
        values["batch_targets"] = 0  # as in the names of runs without it
    if not isinstance(n_targets, int) or n_targets < 1:
        return
    if training_rows(config) == "all":
        values["train_batch_size"] = n_targets
        return
    longest = values["MAX_ITEM_LIST_LENGTH"]
    if n_targets < longest:
        raise ConfigError(
            f"batch_targets is {n_targets}, fewer than the {longest} targets that a row may hold "
            f"(MAX_ITEM_LIST_LENGTH). Use batch_targets of at least {longest}, or shorter "
            "histories."
        )


def row_mask(users: Tensor, rows: str, max_length: int) -> Tensor:
    """Which of RecBole's training rows (prefix -> next item) to keep.

    Args:
        users: user of each row ``[n]``; the rows of one user follow each other, shortest prefix
            first.
        rows: ``all``; ``longest`` = the last row of each user; ``windows`` = the last row and every
            ``max_length``-th one before it, so that each interaction of a long history lies in a
            row (our choice).
        max_length: longest history, in items.

    Returns:
        bool ``[n]``.
    """
    if rows == "all":
        return torch.ones_like(users, dtype=torch.bool)
    is_last = ends_user(users)
    if rows == "longest":
        return is_last
    last_row = torch.nonzero(is_last).flatten()
    user_number = torch.cumsum(is_last, 0) - is_last.long()
    return (last_row[user_number] - torch.arange(len(users))) % max_length == 0


def check_growing(config: Any, data: Any, key: str = "train_rows") -> None:
    """Refuse files whose rows cannot share a history.

    ``longest`` and ``windows`` take the rows of a user for the prefixes of one history. Rows that
    are no such prefixes would be left out.

    Args:
        config: the settings of the run.
        data: dataset of all rows; those of a user follow each other, shortest prefix first.
        key: which says how rows are chosen.

    Raises:
        DataError: names the first row, and what to do.
    """
    settings = config.settings
    if settings.benchmark_filename is None:
        return
    broken = ~follows_the_row_before(data, settings.MAX_ITEM_LIST_LENGTH)
    if not broken.any():
        return
    rows = data.inter_feat
    users = rows[data.uid_field]
    row = int(broken.int().argmax())
    user = str(data.id2token(data.uid_field, int(users[row])))
    item = str(data.id2token(data.iid_field, int(rows[data.iid_field][row])))
    argument, hint = f"--{key}", ""
    if key == "train_rows":
        argument = f"--{settings.model}.{key}"
        cut = length_of_cut_histories(config, data)
        if cut is not None:
            hint = f", or --MAX_ITEM_LIST_LENGTH={cut}, to which the files cut histories"
    raise DataError(
        f"{settings.dataset}, training file: the history of user {user!r} before item {item!r} is "
        f"not that of the user's row before with its item at the end, and so for "
        f"{len(users[broken].unique()):,} of {len(users.unique()):,} users. {key}: "
        f"{settings.train_rows} takes the rows of a user for one growing history and would leave "
        f"out the others. Use {argument}=all, which trains each row on its own item{hint}."
    )


def length_of_cut_histories(config: Any, data: Any) -> int | None:
    """The length to which the files of a ready split cut histories.

    Args:
        config: the settings of the run.
        data: dataset of all rows; those of a user follow each other, shortest prefix first.

    Returns:
        ``None`` where histories are as long as the settings let them be, or do not grow.
    """
    settings = config.settings
    if settings.benchmark_filename is None:
        return None
    longest = int(data.inter_feat[data.item_list_length_field].max())
    if follows_the_row_before(data, settings.MAX_ITEM_LIST_LENGTH).all():
        return None
    if not follows_the_row_before(data, longest).all():
        return None
    return longest


def follows_the_row_before(data: Any, width: int) -> Tensor:
    """Which histories are those of the row before and its item; the first rows of users are.

    Args:
        data: dataset of all rows; those of a user follow each other, shortest prefix first.
        width: longest history, in items.

    Returns:
        bool ``[rows]``.
    """
    rows = data.inter_feat
    histories, lengths = rows[history_column(data.config)], rows[data.item_list_length_field]
    users, items = rows[data.uid_field], rows[data.iid_field]
    follows = torch.ones(len(rows), dtype=torch.bool)
    for here in torch.arange(1, len(rows)).split(ROWS_AT_ONCE):
        before = here - 1
        longer = pad(histories[before, :width], (0, 1))  # [n, width + 1]
        longer[torch.arange(len(here)), lengths[before]] = items[before]
        is_full = (lengths[before] == width).unsqueeze(1)
        expected = torch.where(is_full, longer[:, 1:], longer[:, :-1])
        same = (histories[here, :width] == expected).all(1)
        follows[here] = same | (users[here] != users[before])
    return follows


class LengthGroupedLoader(TrainDataLoader):
    """RecBole's training loader with batches of similar length (:func:`length_grouped`)."""

    def __iter__(self) -> Iterator:
        lengths = self._dataset.inter_feat[self._dataset.item_list_length_field]
        for rows in length_grouped(
            torch.as_tensor(list(self.sampler)), lengths, self.step, self.generator
        ):
            yield self.collate_fn(rows.numpy())


class WindowLoader(TrainDataLoader):
    """RecBole's training loader of windows that begin elsewhere in each epoch (our choice).

    All windows of a user move back by the same number of interactions, drawn anew for each epoch;
    one that would end before the history begins becomes the user's last row. A user with a single
    window keeps it.

    Args:
        config: as in RecBole.
        sampler: as in RecBole.
        shuffle: as in RecBole.
        every: dataset of all rows; the rows of a user follow each other, shortest prefix first.
        windows: row numbers to start from.
    """

    def __init__(self, config, every, sampler, shuffle: bool, windows: Tensor):
        super().__init__(config, every.copy(every.inter_feat[windows]), sampler, shuffle=shuffle)
        self._every = every
        self._windows = windows
        users = every.inter_feat[every.uid_field]
        _, user, count = users.unique_consecutive(return_inverse=True, return_counts=True)
        self._last = (count.cumsum(0) - 1)[user[windows]]
        self._first = self._last - count[user[windows]] + 1
        self._user = user[windows]

    def _moved(self) -> Tensor:
        """The row that each window has in this epoch."""
        width = self.config.settings.MAX_ITEM_LIST_LENGTH
        n_users = int(self._user.max()) + 1
        shifts = torch.randint(width, (n_users,), generator=self.generator)
        moved = self._windows - shifts[self._user]
        moved = torch.where(moved < self._first, self._last, moved)
        single = self._last - self._first < width
        return torch.where(single, self._windows, moved)

    def __iter__(self) -> Iterator:
        rows = self._moved()
        order = torch.as_tensor(list(self.sampler))
        lengths = self._every.inter_feat[self._every.item_list_length_field][rows]
        batches: Iterable[Tensor] = order.split(self.step)
        if self.config.settings.group_by_length:
            batches = length_grouped(order, lengths, self.step, self.generator)
        for batch in batches:
            yield self._neg_sampling(self.transform(self._dataset, self._every[rows[batch]]))


class TargetLoader(TrainDataLoader):
    """Rows whose positions are all targets, in batches of ``batch_targets`` targets (our choice).

    A batch holds rows until their targets fill it, so that a target weighs the same in a short
    history and in a long one. With ``group_by_length`` rows of similar length stand together.
    ``windows`` cuts long histories elsewhere in each epoch, and every target stands in one window
    of it.

    Args:
        config: as in RecBole.
        every: dataset of all rows; the rows of a user follow each other, shortest prefix first.
        sampler: as in RecBole.
        shuffle: as in RecBole.
        rows: ``longest`` or ``windows``.
    """

    def __init__(self, config, every, sampler, shuffle: bool, rows: str):
        width = config.settings.MAX_ITEM_LIST_LENGTH
        users = every.inter_feat[every.uid_field]
        start = every.inter_feat[row_mask(users, rows, width)]
        super().__init__(config, every.copy(start), sampler, shuffle=shuffle)
        self._every = every
        self._width = width
        _, count = users.unique_consecutive(return_counts=True)
        last = count.cumsum(0) - 1
        lengths = every.inter_feat[every.item_list_length_field]
        self._first = last - count + 1  # [n_users]
        self._begins = lengths[self._first]
        self._targets = self._begins + count - 1
        if rows == "longest":
            self._targets = lengths[last]
            self._first = last + 1 - self._targets
            self._begins = torch.ones_like(last)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-int(self._targets.sum()) // self.config.settings.batch_targets)

    def windows(self) -> tuple[Tensor, Tensor]:
        """Row int64 ``[W]`` and number of targets ``[W]`` of each window of this epoch."""
        draws = torch.rand(len(self._targets), generator=self.generator)
        user, end, length = cut_histories(self._begins, self._targets, self._width, draws)
        return self._first[user] + end - self._begins[user], length

    def __iter__(self) -> Iterator:
        settings = self.config.settings
        rows, lengths = self.windows()
        order = torch.arange(len(rows))
        if self.shuffle:
            order = torch.randperm(len(rows), generator=self.generator)
        if settings.group_by_length:
            rows_a_batch = max(1, settings.batch_targets * len(rows) // int(lengths.sum()))
            order = sorted_in_chunks(order, lengths, rows_a_batch * CHUNK_BATCHES)
        batches = target_batches(order, lengths, settings.batch_targets)
        numbers = torch.arange(len(batches))
        if self.shuffle and settings.group_by_length:
            numbers = torch.randperm(len(batches), generator=self.generator)
        for number in numbers.tolist():
            batch = batches[number]
            yield self._neg_sampling(self._batch(rows[batch], lengths[batch]))

    def _batch(self, rows: Tensor, lengths: Tensor) -> Any:
        """Rows whose histories keep their last ``lengths`` items."""
        data = self._every[rows]
        name = self._every.item_list_length_field
        skipped = (data[name] - lengths).clamp(min=0)
        data[name] = data[name] - skipped
        if skipped.any():
            suffix = self.config.settings.LIST_SUFFIX
            for field in self._every.inter_feat.columns:
                if f"{field}{suffix}" in data:
                    history = data[f"{field}{suffix}"]
                    data[f"{field}{suffix}"] = moved_left(history, skipped, data[name])
        return self.transform(self._dataset, data)


def cut_histories(
    begins: Tensor, targets: Tensor, width: int, draws: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut histories into windows that hold every target once.

    A history of more than ``width`` targets begins with a window of a random length; windows of the
    whole width follow, and the rest.

    Args:
        begins: targets of each user's first row, 1 to ``width``, which no window cuts ``[U]``.
        targets: targets of each user ``[U]``.
        width: most targets of a window.
        draws: one uniform number in [0, 1) a user ``[U]``.

    Returns:
        For each window its user, the number of the user's targets up to its end, and how many of
        them it holds.
    """
    choices = width + 1 - begins
    cut = begins + torch.minimum((draws * choices).long(), choices - 1)  # [U]
    cut = torch.where(targets <= width, targets, cut)
    count = 1 + (targets - cut + width - 1) // width
    user = torch.arange(len(targets)).repeat_interleave(count)
    number = torch.arange(len(user)) - (count.cumsum(0) - count)[user]
    end = torch.minimum(cut[user] + number * width, targets[user])
    begin = torch.where(number > 0, cut[user] + (number - 1) * width, 0)
    return user, end, end - begin


def moved_left(history: Tensor, skipped: Tensor, lengths: Tensor) -> Tensor:
    """Histories without their first items.

    Args:
        history: ``[B, T, ...]``, right-padded with 0.
        skipped: items to leave out ``[B]``.
        lengths: items that stay ``[B]``.

    Returns:
        ``[B, T, ...]``, right-padded with 0.
    """
    places = torch.arange(history.shape[1])
    source = (places + skipped.unsqueeze(1)).clamp(max=history.shape[1] - 1)  # [B, T]
    rows = torch.arange(len(history)).unsqueeze(1)
    outside = places >= lengths.unsqueeze(1)  # [B, T]
    outside = outside.view(*outside.shape, *[1] * (history.dim() - 2))
    return history[rows, source].masked_fill(outside, 0)
