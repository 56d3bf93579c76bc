"""Scores of all items after a beam search (our choice, unpublished)."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.decoding.exclusion import Exclusion
from recbole_genrec.decoding.scores import break_ties, item_scores
from recbole_genrec.decoding.trie import ItemTrie


class Ranking:
    """What a search scored, from which all items are ranked at the end.

    A leaf that was scored keeps its exact score. The others are ordered by upper bounds, which are
    carried down the trie level by level.

    Args:
        trie: the trie that is searched.
        users: number of users B.
        device: where the scores are.
    """

    def __init__(self, trie: ItemTrie, users: int, device: torch.device) -> None:
        self.trie = trie
        self.users = torch.arange(users, device=device)  # [B]
        # Per level: users, nodes and scores of each step.
        self.scored: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in trie.levels]
        # Users and leaves with an exact score.
        self.exact: list[tuple[Tensor, Tensor]] = []

    def note(self, depth: int, nodes: Tensor, scores: Tensor) -> None:
        """Note the scores of some nodes.

        Args:
            depth: depth of their parents.
            nodes: int64 ``[B, C]``, nodes of depth ``depth + 1``, -1 = none.
            scores: float32 ``[B, C]``.
        """
        self.scored[depth].append((self.users, nodes, scores))

    def reach(self, leaves: Tensor) -> None:
        """Note leaves int64 ``[B, C]`` (-1 = none) whose score is exact."""
        self.exact.append((self.users, leaves))

    def add(self, rows: Tensor, other: Ranking) -> None:
        """Take over what another search reached for the users ``rows`` int64 ``[R]``."""
        for entries, new_entries in zip(self.scored, other.scored, strict=True):
            entries += [(rows[users], nodes, scores) for users, nodes, scores in new_entries]
        self.exact += [(rows[users], leaves) for users, leaves in other.exact]

    def items(self, exclusion: Exclusion | None = None) -> Tensor:
        """Scores of all items.

        Args:
            exclusion: items that get the lowest value.

        Returns:
            float32 ``[B, n_items]``, all finite: exact scores of the reached items, the others
            strictly below in the order of their bounds (up to tie steps), items outside the trie
            last.
        """
        bounds = self._leaf_bounds()  # [B, S_L + 1]
        exact = [_read(bounds, users, leaves) for users, leaves in self.exact]

        # The others are lowered in place, the exact scores come back behind them.
        lowest = bounds.new_zeros(len(bounds), 1)
        for (users, leaves), scores in zip(self.exact, exact, strict=True):
            least = scores.masked_fill(leaves < 0, 0).amin(1, keepdim=True)
            lowest[users] = torch.minimum(lowest[users], least)
            _write(bounds, users, leaves, -torch.inf)
        lowest = break_ties(self.trie, lowest, self.trie.max_rank)
        highest = bounds[:, :-1].amax(1, keepdim=True)
        bounds.sub_(highest).add_(lowest - 1)
        for (users, leaves), scores in zip(self.exact, exact, strict=True):
            _write(bounds, users, leaves, scores)
        return item_scores(self.trie, bounds, exclusion)

    def _leaf_bounds(self) -> Tensor:
        """The score of the deepest scored node above each leaf, or of the leaf.

        Returns:
            float32 ``[B, S_L + 1]``; the last column is for leaf -1 and means nothing.
        """
        bounds = torch.zeros(len(self.users), 1, device=self.users.device)
        for level, scored in zip(self.trie.levels, self.scored, strict=True):
            parent = level.parent.clamp(min=0)  # the last column is for node -1
            bounds = bounds.index_select(1, parent)  # [B, S_t + 1]
            for users, nodes, scores in scored:
                _write(bounds, users, nodes, scores)
        return bounds


def _columns(table: Tensor, columns: Tensor) -> Tensor:
    """``columns`` int64 of ``table``, where -1 is the last one."""
    return torch.where(columns < 0, table.shape[1] - 1, columns)


def _read(table: Tensor, users: Tensor, columns: Tensor) -> Tensor:
    """``table[users[r], columns[r, c]]``; arguments as of :func:`_write`."""
    if len(users) < len(table):
        table = table[users]
    return table.gather(1, _columns(table, columns))


def _write(table: Tensor, users: Tensor, columns: Tensor, values: Tensor | float) -> None:
    """Set ``table[users[r], columns[r, c]] = values[r, c]``.

    Args:
        table: ``[B, S]``, changed in place.
        users: int64 ``[R]``, ascending.
        columns: int64 ``[R, C]``; -1 is the last column.
        values: ``[R, C]``, or one value for all.
    """
    columns = _columns(table, columns)
    if len(users) == len(table):
        table.scatter_(1, columns, values)
    else:
        table[users] = table[users].scatter_(1, columns, values)
