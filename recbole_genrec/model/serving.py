"""A trained model in use: recommendations for any history, and new items."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError


class Serving:
    """Part of ``GenRecModel``: raw ids in, raw ids out."""

    @torch.no_grad()
    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        candidates: Sequence[str] | None = None,
        user: str | None = None,
    ) -> list[dict]:
        """The best next items after a history of raw item ids; the user need not have been in training.

        Args:
            history: raw item ids, oldest first; the last ``MAX_ITEM_LIST_LENGTH`` count.
            candidates: raw ids to choose among; default all items.
            user: raw id of a user of the dataset, for methods that know users; default somebody new.

        Returns:
            ``[{"rank", "item", "text", "score", ...}]``, best first; scores and further columns are those of the method's ``ranked``.
        """
        if isinstance(history, str):
            raise ConfigError(f"history must be a list of item ids, got {history!r}.")
        if not len(history):
            raise ConfigError("The history is empty; give at least one item id.")
        if candidates is not None and not len(candidates):
            raise ConfigError(
                "candidates is empty; give at least one item id, or leave it out for all items."
            )
        if k < 1:
            raise ConfigError(f"k is {k}; it must be at least 1.")
        device = self.codes.device
        ids = torch.tensor([self.item_ids(history)[-self.max_seq_length :]], device=device)
        chosen = (
            None if candidates is None else torch.tensor(self.item_ids(candidates), device=device)
        )
        more = (
            {"user": torch.tensor([self._user_id(user)], device=device)}
            if self.uses_users and user is not None
            else {}
        )
        self.eval()
        rows = self.ranked(ids, torch.tensor([ids.shape[1]], device=device), k, chosen, **more)
        return [
            {
                "rank": rank,
                "item": self.item_tokens[item],
                "text": self.content.text[item],
                **columns,
            }
            for rank, (item, columns) in enumerate(rows, start=1)
        ]

    def item_ids(self, tokens: Sequence[str], where: str = "") -> list[int]:
        """Internal ids of raw item ids; :class:`ConfigError` for the first unknown one, found ``where``."""
        known = {token: number for number, token in enumerate(self.item_tokens)}
        unknown = [
            str(token) for token in tokens if str(token) not in known or known[str(token)] == 0
        ]
        if unknown:
            count = f"{len(unknown)} of {len(tokens)} ids are unknown"
            raise ConfigError(
                f"There is no item {unknown[0]!r} ({count}){where}. Give ids of the .item file."
            )
        return [known[str(token)] for token in tokens]

    def _user_id(self, token: str) -> int:
        if str(token) not in self.user_tokens[1:]:
            raise ConfigError(
                f"There is no user {token!r} in the dataset. Leave the user out for somebody new."
            )
        return self.user_tokens.index(str(token))

    def new_tokens(self, texts: Sequence[str], tokens: Sequence[str] | None) -> list[str]:
        """Raw ids of new items: ``tokens``, or ``new-<internal id>``; :class:`ConfigError` unless each is one item's own."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"texts must be a list with one text an item, got {texts!r:.80}.")
        first = len(self.codes)
        tokens = (
            list(tokens) if tokens is not None else [f"new-{first + n}" for n in range(len(texts))]
        )
        if len(tokens) != len(texts) or len({*self.item_tokens, *tokens}) != len(
            self.item_tokens
        ) + len(tokens):
            raise ConfigError(
                f"{len(texts)} new items need as many ids that no item has yet, got {tokens[:5]}."
            )
        return tokens

    def append_items(self, codes: Tensor, texts: Sequence[str], tokens: Sequence[str]) -> list[int]:
        """Take new items with ``codes [n, L]`` into the catalogue; their internal ids."""
        first = len(self.codes)
        self.codes = torch.cat([self.codes, codes.to(self.codes.device)])
        self.item_tokens += tokens
        self.content.extend(list(texts))
        self.n_items = len(self.codes)
        return list(range(first, self.n_items))
