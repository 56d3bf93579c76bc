"""Lists of the best next items, for one person or for several who ask at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_genrec.decoding.topk import ordered_topk
from recbole_genrec.model.lists.catalogue import Catalogue
from recbole_genrec.model.lists.queries import NumberedQuery, Query, QueryBatch, alike

Ranked = list[tuple[int, dict[str, Any]]]
"""Item ids with their score and other columns, best first."""


def lists_of_scores(
    scores: Tensor, k: int, candidates: Tensor | None, excluded: Tensor | None
) -> list[Ranked]:
    """The items of the highest scores of each row; equal ones in the order of their ids.

    Args:
        scores: ``[B, n_items]``; -inf for items that must not appear. Column 0 is not looked at.
        k: how many items.
        candidates: item ids to choose among; default all.
        excluded: item ids ``[B, H]`` that are left out, 0 = none; default none.
    """
    if candidates is None:
        items = torch.arange(1, scores.shape[1], device=scores.device)
    else:
        items = candidates.unique()
    if excluded is not None:
        scores = scores.scatter(1, excluded, -torch.inf)
    values, places = ordered_topk(scores[:, items], min(k, len(items)))
    lists = []
    for best, best_scores in zip(items[places].tolist(), values.tolist(), strict=True):
        pairs = zip(best, best_scores, strict=True)
        lists.append([(item, {"score": score}) for item, score in pairs if score > -math.inf])
    return lists


class ListOptions(NamedTuple):
    """What the settings of a model say about lists.

    Attributes:
        exclude_history: whether items of the history stay out.
        batch_size: people that are ranked at once.
        show_progress: whether a bar is shown.
        device: of the model.
    """

    exclude_history: bool
    batch_size: int
    show_progress: bool
    device: torch.device


class Answering:
    """A model that answers questions for the best next items.

    Attributes:
        catalogue: raw ids of the items and users.
        max_seq_length: how many of the last items of a history count.
        uses_users: whether :meth:`ranked_lists` takes ``user``, ids of users ``[B]``.
    """

    catalogue: Catalogue
    max_seq_length: int
    uses_users: bool = False

    # --- what a model has -------------------------------------------------------------------------

    def scores(self, history: Tensor, length: Tensor, *_: Any, **user: Any) -> Tensor:
        """Scores of all items, float32 ``[B, n_items]``; column 0 is not looked at.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            **user: with :attr:`uses_users`, ``user``: user ids ``[B]``.
        """
        raise NotImplementedError

    def list_scores(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        *_: Any,
        **user: Any,
    ) -> Tensor:
        """Scores of all items for lists of ``k``, ``[B, n_items]``; by default :meth:`scores`.

        Arguments are those of :meth:`ranked_lists`. A search needs all of them, so that it finds
        the items that may appear; the scores of the others mean nothing.
        """
        return self.scores(history, length, **user)

    def ranked_lists(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> list[Ranked]:
        """The best items of each user, by default those of the highest :meth:`list_scores`.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            k: how many items.
            candidates: item ids to choose among; default all.
            excluded: item ids ``[B, H]`` that are left out, 0 = none; default none.
            **user: with :attr:`uses_users`, ``user``: user ids ``[B]``, 0 = somebody new. Left out
                where nobody is known.

        Returns:
            For each user item ids with ``{"score": ...}`` and other columns, best first.
        """
        scores = self.list_scores(history, length, k, candidates, excluded, **user)
        return lists_of_scores(scores, k, candidates, excluded)

    def list_texts(self) -> list[str]:
        """The text of each item by its id."""
        raise NotImplementedError

    def list_options(self) -> ListOptions:
        """What the settings say about lists."""
        raise NotImplementedError

    def leave_training_mode(self) -> None:
        """Called before lists are made."""
        raise NotImplementedError

    # --- answers ----------------------------------------------------------------------------------

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        candidates: Sequence[str] | None = None,
        user: str | None = None,
        excluded: Sequence[str] | None = None,
        exclude_seen: bool | None = None,
    ) -> list[dict]:
        """The best next items after a history; its user need not have been in training.

        Args:
            history: raw item ids, oldest first; the last ``MAX_ITEM_LIST_LENGTH`` count.
            k: how many items.
            candidates: raw ids to choose among; default all items.
            user: raw id of a user of the dataset, for methods that know users; default somebody
                new.
            excluded: raw ids of items that are left out.
            exclude_seen: without ``excluded``, whether those of ``history`` are left out; default
                as ``exclude_history`` says.

        Returns:
            ``[{"rank", "item", "text", "score", ...}]``, best first; scores and further columns are
            those of :meth:`ranked_lists`.

        Raises:
            ConfigError: an unknown id, an empty history or list, or a ``k`` below 1.
        """
        if excluded is None and exclude_seen is not None:
            excluded = history if exclude_seen else []
        query = Query(history, k, candidates, user, excluded)
        return self.recommend_batch([query])[0]

    @torch.no_grad()
    def recommend_batch(self, queries: Sequence[Query]) -> list[list[dict]]:
        """The best next items for many people, each as :meth:`recommend` gives them.

        Queries with the same ``k`` and the same candidates are ranked together,
        ``search_batch_size`` at once.

        Args:
            queries: what each person asks.

        Returns:
            A list for each query.

        Raises:
            ConfigError: as in :meth:`recommend`.
        """
        options = self.list_options()
        numbered = [
            NumberedQuery.of(query, self.catalogue, options.exclude_history, self.uses_users)
            for query in queries
        ]
        self.leave_training_mode()
        answers: list[list[dict]] = [[] for _ in queries]
        for places in alike(numbered, options.batch_size):
            together = [numbered[place] for place in places]
            lists = self._ranked(QueryBatch.of(together, self.max_seq_length, options.device))
            for place, rows in zip(places, lists, strict=True):
                answers[place] = self._described(rows)
        return answers

    def _ranked(self, batch: QueryBatch) -> list[Ranked]:
        """:meth:`ranked_lists` of a batch."""
        return self.ranked_lists(
            batch.history,
            batch.length,
            batch.k,
            batch.candidates,
            batch.excluded,
            **batch.arguments(),
        )

    def _described(self, rows: Ranked) -> list[dict]:
        """A list with places, raw ids and texts."""
        texts = self.list_texts()
        return [
            {
                "rank": rank,
                "item": self.catalogue.items[item],
                "text": texts[item],
                **columns,
            }
            for rank, (item, columns) in enumerate(rows, start=1)
        ]
