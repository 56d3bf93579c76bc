"""A model that recommends, and what the users of its data have chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.given_ids import raw_id
from recbole_genrec.data.histories.choices import EventHistories
from recbole_genrec.errors import ConfigError


class Served(NamedTuple):
    """A model that recommends, and what its users have chosen so far.

    :func:`~recbole_genrec.experiments.loading.load_model` gives one of ours,
    :func:`~recbole_genrec.experiments.loading.load_recommender` also one of RecBole.

    Attributes:
        config: the settings of its run, with the changes asked for.
        model: the model in evaluation mode, on its device.
        histories: raw item ids of each user, oldest first; ``None`` where the dataset's files are
            not there.
    """

    config: GenRecConfig
    model: Any
    histories: EventHistories | None

    def chosen_by(self, user: object, advice: str) -> tuple[list[str], str | None]:
        """What a user of the data has chosen.

        Args:
            user: raw id, a text or a whole number.
            advice: what can be given for people outside the data; ends the messages about them.

        Returns:
            Raw ids of the items that the model knows, oldest first, and the user's id where the
            model knows the user.

        Raises:
            ConfigError: no such user, or no item of theirs is known.
        """
        person = raw_id(user)
        dataset = self.config.settings.dataset
        if self.histories is None:
            raise ConfigError(
                f"The files of {dataset} are not there, so what user {person!r} has chosen is "
                f"unknown. {advice}"
            )
        if person not in self.histories:
            raise ConfigError(f"There is no user {person!r} in {dataset}. {advice}")

        catalogue = self.model.catalogue
        items = [item for item in self.histories[person] if catalogue.has_item(item)]
        if not items:
            raise ConfigError(f"The model knows none of the items that user {person!r} has chosen.")
        return items, person if catalogue.has_user(person) else None
