"""Search for items by words of their titles."""

from __future__ import annotations

import threading
from collections.abc import Sequence


class TitleIndex:
    """The titles of a catalogue, searched word by word, without regard to case.

    Args:
        tokens: raw item ids; entry 0 is the padding item.
        titles: their titles.
    """

    def __init__(self, tokens: Sequence[str], titles: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._tokens: list[str] = []
        self._titles: list[str] = []
        self._folded: list[str] = []
        self.extend(tokens[1:], titles[1:])

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[str], titles: Sequence[str]) -> None:
        """Add items."""
        with self._lock:
            self._titles += titles
            self._folded += [title.casefold() for title in titles]
            self._tokens += tokens  # last, because searches read as many items as there are ids

    def search(self, query: str, limit: int) -> list[dict[str, str]]:
        """Items whose titles hold all words of a query, or whose id is the query.

        The item of that id comes first, then titles in which the first word begins a word, then the
        others; among these the order of the catalogue.

        Args:
            query: words or beginnings of words; an empty one finds all items.
            limit: how many at most.

        Returns:
            ``[{"item", "title"}]``.
        """
        words = query.casefold().split()
        matches: list[tuple[int, int]] = []
        for number in range(len(self._tokens)):
            title = self._folded[number]
            if self._tokens[number] == query.strip():
                matches.append((0, number))
            elif all(word in title for word in words):
                begins = not words or f" {words[0]}" in f" {title}"
                matches.append((1 if begins else 2, number))
            if not words and len(matches) == limit:
                break
        matches.sort()
        return [
            {"item": self._tokens[number], "title": self._titles[number]}
            for _, number in matches[:limit]
        ]
