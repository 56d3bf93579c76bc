"""The lists of a method that generates codes: a search over its decoder, not a row of all items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_genrec.decoding import CodeDecoder, ItemTrie, SearchLog, SearchResult, path_scores
from recbole_genrec.decoding.scores import outside_score, unreached_score
from recbole_genrec.model.coded import CodedModel
from recbole_genrec.model.lists.answers import Ranked
from recbole_genrec.model.search.code_search import CodeSearch, lists_with_proof


class SearchedModel(CodedModel):
    """A method with codes whose lists a search finds.

    Args:
        config: a ``GenRecConfig``.
        dataset: RecBole's training dataset.
        stored: ``other_parameter()`` of a checkpoint; then no tokenizer stage runs.
    """

    searches_codes = True

    def __init__(self, config, dataset, stored: dict | None = None):
        super().__init__(config, dataset, stored)
        self._search = CodeSearch(self.settings)

    def item_logits(self, history: Tensor, length: Tensor, *_: Any, **user: Any) -> CodeDecoder:
        """Next-code log-probabilities, level by level, as a decoder that the search steps through.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            **user: with :attr:`uses_users`, ``user``: user ids ``[B]``.
        """
        raise NotImplementedError

    @property
    def has_one_tree(self) -> bool:
        """Whether :meth:`item_logits` alone gives the lists, along one tree of codes."""
        return True

    # --- RecBole's interface ----------------------------------------------------------------------

    def scores(self, history: Tensor, length: Tensor, **user: Any) -> Tensor:
        """Reached items carry their log-likelihood, the others a finite value below every one."""
        return self._filled(history, length, **user)

    def scores_without(
        self, excluded: Tensor, history: Tensor, length: Tensor, **user: Any
    ) -> Tensor:
        """As the base's; the search itself leaves the items out, so that its lists stay full."""
        return self._filled(history, length, excluded=excluded, **user)

    def _filled(self, history: Tensor, length: Tensor, **options: Any) -> Tensor:
        """Scores of all items ``[B, n_items]`` by :meth:`search`, which takes the ``options``."""
        scores = self.search(history, length, fill=True, **options).full
        assert scores is not None
        return scores

    @property
    def scores_every_item(self) -> bool:
        """Whether the search scores all items, as with ``score_mode: exact``."""
        return self.settings.score_mode == "exact" and self.settings.constraint == "trie"

    @property
    def unranked_score(self) -> float:
        """Score up to which items have no place in a list.

        They are no candidates, or a search that does not follow the trie has not reached them.
        """
        return self._unranked_score(self.search_trie)

    def _unranked_score(self, trie: ItemTrie) -> float:
        if self.settings.constraint == "trie":
            return outside_score(trie)
        return unreached_score(trie)

    def _best_of(
        self, k: int, history: Tensor, length: Tensor, excluded: Tensor | None, **user: Any
    ) -> tuple[Tensor, Tensor]:
        """As the base's, from the lists of the search.

        A user whose search of the trie reached fewer than ``k`` items is searched again with all
        items ranked, because the places below are ordered by bounds.
        """
        if self.scores_every_item:
            return super()._best_of(k, history, length, excluded, **user)
        result = self.search(history, length, k, excluded=excluded, **user)
        items = result.items[:, :k]
        scores = result.scores[:, :k]
        if self.settings.constraint != "trie":
            return items, scores
        short = (items == 0).any(1).nonzero().squeeze(1)  # [R]
        if len(short):
            of_short = {name: ids[short] for name, ids in user.items()}
            if excluded is not None:
                excluded = excluded[short]
            with self._search.uncounted():
                rest = super()._best_of(k, history[short], length[short], excluded, **of_short)
            items[short], scores[short] = rest
        return items, scores

    def decoder(self, interaction) -> CodeDecoder:
        """:meth:`item_logits` of a batch of RecBole's."""
        return self.item_logits(*self._history(interaction), **self._user(interaction))

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """Log-likelihood ``[B]`` of the given item of each row, under the same ``score_type``."""
        history, length = self._history(interaction)
        user = self._user(interaction)
        items = interaction[self.ITEM_ID].unsqueeze(1)  # [B, 1]
        scores = []
        for rows in torch.arange(len(length), device=length.device).split(
            self.settings.search_batch_size
        ):
            users = {name: ids[rows] for name, ids in user.items()}
            decoder = self.item_logits(history[rows], length[rows], **users)
            scores.append(
                path_scores(
                    decoder, self.search_trie, items[rows], score_type=self.settings.score_type
                )
            )
        return torch.cat(scores).squeeze(1)

    # --- search -----------------------------------------------------------------------------------

    @torch.no_grad()
    def search(
        self,
        history: Tensor,
        length: Tensor,
        k: int | None = None,
        fill: bool = False,
        trie: ItemTrie | None = None,
        excluded: Tensor | None = None,
        **user: Tensor,
    ) -> SearchResult:
        """The best items of each user by the configured search.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            length: ``[B]``.
            k: how many items; default ``max(topk)``.
            fill: also score all items.
            trie: of the items to choose among; default :attr:`search_trie`.
            excluded: item ids ``[B, H]`` that each user must not get, 0 = none.
            **user: ``user`` ids ``[B]``, for methods that use them.
        """
        if trie is None:
            trie = self.search_trie
        decoder = self.item_logits(history[:, : int(length.max())], length, **user)
        result = self._search_result(decoder, trie, k or max(self.settings.topk), fill, excluded)
        self.search_log.add(result)
        return result

    def _search_result(
        self,
        decoder: CodeDecoder,
        trie: ItemTrie,
        k: int,
        fill: bool,
        excluded: Tensor | None,
    ) -> SearchResult:
        """The lists of users, as of :meth:`search`; what comes back here is counted.

        Args:
            decoder: next-code log-probabilities of B users.
            trie: of the items to choose among.
            k: how many items.
            fill: also score all items.
            excluded: item ids ``[B, H]`` that each user must not get, 0 = none.
        """
        return self._search.best(decoder, trie, k, fill, excluded)

    def list_scores(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Any,
    ) -> Tensor:
        """As :meth:`scores`, of a search for ``k`` items or more.

        Items that have no place in a list get -inf.
        """
        trie = self.trie_of(candidates)
        k = max(k, *self.settings.topk)
        scores = self._filled(history, length, k=k, trie=trie, excluded=excluded, **user)
        return scores.masked_fill(scores <= self._unranked_score(trie), -torch.inf)

    def ranked_lists(
        self,
        history: Tensor,
        length: Tensor,
        k: int,
        candidates: Tensor | None,
        excluded: Tensor | None = None,
        **user: Any,
    ) -> list[Ranked]:
        """The best items of each user, as the base's; scores are sums of log-probabilities.

        ``certified`` says of an item that the list up to it is proven to be the exact best.
        """
        trie = self.trie_of(candidates)
        result = self.search(history, length, k=k, trie=trie, excluded=excluded, **user)
        return lists_with_proof(result, k)

    def trie_of(self, candidates: Tensor | None) -> ItemTrie:
        """The trie of the items to choose among; ``None`` = all."""
        if candidates is None:
            return self.trie
        return self._tries.among(self.trie, candidates)

    @property
    def search_log(self) -> SearchLog:
        """Statistics of the searches since :meth:`reset_search_log`."""
        return self._search.log

    def reset_search_log(self) -> None:
        """Forget the search statistics; our trainer does so before each evaluation."""
        self._search.reset_log()
