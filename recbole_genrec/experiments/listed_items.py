"""The items that lists choose among, from files of raw ids."""

from __future__ import annotations

import logging

from recbole_genrec.data.given_ids import read_ids
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.catalogue import Catalogue


class ListedItems:
    """The items that lists may hold.

    A table of what is in stock also names items that the model does not know, for example because
    nobody has chosen them yet. They are passed over, and the log counts them.

    Args:
        candidate_file: raw item ids, one a line, to choose among; ``None`` = all items.
        excluded_file: raw item ids, one a line, that are left out; ``None`` = none.

    Raises:
        ConfigError: a file is missing or empty.
    """

    def __init__(self, candidate_file: str | None, excluded_file: str | None) -> None:
        self.candidate_file = candidate_file
        self.excluded_file = excluded_file
        self._candidates = None if candidate_file is None else read_ids(candidate_file)
        self._excluded = None if excluded_file is None else read_ids(excluded_file)

    def of(self, catalogue: Catalogue) -> list[str] | None:
        """Raw ids of the items; ``None`` = all.

        Args:
            catalogue: the items of the model.

        Raises:
            ConfigError: the model does not know more than half of the items of a file, or no item
                is left.
        """
        items = None
        if self._candidates is not None:
            items = _known(catalogue, self._candidates, str(self.candidate_file))
        if self._excluded is not None:
            left_out = set(_known(catalogue, self._excluded, str(self.excluded_file)))
            of_all = catalogue.items[1:] if items is None else items
            items = [item for item in of_all if item not in left_out]
            if not items:
                raise ConfigError(
                    f"{self.excluded_file} leaves out every item, so there is nothing to list."
                )
        return items


def _known(catalogue: Catalogue, named: list[str], file: str) -> list[str]:
    """The items of a file that the model knows."""
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
