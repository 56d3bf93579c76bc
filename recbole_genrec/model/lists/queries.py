"""What a model is asked for one person, by raw id and by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recbole_genrec.data.given_ids import check_ids
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.catalogue import Catalogue


def check_candidates(candidates: Any) -> None:
    """Refuse what is no list of items to choose among; ``None`` means all items.

    Raises:
        ConfigError: as in :func:`check_ids`, or the list is empty.
    """
    if candidates is None:
        return
    check_ids("candidates", candidates)
    if not len(candidates):
        raise ConfigError(
            "candidates is empty; give at least one item id, or leave it out for all items."
        )


@dataclass(frozen=True)
class Query:
    """One person's question for the best next items.

    Args:
        history: raw item ids, oldest first.
        k: how many items.
        candidates: raw ids to choose among; default all items.
        user: raw id of a user of the dataset, for methods that know users; default somebody new.
        excluded: raw ids of items that are left out; default those of ``history`` with
            ``exclude_history``, else none.
    """

    history: Sequence[str]
    k: int = 10
    candidates: Sequence[str] | None = None
    user: str | None = None
    excluded: Sequence[str] | None = None

    def check(self) -> None:
        """Refuse a query that no model can answer.

        Raises:
            ConfigError: a text where a list of ids is meant, an empty history or list of
                candidates, or a ``k`` below 1.
        """
        check_ids("history", self.history)
        if not len(self.history):
            raise ConfigError("The history is empty; give at least one item id.")
        check_candidates(self.candidates)
        if self.excluded is not None:
            check_ids("excluded", self.excluded)
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; it must be at least 1.")


class NumberedQuery(NamedTuple):
    """A query by internal ids.

    Attributes:
        history: item ids, oldest first.
        k: how many items.
        candidates: item ids to choose among, ascending; ``None`` = all.
        user: user id, 0 = somebody new.
        excluded: item ids that are left out; ``None`` = none.
    """

    history: list[int]
    k: int
    candidates: tuple[int, ...] | None
    user: int
    excluded: list[int] | None

    @classmethod
    def of(
        cls, query: Query, catalogue: Catalogue, exclude_history: bool, knows_users: bool
    ) -> NumberedQuery:
        """The query by internal ids.

        Args:
            query: by raw ids.
            catalogue: the items and users of the model.
            exclude_history: whether the items of a history are left out by default.
            knows_users: whether the model tells users apart.

        Raises:
            ConfigError: an unknown id, or a query that :meth:`Query.check` refuses.
        """
        query.check()
        history = catalogue.item_ids(query.history)
        candidates = None
        if query.candidates is not None:
            candidates = tuple(sorted(set(catalogue.item_ids(query.candidates))))
        user = 0
        if knows_users and query.user is not None:
            user = catalogue.user_id(query.user)
        excluded = None
        if query.excluded is not None:
            excluded = catalogue.item_ids(query.excluded)
        elif exclude_history:
            excluded = history
        return cls(history, query.k, candidates, user, excluded)


class QueryBatch(NamedTuple):
    """Queries that are ranked together, as tensors; see :func:`alike`.

    Attributes:
        history: int64 ``[B, T]``, right-padded with 0.
        length: int64 ``[B]``.
        k: how many items.
        candidates: item ids to choose among ``[n]``; ``None`` = all.
        user: int64 ``[B]``; ``None`` for people outside the dataset.
        excluded: int64 ``[B, H]``, 0 = none; ``None`` where nothing is left out.
    """

    history: Tensor
    length: Tensor
    k: int
    candidates: Tensor | None
    user: Tensor | None
    excluded: Tensor | None

    @classmethod
    def of(cls, queries: Sequence[NumberedQuery], longest: int, device: torch.device) -> QueryBatch:
        """The tensors of some queries.

        Args:
            queries: at least one.
            longest: how many of the last items of a history count.
            device: of the model.
        """
        first = queries[0]
        histories = [torch.tensor(query.history[-longest:]) for query in queries]
        length = torch.tensor([len(history) for history in histories])
        candidates = None
        if first.candidates is not None:
            candidates = torch.tensor(first.candidates)
        user = None
        if first.user:
            user = torch.tensor([query.user for query in queries])
        excluded = None
        if any(query.excluded is not None for query in queries):
            lists = [torch.tensor(query.excluded or [], dtype=torch.long) for query in queries]
            excluded = pad_sequence(lists, batch_first=True)
        history = pad_sequence(histories, batch_first=True)
        return cls(history, length, first.k, candidates, user, excluded).to(device)

    def to(self, device: torch.device) -> QueryBatch:
        """The same on a device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)

    def arguments(self) -> dict[str, Tensor]:
        """The argument ``user`` of the functions of a model that take it."""
        return {} if self.user is None else {"user": self.user}


def alike(queries: Sequence[NumberedQuery], size: int) -> list[list[int]]:
    """Queries that can be ranked together: of the same ``k`` and candidates, all or none by users.

    Those with histories of similar length stand together.

    Args:
        queries: any number.
        size: most queries of a batch.

    Returns:
        Places in ``queries``, batch by batch.
    """
    groups: dict[tuple, list[int]] = {}
    for place, query in enumerate(queries):
        group = (query.k, query.candidates, query.user > 0)
        groups.setdefault(group, []).append(place)
    batches = []
    for places in groups.values():
        places.sort(key=lambda place: len(queries[place].history))
        batches += [places[start : start + size] for start in range(0, len(places), size)]
    return batches
