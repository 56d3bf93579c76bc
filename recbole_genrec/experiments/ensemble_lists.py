"""Lists of people from an ensemble, in the form of :class:`UserLists`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.ensemble_file import EnsembleFile
from recbole_genrec.experiments.ensemble_members import (
    check_scores,
    log_probabilities,
    make_known,
)
from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.experiments.recbole_lists import BATCH, CatalogueLists
from recbole_genrec.experiments.served import Served
from recbole_genrec.model.lists.answers import ListOptions
from recbole_genrec.model.lists.catalogue import Catalogue


class EnsembleLists(CatalogueLists):
    """Members whose log-probabilities are added.

    The items are those that all members know, the users those that any member knows.

    Args:
        served: the members.
        weights: one for each.
    """

    def __init__(self, served: Sequence[Served], weights: Sequence[float]) -> None:
        self.served = list(served)
        self.weights = list(weights)
        first = self.served[0]
        self.config = first.config
        self.catalogue = Catalogue(_common_items(served), _all_users(served))
        self.histories = first.histories
        self.uses_users = any(member.model.uses_users for member in self.served)
        self.max_seq_length = max(member.model.max_seq_length for member in self.served)
        self.trained_on = getattr(first.model, "trained_on", None)
        device = first.config.settings.device
        self._items = [_items_of(member, self.catalogue).to(device) for member in self.served]
        self._users = [_users_of(member, self.catalogue).to(device) for member in self.served]

    @classmethod
    def load(cls, path: str, model_class: type | str | None = None, **changes: Any) -> Served:
        """The ensemble of a file.

        Args:
            path: what ``recbole-genrec ensemble`` wrote.
            model_class: the class of members from outside this package.
            **changes: settings to replace, of all members; the file's own hold for the others.
        """
        file = EnsembleFile.read(path)
        make_known(model_class)
        served = []
        for checkpoint in file.checkpoints:
            member = load_recommender(checkpoint, **file.changed(changes))
            check_scores(checkpoint, member.config)
            served.append(member)
        lists = cls(served, file.weights)
        return Served(lists.config, lists, lists.histories)

    def leave_training_mode(self) -> None:
        """As that of each member."""
        for member in self.served:
            member.model.leave_training_mode()

    def list_titles(self) -> list[str]:
        """Titles by item id."""
        return self._titles

    def list_texts(self) -> list[str]:
        """Texts by item id."""
        return self._texts

    @functools.cached_property
    def _titles(self) -> list[str]:
        titles = self.served[0].model.list_titles()
        return [titles[item] for item in self._items[0].tolist()]

    @functools.cached_property
    def _texts(self) -> list[str]:
        texts = self.served[0].model.list_texts()
        return [texts[item] for item in self._items[0].tolist()]

    def list_options(self) -> ListOptions:
        """What the settings of the first member say about lists."""
        return self.served[0].model.list_options()._replace(batch_size=BATCH)

    def listable(self, history: Tensor, user: Tensor) -> Tensor:
        """Rows that every member can make a list for."""
        rows = torch.ones_like(user, dtype=torch.bool)
        for member, items, users in zip(self.served, self._items, self._users, strict=True):
            known = items.to(history.device)[history]
            rows &= member.model.listable(known, users.to(user.device)[user])
        return rows

    @torch.no_grad()
    def list_scores(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> Tensor:
        """Weighted sums of log-probabilities, ``[B, n_items]``."""
        total = torch.zeros((), device=history.device)
        for member, weight, items, users in zip(
            self.served, self.weights, self._items, self._users, strict=True
        ):
            model = member.model
            recent, lengths = _last_items(items[history], length, model.max_seq_length)
            numbers = {}
            if model.uses_users:
                numbers = {name: users[value] for name, value in user.items()}
            among = None if candidates is None else items[candidates]
            without = None if excluded is None else items[excluded]
            scores = model.list_scores(recent, lengths, k, among, without, **numbers)
            total = total + weight * log_probabilities(scores)[:, items]
        return total


def _common_items(served: Sequence[Served]) -> list[str]:
    """Raw ids of the items that all members know, in the order of the first one.

    Raises:
        ConfigError: there is none.
    """
    known = [set(member.model.item_tokens) for member in served]
    common = set.intersection(*known)
    if len(common) < 2:  # the padding item alone
        raise ConfigError("The members of this ensemble have no item in common. Train them anew.")
    others = set.union(*known) - common
    if others:
        example = min(others)
        names = [
            member.config.settings.model
            for member, items in zip(served, known, strict=True)
            if example not in items
        ]
        logging.getLogger().warning(
            f"{len(others)} items are not known to all members of the ensemble, for example "
            f"{example!r}, which {' and '.join(names)} does not know; they are in no list and do "
            "not count in histories. Train again to have them."
        )
    return [token for token in served[0].model.item_tokens if token in common]


def _all_users(served: Sequence[Served]) -> list[str]:
    """Raw ids of the users that any member knows; entry 0 is the padding user."""
    known = [member.model.catalogue.users for member in served]
    return list(dict.fromkeys(user for users in known for user in users))


def _items_of(member: Served, catalogue: Catalogue) -> Tensor:
    """A member's id of each item of the ensemble, ``[n_items]``."""
    number = {token: row for row, token in enumerate(member.model.item_tokens)}
    return torch.tensor([number[token] for token in catalogue.items])


def _users_of(member: Served, catalogue: Catalogue) -> Tensor:
    """A member's id of each user of the ensemble, ``[n_users]``; 0 = nobody it knows.

    Members that were trained on different days number the same users differently.
    """
    numbers = {token: row for row, token in enumerate(member.model.catalogue.users) if row}
    return torch.tensor([0, *(numbers.get(token, 0) for token in catalogue.users[1:])])


def _last_items(history: Tensor, length: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The last ``longest`` items of each history ``[B, T]``, right-padded, and their numbers."""
    start = (length - longest).clamp(min=0).unsqueeze(1)
    slots = torch.arange(min(longest, history.shape[1]), device=history.device)
    place = (start + slots).clamp(max=history.shape[1] - 1)
    lengths = length.clamp(max=longest)
    recent = history.gather(1, place).masked_fill(slots >= lengths.unsqueeze(1), 0)
    return recent[:, : int(lengths.max())], lengths
