"""A trained model in use: recommendations for any history, and new items."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recbole_genrec.errors import ConfigError


class Serving:
    """Part of ``GenerativeRecommender``: raw item ids in, raw item ids out."""

    @torch.no_grad()
    def recommend(self, history: Sequence[str], k: int = 10, candidates: Sequence[str] | None = None) -> list[dict]:
        """The best next items after a history of raw item ids; the user need not have been in training.

        Args:
            history: raw item ids, oldest first; the last ``MAX_ITEM_LIST_LENGTH`` count.
            candidates: raw ids to choose among; default all items.

        Returns:
            ``[{"rank", "item", "text", "score", "certified"}]``; scores are sums of log-probabilities; ``certified`` = the list up to this
            rank is proven to be the exact best.
        """
        if not len(history):
            raise ConfigError("The history is empty; give at least one item id.")
        if k < 1:
            raise ConfigError(f"k is {k}; it must be at least 1.")
        ids = torch.tensor([self._ids(history)[-self.max_seq_length :]], device=self.codes.device)
        trie = self.trie if candidates is None else self.trie.subset(torch.tensor(self._ids(candidates), device=self.codes.device))
        self.eval()
        result = self.search(ids, torch.tensor([ids.shape[1]], device=ids.device), k=k, trie=trie)
        return [
            {
                "rank": rank,
                "item": self.item_tokens[item],
                "text": self.content.text[item],
                "score": score,
                "certified": bool(result.certified(rank)),
            }
            for rank, (item, score) in enumerate(zip(result.items[0, :k].tolist(), result.scores[0, :k].tolist(), strict=True), start=1)
            if item
        ]

    def _ids(self, tokens: Sequence[str]) -> list[int]:
        known = {token: number for number, token in enumerate(self.item_tokens)}
        unknown = [str(token) for token in tokens if str(token) not in known or known[str(token)] == 0]
        if unknown:
            count = f"{len(unknown)} of {len(tokens)} ids are unknown"
            raise ConfigError(f"There is no item {unknown[0]!r} ({count}). Give ids of the .item file.")
        return [known[str(token)] for token in tokens]

    def add_items(self, texts: Sequence[str], tokens: Sequence[str] | None = None) -> list[int]:
        """Make new items recommendable without training: the codes of the fitted tokenizer, a free extra token, a new leaf.

        Args:
            texts: one text an item. tokens: their raw ids; default ``new-1``, ``new-2``, ...

        Returns:
            Internal ids of the new items. Existing codes and scores (``score_type: level``) do not change.
        """
        first = len(self.codes)
        if not len(texts):
            return []
        tokens = list(tokens) if tokens is not None else [f"new-{first + n}" for n in range(len(texts))]
        codes, moved = self.tokenizer.place(list(texts), self.codes[1:].cpu(), self.level_sizes)
        if moved:
            self.logger.warning(f"{moved} of {len(texts)} new items did not fit under their nearest codes and took the next free ones.")
        self.item_codes = self.item_codes.append(codes, tokens)
        self.codes = torch.cat([self.codes, codes.to(self.codes.device)])
        self.codes_version += 1
        self.item_tokens += tokens
        self.content.extend(list(texts))
        self.n_items = len(self.codes)
        return list(range(first, self.n_items))

    @torch.no_grad()
    def start_unused_codes(self) -> None:
        """Values of the extra token that no item had in training take the mean of those in use (our choice, unpublished)."""
        for level in range(self.item_codes.n_learned, len(self.level_sizes)):
            for rows in self.vocabulary.level_rows(level):
                used = self.codes[1 : self.n_dataset_items, level]
                seen = torch.zeros(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, used, True)
                rows[~seen] = rows[seen].mean(0)
