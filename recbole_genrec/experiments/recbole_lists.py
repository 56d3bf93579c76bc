"""Lists of people from a model of RecBole, in the form of :class:`UserLists`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import EventHistories
from recbole_genrec.data.ids import history_column
from recbole_genrec.data.items.item_text import has_item_texts, read_texts_of
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.answers import ListOptions
from recbole_genrec.model.lists.catalogue import Catalogue
from recbole_genrec.model.lists.user_lists import UserLists

BATCH = 256
"""Users that are scored at once."""

SAME_FOR_ALL = ("Pop", "Random")
"""General models whose scores do not depend on the user."""


class CatalogueLists(UserLists):
    """Lists of a model that is not of this package, whose items are those of its catalogue."""

    histories: EventHistories | None

    @property
    def item_tokens(self) -> list[str]:
        """Raw ids of the items by internal id."""
        return self.catalogue.items

    @property
    def n_items(self) -> int:
        """Number of items, padding included."""
        return len(self.catalogue.items)

    def add_items(self, texts: Sequence[str], tokens: Sequence[str] | None = None) -> list[int]:
        """Refuse new items, which only methods of this package take in.

        Args:
            texts: one text an item.
            tokens: their raw ids.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "This model cannot take in new items without training. Add them to the dataset and "
            "train again."
        )


class RecBoleLists(CatalogueLists):
    """A trained model of RecBole that makes lists of users.

    Sequential models rank by histories, general ones by users of their training.

    Args:
        config: the settings of its run.
        model: the model in evaluation mode, on its device.
        ids: raw ids of ``items`` and ``users`` by internal id.
        histories: raw item ids of each user, oldest first.
        trained_on: digests of the histories that the checkpoint's data had, by raw user id.
    """

    def __init__(
        self,
        config: GenRecConfig,
        model: AbstractRecommender,
        ids: dict[str, list[str]],
        histories: EventHistories,
        trained_on: dict[str, int] | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.catalogue = Catalogue(ids["items"], ids["users"])
        self.histories = histories
        self.trained_on = trained_on
        settings = config.settings
        self.is_sequential = settings.is_sequential
        self.uses_users = True
        self.max_seq_length = settings.MAX_ITEM_LIST_LENGTH
        self._reads_users = settings.model not in SAME_FOR_ALL and hasattr(model, "n_users")
        self._titles: list[str] | None = None

    def leave_training_mode(self) -> None:
        """As torch's ``eval``, where the model is not in that mode already."""
        if self.model.training:
            self.model.eval()

    def list_texts(self) -> list[str]:
        """Titles, as there."""
        return self.list_titles()

    def list_titles(self) -> list[str]:
        """Titles by item id, from the ``.item`` file where it is there."""
        if self._titles is None:
            self._titles = [""] * self.n_items
            if has_item_texts(self.config):
                read = read_texts_of(self.config, self.item_tokens, required=False)
                self._titles = read.titles
        return self._titles

    def list_options(self) -> ListOptions:
        """What the settings say about lists."""
        settings = self.config.settings
        return ListOptions(
            settings.exclude_history, BATCH, settings.shows_progress, settings.device
        )

    def listable(self, history: Tensor, user: Tensor) -> Tensor:
        """Rows of users in training, where the model knows users."""
        if not self._reads_users:
            return super().listable(history, user)
        return user > 0

    def scores(self, history: Tensor, length: Tensor, **user: Tensor) -> Tensor:
        """Scores of all items, as RecBole's evaluation makes them.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            **user: ``user``: user ids ``[B]``; default 0, somebody new.

        Returns:
            float32 ``[B, n_items]``.

        Raises:
            ConfigError: somebody new, and a model that knows people by their user ids alone.
        """
        settings = self.config.settings
        users = user.get("user", torch.zeros_like(length))
        if self._reads_users and not bool((users > 0).all()):
            raise ConfigError(
                f"{settings.model} knows people by their user ids alone, so it needs a user of "
                "its training: give --user, or use a sequential model."
            )
        columns = {settings.USER_ID_FIELD: users}
        if self.is_sequential:
            width = self.max_seq_length
            padded = torch.nn.functional.pad(history, (0, width - history.shape[1]))  # [B, width]
            columns[history_column(self.config)] = padded
            columns[settings.ITEM_LIST_LENGTH_FIELD] = length
        batch = Interaction(columns).to(settings.device)
        try:
            scores = self.model.full_sort_predict(batch)
        except NotImplementedError:
            scores = self._score_each(batch, len(length))
        return scores.reshape(len(length), self.n_items).float().clone()

    def _score_each(self, batch: Interaction, n_users: int) -> Tensor:
        """Scores of models that score given pairs alone, as RecBole's trainer asks for them."""
        settings = self.config.settings
        pairs = batch.repeat_interleave(self.n_items)
        items = torch.arange(self.n_items, device=settings.device).repeat(n_users)
        pairs.update(Interaction({settings.ITEM_ID_FIELD: items}))
        return self.model.predict(pairs)
