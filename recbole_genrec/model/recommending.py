"""The use of a model after training: lists of the best next items, for one person or for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recbole_genrec.decoding.topk import ordered_topk
from recbole_genrec.model.queries import NumberedQuery, Query, QueryBatch, alike
from recbole_genrec.model.stored import StoredModel

Ranked = list[tuple[int, dict[str, Any]]]


class Recommending(StoredModel):
    """Lists of the best next items; a part of :class:`~recbole_genrec.model.base.GenRecModel`.

    Attributes:
        uses_users: whether ``loss``, ``scores`` and ``ranked_lists`` take ``user``, RecBole's user
            ids ``[B]``.
    """

    uses_users: bool = False

    def scores(self, history: Tensor, length: Tensor, **user: Tensor) -> Tensor:
        """Scores of all items, float32 ``[B, n_items]``; column 0 is not looked at.

        Args:
            history: item ids ``[B, T]``, oldest first, right-padded with 0.
            length: ``[B]``.
            **user: with :attr:`uses_users`, ``user``: user ids ``[B]``.
        """
        raise NotImplementedError

    def ranked_lists(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> list[Ranked]:
        """The best items of each user, by default those of the highest :meth:`scores`.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            k: how many items.
            candidates: item ids to choose among; default all.
            excluded: item ids ``[B, H]`` that are left out, 0 = none; default none.
            **user: as in :meth:`scores`; 0 = somebody new. Left out where nobody is known.

        Returns:
            For each user item ids with ``{"score": ...}`` and other columns, best first.
        """
        scores = self.scores(history, length, **user)
        if candidates is None:
            items = torch.arange(1, self.n_items, device=history.device)
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

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        candidates: Sequence[str] | None = None,
        user: str | None = None,
        excluded: Sequence[str] | None = None,
    ) -> list[dict]:
        """The best next items after a history; its user need not have been in training.

        Args:
            history: raw item ids, oldest first; the last ``MAX_ITEM_LIST_LENGTH`` count.
            k: how many items.
            candidates: raw ids to choose among; default all items.
            user: raw id of a user of the dataset, for methods that know users; default somebody
                new.
            excluded: raw ids of items that are left out; default those of ``history`` with
                ``exclude_history``, else none.

        Returns:
            ``[{"rank", "item", "text", "score", ...}]``, best first; scores and further columns are
            those of :meth:`ranked_lists`.

        Raises:
            ConfigError: an unknown id, an empty history or list, or a ``k`` below 1.
        """
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
        hide = self.settings.exclude_history
        numbered = [
            NumberedQuery.of(query, self.catalogue, hide, self.uses_users) for query in queries
        ]
        self.eval()
        answers: list[list[dict]] = [[] for _ in queries]
        for places in alike(numbered, self.settings.search_batch_size):
            lists = self._ranked_together([numbered[place] for place in places])
            for place, rows in zip(places, lists, strict=True):
                answers[place] = self._described(rows)
        return answers

    def _ranked_together(self, queries: list[NumberedQuery]) -> list[Ranked]:
        device = self._weights_device()
        batch = QueryBatch.of(queries, self.max_seq_length, device)
        candidates = None
        if queries[0].candidates is not None:
            candidates = torch.tensor(queries[0].candidates, device=device)
        users = {}
        if batch.user is not None:
            users["user"] = batch.user
        return self.ranked_lists(
            batch.history, batch.length, queries[0].k, candidates, batch.excluded, **users
        )

    def _described(self, rows: Ranked) -> list[dict]:
        """A list with places, raw ids and texts."""
        return [
            {
                "rank": rank,
                "item": self.item_tokens[item],
                "text": self.content.text[item],
                **columns,
            }
            for rank, (item, columns) in enumerate(rows, start=1)
        ]
