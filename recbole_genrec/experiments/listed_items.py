"""The items that lists choose among, from files of raw ids."""

from __future__ import annotations

import logging

from recbole_genrec.data.given_ids import read_ids
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.catalogue import Catalogue


def listed_items(
    catalogue: Catalogue, candidate_file: str | None, excluded_file: str | None
) -> list[str] | None:
    """The items that lists may hold.

    A table of what is in stock also names items that the model does not know, for example because
    nobody has chosen them yet. They are passed over, and the log counts them.

    Args:
        catalogue: the items of the model.
        candidate_file: raw item ids, one a line, to choose among; ``None`` = all items.
        excluded_file: raw item ids, one a line, that are left out; ``None`` = none.

    Returns:
        Raw ids; ``None`` where both files are ``None``.

    Raises:
        ConfigError: a file is missing or empty, the model does not know more than half of the
            candidates, or no item is left.
    """
    if candidate_file is None and excluded_file is None:
        return None
    items = catalogue.items[1:]
    if candidate_file is not None:
        items = _known(catalogue, candidate_file)
    if excluded_file is not None:
        left_out = set(read_ids(excluded_file))
        items = [item for item in items if item not in left_out]
    if not items:
        raise ConfigError(f"{excluded_file} leaves out every item, so there is nothing to list.")
    return items


def _known(catalogue: Catalogue, file: str) -> list[str]:
    """The items of a file that the model knows."""
    named = read_ids(file)
    known = [item for item in named if catalogue.has_item(item)]
    if 2 * len(known) < len(named):
        catalogue.item_ids(named, f" in {file}")  # raises, and says what to do
    if len(known) < len(named):
        unknown = next(item for item in named if not catalogue.has_item(item))
        logging.getLogger().warning(
            f"{len(named) - len(known):,} of {len(named):,} items of {file} are unknown to the "
            f"model, for example {unknown!r}; they are in no list."
        )
    return known
