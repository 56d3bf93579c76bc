"""Lists of many users at once, as tensors of a batch and as tables for programs and files.

:class:`UserLists` is a part of every method of ours; models of RecBole get it from
:mod:`recbole_genrec.experiments.recbole_lists`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from recbole_genrec.data.given_ids import check_ids, raw_id
from recbole_genrec.data.histories.choices import EventHistories, Histories
from recbole_genrec.errors import ConfigError
from recbole_genrec.model.lists.answers import Answering, ListOptions, Ranked
from recbole_genrec.model.lists.list_tables import (
    ListTable,
    Numbers,
    People,
    lists_bar,
)
from recbole_genrec.model.lists.queries import QueryBatch, check_candidates

CHUNK = 2048
"""Users whose lists are made between two tables of :meth:`UserLists.recommend_batches`."""


class UserLists(Answering):
    """Lists of many users, for a model that ranks batches.

    Attributes:
        histories: what the users of the loaded data have chosen; ``None`` without data.
    """

    histories: Histories | None = None

    # --- what a model has -------------------------------------------------------------------------

    def listable(self, history: Tensor, user: Tensor) -> Tensor:
        """Rows that the model can make a list for, bool ``[B]``; default all.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            user: user ids ``[B]``, 0 = somebody new.
        """
        return torch.ones_like(user, dtype=torch.bool)

    def list_titles(self) -> list[str]:
        """A title of each item by its id, for people."""
        raise NotImplementedError

    def list_code_words(self) -> list[str] | None:
        """The codes of each item by its id, as text; ``None`` for models without codes."""
        return None

    # --- lists ------------------------------------------------------------------------------------

    def recommend_all(
        self,
        users: Sequence[str] | Histories | None = None,
        k: int = 20,
        exclude_seen: bool | None = None,
        candidates: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """The best next items of many users, found in batches.

        Args:
            users: raw ids of users of the loaded data, or raw item ids by user, oldest first, of
                anybody; default all users of the data.
            k: length of each list.
            exclude_seen: whether items of a user's history stay out; default as
                ``exclude_history`` says.
            candidates: raw item ids to choose among; default all.

        Returns:
            A row for each user and item, best first: ``user_id``, ``rank``, ``item_id``, ``title``,
            ``score``, and of models with codes ``certified`` and ``codes``. A user of whose items
            the model knows none has no rows.

        Raises:
            ConfigError: an unknown user or candidate, a text where a list of ids is meant, an empty
                list of candidates, a ``k`` below 1, or there is no data.
        """
        tables = list(self.recommend_batches(users, k, exclude_seen, candidates))
        return pd.concat(tables, ignore_index=True)

    def recommend_batches(
        self,
        users: Sequence[str] | Histories | None = None,
        k: int = 20,
        exclude_seen: bool | None = None,
        candidates: Sequence[str] | None = None,
        progress: tqdm | None = None,
        shared: tuple[Numbers, ListTable] | None = None,
    ) -> Iterator[pd.DataFrame]:
        """The tables of :meth:`recommend_all` for the next users each, so that memory stays small.

        Args:
            users: as there.
            k: as there.
            exclude_seen: as there.
            candidates: as there.
            progress: a bar to move on; default a new one.
            shared: what :meth:`list_parts` gave, where this is called several times.

        Raises:
            ConfigError: as there.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; it must be at least 1.")
        check_candidates(candidates)
        self.leave_training_mode()
        options = self.list_options()
        excludes = options.exclude_history
        if exclude_seen is not None:
            excludes = exclude_seen
        chosen = None
        if candidates is not None:
            chosen = torch.tensor(self.catalogue.item_ids(candidates), device=options.device)

        tokens, histories = self._histories_of(users)
        numbers, table = shared or self.list_parts()
        bar = progress
        if bar is None:
            bar = lists_bar(len(tokens), options.show_progress)
        for start in range(0, max(1, len(tokens)), CHUNK):
            people = numbers.people(tokens[start : start + CHUNK], histories)
            yield table.of(people.tokens, self._lists(people, k, excludes, chosen, options, bar))
        if progress is None:
            bar.close()

    def list_parts(self) -> tuple[Numbers, ListTable]:
        """What lists need of the catalogue as it is; takes time in a large one."""
        table = ListTable(self.catalogue.items, self.list_titles(), self.list_code_words())
        return Numbers(self.catalogue), table

    def _histories_of(self, users: Sequence[str] | Histories | None) -> tuple[list[str], Histories]:
        """Raw ids of the people that ``users`` means, and histories that hold theirs."""
        if isinstance(users, Mapping):
            return [raw_id(user) for user in users], _by_raw_id(users)
        if self.histories is None:
            raise ConfigError(
                "There is no data of users with this model. Load it where the dataset's files are "
                "(data_path), or give histories: users={'u1': ['item', 'item']}."
            )
        if users is None:
            return list(self.histories), self.histories
        check_ids("users", users, "user")
        tokens = [raw_id(user) for user in users]
        unknown = [user for user in tokens if user not in self.histories]
        if unknown:
            raise ConfigError(
                f"There is no user {unknown[0]!r} in the data ({len(unknown)} of {len(tokens)} ids "
                "are unknown). Give histories for people outside it."
            )
        return list(dict.fromkeys(tokens)), self.histories

    @torch.no_grad()
    def _lists(
        self,
        people: People,
        k: int,
        excludes: bool,
        candidates: Tensor | None,
        options: ListOptions,
        bar: tqdm,
    ) -> list[Ranked]:
        """The lists of some people, in their order; empty for those that can have none.

        Histories of similar length are ranked together.
        """
        lists: list[Ranked] = [[] for _ in people.tokens]
        recent = [known[-self.max_seq_length :] for known in people.known]
        lengths = torch.tensor([len(row) for row in recent], dtype=torch.long)
        bar.update(int((lengths == 0).sum()))
        some = (lengths > 0).nonzero().squeeze(1)
        by_length = some[lengths[some].argsort(stable=True)]
        for rows in by_length.split(options.batch_size):
            if not len(rows):
                continue
            history = pad_sequence([recent[row] for row in rows], batch_first=True)
            bar.update(len(rows))
            listable = self.listable(history, people.numbers[rows])
            rows = rows[listable]
            if not len(rows):
                continue
            user = people.numbers[rows] if self.uses_users else None
            excluded = None
            if excludes:
                excluded = pad_sequence([people.known[row] for row in rows], batch_first=True)
            batch = QueryBatch(history[listable], lengths[rows], k, candidates, user, excluded)
            ranked = self._ranked(batch.to(options.device))
            for row, best in zip(rows.tolist(), ranked, strict=True):
                lists[row] = best
        return lists


def _by_raw_id(histories: Histories) -> Histories:
    """Histories that a program gave, whose keys need not be text."""
    if isinstance(histories, EventHistories):
        return histories
    for user, items in histories.items():
        check_ids(f"The history of user {user!r}", items)
    return {raw_id(user): items for user, items in histories.items()}
