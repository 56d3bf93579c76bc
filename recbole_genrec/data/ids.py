"""Raw ids of a dataset: their columns, and rows that follow them from one dataset to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from recbole_genrec.errors import ArtefactError, DataError

WHOLE_HISTORY = "whole_history"
"""Column of what a file says of a user's history, where the models get less or none of it."""


def raw_ids(dataset) -> dict[str, list[str]]:
    """Raw ids of the ``items`` and ``users`` of a RecBole dataset, by its internal ids."""
    fields = {"items": dataset.iid_field, "users": dataset.uid_field}
    return {name: list(map(str, dataset.field2id_token[field])) for name, field in fields.items()}


def history_column(config) -> str:
    """Name of the column of histories, in files and in RecBole's batches."""
    return f"{config.settings.ITEM_ID_FIELD}{config.settings.LIST_SUFFIX}"


def places_of(tokens: Sequence[str] | np.ndarray, known: Sequence[str] | np.ndarray) -> np.ndarray:
    """Where raw ids stand among others.

    Args:
        tokens: the ids to look for ``[n]``.
        known: those to look among, each once.

    Returns:
        int64 ``[n]``, -1 for ids that are not there.

    Raises:
        DataError: an id stands twice in ``known``.
    """
    index = pd.Index(known, dtype=object)
    if not index.is_unique:
        raise DataError(
            f"The id {index[index.duplicated()][0]!r} stands twice where it must be one."
        )
    places = index.get_indexer(pd.Index(tokens, dtype=object))
    return places.astype(np.int64)


def rows_in_order_of_ids(tokens: Sequence[str]) -> list[int]:
    """Rows of raw ids in the order of these ids, whatever numbers they have; the first stays."""
    return [0, *sorted(range(1, len(tokens)), key=tokens.__getitem__)]


def rows_by_token(
    values: torch.Tensor, tokens: Sequence[str], order: Sequence[str], dim: int = 0
) -> torch.Tensor:
    """Rows of a table in another order of the raw ids.

    Args:
        values: ``[..., n, ...]``, with the n rows along ``dim``.
        tokens: raw id of each of the n rows.
        order: the m raw ids to put them in, the first of them padding.
        dim: where the rows stand.

    Returns:
        ``[..., m, ...]``; zero for padding and for ids that ``tokens`` does not have.
    """
    rows = places_of(order, tokens)
    rows[0] = -1
    rows[rows < 0] = len(tokens)  # the row of zeros
    with_zeros = torch.cat([values, torch.zeros_like(values.narrow(dim, 0, 1))], dim)
    return with_zeros.index_select(dim, torch.from_numpy(rows).to(values.device))


def check_same_ids(stored: dict[str, list[str]], dataset, names: Sequence[str]) -> None:
    """Refuse a dataset whose internal ids are others than those of a checkpoint's vectors.

    Args:
        stored: raw ids of the checkpoint, by name.
        dataset: RecBole's dataset.
        names: ``items``, ``users``, or both.

    Raises:
        ArtefactError: the ids are others, or stand in another order.
    """
    here = raw_ids(dataset)
    for name in names:
        if here[name] != stored[name]:
            kind = (
                "stand in another order in"
                if sorted(here[name]) == sorted(stored[name])
                else "are others than those of"
            )
            raise ArtefactError(
                f"The {name} of {dataset.dataset_name} {kind} the data that the checkpoint was "
                "trained on, and its vectors belong to RecBole's numbers for them. Point "
                "--data_path at the data it was trained on, or train the model again."
            )
