"""Histories from a file of interactions alone, without RecBole's dataset.

RecBole's dataset has an object for each cell and numbers every row. Where its rows are those of the
file and a checkpoint knows all ids, lists need none of that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from recbole_genrec.data.files.atomic_files import FileFormat
from recbole_genrec.data.histories.choices import EventHistories
from recbole_genrec.data.ids import places_of
from recbole_genrec.data.inter_files import interaction_files, read_coded_interactions
from recbole_genrec.data.rows.row_order import order_of_rows
from recbole_genrec.settings.filters import NO_FILTER


class PlainHistories(NamedTuple):
    """What a file says.

    Attributes:
        histories: of the users that were asked for.
        items: raw ids of all items in the file.
    """

    histories: EventHistories
    items: set[str]


def plain_histories(
    config: Any, ids: dict[str, list[str]], users: Iterable[str] | None = None
) -> PlainHistories | None:
    """What :func:`~recbole_genrec.data.histories.choices.histories` gives, read from the file.

    Args:
        config: a ``GenRecConfig``.
        ids: raw ids of ``items`` and ``users`` of a checkpoint, padding first.
        users: raw ids of those whose histories are needed; default all.

    Returns:
        ``None`` where RecBole's dataset must say it: the file has users or items that the
        checkpoint does not know, its rows are filtered, or it is unusual.
    """
    if not _keeps_the_rows(config):
        return None
    user_field, item_field, time_field = (
        config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")
    )
    roles = {user_field: "token", item_field: "token", time_field: "float"}
    (path,) = interaction_files(config)
    table = read_coded_interactions(path, FileFormat.of(config), roles)
    if table is None:
        return None
    user_ids, item_ids = table.ids[user_field], table.ids[item_field]
    times = table.times[time_field]
    user_of_code = places_of(user_ids.texts, ids["users"])
    item_of_code = places_of(item_ids.texts, ids["items"])
    if (user_of_code < 0).any() or (item_of_code < 0).any():
        return None

    is_asked = np.ones(len(ids["users"]), dtype=bool)
    if users is not None:
        asked = places_of(list(users), ids["users"])
        is_asked[:] = False
        is_asked[asked[asked >= 0]] = True
    rows = np.flatnonzero(is_asked[user_of_code][user_ids.codes])
    of_users = user_of_code[user_ids.codes[rows]]
    order = order_of_rows(of_users, times[rows])
    of_users, rows = of_users[order], rows[order]
    histories = EventHistories.of_events(
        of_users,
        item_of_code[item_ids.codes[rows]],
        np.array(ids["users"], dtype=object),
        np.array(ids["items"], dtype=object),
        {user: number for number, user in enumerate(ids["users"])},
    )
    return PlainHistories(histories, set(item_ids.texts))


def _keeps_the_rows(config: Any) -> bool:
    """Whether the rows and ids of RecBole's dataset would be those of one file with times."""
    if config["benchmark_filename"] is not None or config["catalogue"] != "interactions":
        return False
    if set(config["load_col"] or ()) != {"inter"} or config["unload_col"]:
        return False
    loaded = config["load_col"]["inter"]
    if config["TIME_FIELD"] is None or loaded != "*" and config["TIME_FIELD"] not in loaded:
        return False
    if config["alias_of_user_id"] is not None or config["alias_of_item_id"] is not None:
        return False
    return all(not config[key] or config[key] == value for key, value in NO_FILTER.items())
