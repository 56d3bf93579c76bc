"""Which users and items a test asks for, in a form by which two results are compared."""

from __future__ import annotations

from typing import Any

from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_genrec.data.rows.loader_dataset import dataset_of
from recbole_genrec.storage.digests import digest


def pairs_of_test(loader: Any) -> dict[str, Any] | None:
    """Number and digest of the pairs of a user and an item that a test asks for.

    They follow from raw ids alone, not from the order of the rows or from RecBole's numbers, so
    models of every kind have the same ones in the same test.

    Args:
        loader: RecBole's loader of the test split, or ``None``.

    Returns:
        ``{"pairs": their number, "lists": number of the lists that are ranked for them, "digest":
        16 hexadecimal digits}``; ``None`` without a test. There are fewer lists than pairs where a
        list is judged by all held-out items of a user together.
    """
    if loader is None:
        return None
    data = dataset_of(loader)
    columns = []
    for field in (data.uid_field, data.iid_field):
        columns.append(data.id2token(field, data.inter_feat[field].numpy()).tolist())
    pairs = sorted(zip(*columns, strict=True))
    joins_users = isinstance(loader, FullSortEvalDataLoader) and not loader.is_sequential
    n_lists = len(set(columns[0])) if joins_users else len(pairs)
    return {"pairs": len(pairs), "lists": n_lists, "digest": digest(pairs)}
