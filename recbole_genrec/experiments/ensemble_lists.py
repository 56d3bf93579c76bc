"""Lists of people from an ensemble, in the form of :class:`UserLists`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.ensemble_file import EnsembleFile
from recbole_genrec.experiments.ensemble_members import check_scores
from recbole_genrec.experiments.loading import Served, load_recommender
from recbole_genrec.experiments.recbole_lists import BATCH, CatalogueLists
from recbole_genrec.model.answers import ListOptions, Ranked, best_of


class EnsembleLists(CatalogueLists):
    """Members whose log-probabilities are added.

    Args:
        served: the members.
        weights: one for each.
    """

    def __init__(self, served: Sequence[Served], weights: Sequence[float]) -> None:
        self.served = list(served)
        self.weights = list(weights)
        first = self.served[0]
        self.config = first.config
        self.catalogue = first.model.catalogue
        self.histories = first.histories
        self.uses_users = any(member.model.uses_users for member in self.served)
        self.max_seq_length = max(member.model.max_seq_length for member in self.served)
        self.trained_on = getattr(first.model, "trained_on", None)
        self._items = [_items_of(member, first) for member in self.served]
        self._users = [_users_of(member, first) for member in self.served]

    @classmethod
    def load(cls, path: str, **changes: Any) -> Served:
        """The ensemble of a file.

        Args:
            path: what ``recbole-genrec ensemble`` wrote.
            **changes: settings to replace, of all members.
        """
        file = EnsembleFile.read(path)
        served = []
        for checkpoint in file.checkpoints:
            member = load_recommender(checkpoint, **changes)
            check_scores(checkpoint, member.config)
            served.append(member)
        lists = cls(served, file.weights)
        return Served(lists.config, lists, lists.histories)

    @property
    def training(self) -> bool:
        """Whether a member is in training mode."""
        return any(member.model.training for member in self.served)

    def eval(self) -> EnsembleLists:
        """As torch's."""
        for member in self.served:
            member.model.eval()
        return self

    def list_titles(self) -> list[str]:
        """Titles by item id."""
        return self.served[0].model.list_titles()

    def list_texts(self) -> list[str]:
        """Texts by item id."""
        return self.served[0].model.list_texts()

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
    def ranked_lists(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> list[Ranked]:
        """The items of the highest weighted sums of log-probabilities."""
        total = torch.zeros((), device=history.device)
        for member, weight, items, users in zip(
            self.served, self.weights, self._items, self._users, strict=True
        ):
            numbers = {name: users[value] for name, value in user.items()}
            scores = _scores(member, items[history], length, numbers)
            scores[:, 0] = -torch.inf
            total = total + weight * torch.log_softmax(scores.float(), dim=1)[:, items]
        return best_of(total, k, candidates, excluded)


def _items_of(member: Served, first: Served) -> Tensor:
    """A member's id of each item of the first one, ``[n_items]``.

    Raises:
        ConfigError: the two do not know the same items.
    """
    here, there = first.model.item_tokens, member.model.item_tokens
    if set(here) != set(there):
        raise ConfigError("The members of this ensemble know different items. Train them anew.")
    number = {token: row for row, token in enumerate(there)}
    device = first.config["device"]
    return torch.tensor([number[token] for token in here], device=device)


def _users_of(member: Served, first: Served) -> Tensor:
    """A member's id of each user of the first one, ``[n_users]``; 0 = nobody it knows.

    Members that were trained on different days number the same users differently.
    """
    numbers = {token: row for row, token in enumerate(member.model.catalogue.users) if row}
    tokens = first.model.catalogue.users[1:]
    device = first.config["device"]
    return torch.tensor([0, *(numbers.get(token, 0) for token in tokens)], device=device)


def _scores(member: Served, history: Tensor, length: Tensor, user: dict[str, Tensor]) -> Tensor:
    """Scores of all items by a member, ``[B, n_items]``, from the last items that it reads."""
    model = member.model
    longest = model.max_seq_length
    start = (length - longest).clamp(min=0).unsqueeze(1)
    slots = torch.arange(min(longest, history.shape[1]), device=history.device)
    place = (start + slots).clamp(max=history.shape[1] - 1)
    lengths = length.clamp(max=longest)
    recent = history.gather(1, place).masked_fill(slots >= lengths.unsqueeze(1), 0)
    known = user if model.uses_users else {}
    return model.scores(recent[:, : int(lengths.max())], lengths, **known)
