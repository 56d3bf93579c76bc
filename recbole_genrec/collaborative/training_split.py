"""The training split made anew: interactions by raw id, and models trained on them alone.

Nothing held out reaches these models: no gradient, no choice of the epoch, and neither the
numbering nor the number of users and items (all our choice, unpublished).
"""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_genrec.data.ids import history_column
from recbole_genrec.data.loaders import create_dataset, training_data
from recbole_genrec.data.rows.row_order import by_user_and_time
from recbole_genrec.runtime.randomness import kept_randomness

# --- interactions -----------------------------------------------------------------------------


def training_split(config):
    """RecBole's training split for a SASRec ``config``.

    All rows (prefix -> next item) before each user's held-out ones, whatever its ``train_rows``.
    """
    return training_data(config, create_dataset(config))


def read_sequences(config) -> dict[str, list[str]]:
    """:func:`training_sequences` of the split that ``config`` describes.

    Neither its ``train_rows`` nor its history length matters.

    Random states of the caller stay as they are.
    """
    with kept_randomness():
        return training_sequences(training_split(config.derived("SASRec")))


def training_sequences(data) -> dict[str, list[str]]:
    """Raw item ids by raw user id, users sorted.

    The history of a user's first row, then the target of each row. Files that come split may hold
    rows that do not continue the row before, for example of several sessions of a user: what their
    histories add is part of the sequence.

    Args:
        data: RecBole's training dataset with all its rows (not with ``train_rows: longest``, whose
            histories are cut).
    """
    rows = data.inter_feat[_by_user(data)]
    users = data.id2token(data.uid_field, rows[data.uid_field].numpy()).tolist()
    targets = rows[data.iid_field].tolist()
    histories = rows[history_column(data.config)].numpy()
    lengths = rows[data.item_list_length_field].tolist()
    sequences = {}
    came_split = data.config.settings.benchmark_filename is not None
    for user, group in groupby(range(len(users)), key=users.__getitem__):
        rows_of_user = list(group)
        first = rows_of_user[0]
        history = histories[first, : lengths[first]].tolist()
        sequence = [*history, targets[first]]
        for before, row in pairwise(rows_of_user):
            if came_split:
                earlier, history = history, histories[row, : lengths[row]].tolist()
                sequence += _new_in(history, earlier, targets[before])
            sequence.append(targets[row])
        sequences[str(user)] = data.id2token(data.iid_field, sequence).tolist()
    return sequences


def _new_in(history: list[int], earlier: list[int], target: int) -> list[int]:
    """What a history adds to that of the row before.

    Args:
        history: of a row.
        earlier: history of the user's row before.
        target: of that row; histories of other events (clicks before purchases) do not hold it.
    """
    known = max(_shared([*earlier, target], history), _shared(earlier, history))
    return history[known:]


def _shared(earlier: list[int], later: list[int]) -> int:
    """How many items end the one list and begin the other."""
    for size in range(min(len(earlier), len(later)), 0, -1):
        if earlier[-size:] == later[:size]:
            return size
    return 0


def edges_only(data, sequences: dict[str, list[str]]):
    """The bipartite graph of ``sequences`` as a dataset.

    One row for each (user, item) pair, users and items numbered by raw id.

    Args:
        data: a sequential RecBole dataset, for fields and settings; none of its rows is taken over.
        sequences: raw item ids by raw user id.
    """
    users, items = (
        sorted(sequences),
        sorted({item for sequence in sequences.values() for item in sequence}),
    )
    number = {item: row for row, item in enumerate(items, start=1)}
    pairs = [
        (row, number[item])
        for row, user in enumerate(users, start=1)
        for item in dict.fromkeys(sequences[user])
    ]
    columns = dict(
        zip((data.uid_field, data.iid_field), torch.tensor(pairs).unbind(1), strict=True)
    )
    # no history: to a row whose history is one item long RecBole's inter_matrix would add an edge
    # to this item
    columns |= {data.item_list_length_field: torch.zeros(len(pairs), dtype=torch.long)}
    columns |= {history_column(data.config): torch.zeros(len(pairs), 1, dtype=torch.long)}
    copy = data.copy(Interaction(columns))
    padding = data.field2id_token[data.iid_field][0]
    tokens = {
        data.uid_field: np.array([padding, *users]),
        data.iid_field: np.array([padding, *items]),
    }
    copy.field2id_token = {**data.field2id_token, **tokens}
    return copy


def only_trained_items(data):
    """A copy of the training dataset with the items of its rows alone, numbered by raw id.

    Its rows are sorted by raw user id.

    RecBole numbers items by their first appearance in the whole file. Held-out interactions would
    thereby decide which random start an item gets and how many items the softmax has.
    """
    item, history = data.iid_field, history_column(data.config)
    rows = data.inter_feat[_by_user(data)]
    ids = torch.cat([rows[item], rows[history].flatten()]).unique()
    ids = ids[ids > 0].numpy()
    tokens = data.id2token(item, ids).astype(str)
    order = np.argsort(tokens, kind="stable")
    number = torch.zeros(data.item_num, dtype=torch.long)
    number[torch.from_numpy(ids[order])] = torch.arange(1, len(ids) + 1)
    columns = {
        field: number[rows[field]] if field in (item, history) else rows[field]
        for field in rows.columns
    }
    copy = data.copy(Interaction(columns))
    copy.field2id_token = {
        **data.field2id_token,
        item: np.array([data.field2id_token[item][0], *tokens[order]]),
    }
    return copy


def _by_user(data) -> np.ndarray:
    """Order of the rows by raw user id and time."""
    _, rank = np.unique(data.field2id_token[data.uid_field].astype(str), return_inverse=True)
    return by_user_and_time(data, rank[data.inter_feat[data.uid_field].numpy()])
