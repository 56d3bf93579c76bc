"""Items that a user must not get, such as those of the history, inside a search (our choice).

A leaf is closed where all its items are excluded, and so is an inner node where all leaves below it
are closed. A search never enters a closed node, so its lists stay full and its bounds stay true.
The scores of all other items are those of the whole catalogue.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding.trie import ItemTrie
from recbole_genrec.decoding.trie_level import Children


class Exclusion:
    """The closed nodes of a trie for each user.

    Args:
        trie: the items that may be returned.
        items: int64 ``[B, H]``, item ids, 0 = none. An id may repeat, and need not be in the trie.

    Attributes:
        items: the same.
        rows: int64 ``[B, H]``, rows of ``trie.leaf_items``, ascending; their number marks none.
        closed: for each depth int64 ``[B, H]``, the closed nodes, ascending; a number above all
            nodes marks none.
    """

    def __init__(self, trie: ItemTrie, items: Tensor) -> None:
        self.trie = trie
        self.items = items
        if not items.shape[1]:
            self.items = items.new_zeros(len(items), 1)
        self.rows = self._rows()
        self.closed = self._closed_nodes()
        self._leading: Tensor | None = None

    @classmethod
    def of(cls, trie: ItemTrie, items: Tensor | None) -> Exclusion | None:
        """The exclusion of some items; ``None`` where there is none.

        Args:
            trie: the items that may be returned.
            items: int64 ``[B, H]``, what each user must not get, 0 = none; ``None`` for nobody.
        """
        if items is None:
            return None
        return cls(trie, items.to(trie.device))

    def _rows(self) -> Tensor:
        n_rows = len(self.trie.leaf_items)
        row_of_item = torch.full((self.trie.n_items,), n_rows, device=self.trie.device)
        row_of_item[self.trie.leaf_items] = torch.arange(n_rows, device=self.trie.device)
        rows = row_of_item[self.items].sort(1).values  # [B, H]
        repeated = rows[:, 1:] == rows[:, :-1]
        rows[:, 1:] = rows[:, 1:].masked_fill(repeated, n_rows)
        return rows.sort(1).values

    def _closed_nodes(self) -> list[Tensor]:
        """The closed nodes of all depths, from the root to the leaves."""
        trie = self.trie
        none = self.rows == len(trie.leaf_items)
        row = self.rows.masked_fill(none, 0)
        nodes = trie.leaf_of_row[row]  # [B, H]
        n_items = trie.leaf_ptr.diff()[: trie.n_leaves].long()  # items below each node
        closed = []
        for depth in range(trie.depth, -1, -1):
            sought = nodes.masked_fill(none, len(n_items))  # ascending, as the rows are
            excluded = _count(sought, sought)
            full = (excluded == n_items[nodes]) & ~none
            closed.append(sought.masked_fill(~full, len(n_items)).sort(1).values)
            if depth:
                level = trie.levels[depth - 1]
                nodes = level.parent[nodes].long()
                before = pad(n_items.cumsum(0), (1, 0))
                first = level.ptr[: level.n_nodes + 1].long()
                n_items = before[first].diff()
        return closed[::-1]

    def is_closed(self, depth: int, nodes: Tensor) -> Tensor:
        """Whether nodes of a depth are closed.

        Args:
            depth: their depth.
            nodes: int ``[B, ...]``, -1 = dead.

        Returns:
            bool of the same shape.
        """
        return contains(self.closed[depth], nodes)

    def children(self, depth: int, children: Children) -> Children:
        """The children ``[B, Q, W]`` of nodes of a depth, the closed ones illegal.

        ``renormalised`` goes on summing over all of them.
        """
        closed = self.is_closed(depth + 1, children.nodes)
        return children._replace(nodes=children.nodes.masked_fill(closed, -1))

    def is_excluded(self, rows: Tensor) -> Tensor:
        """Whether rows int64 ``[B, ...]`` of ``trie.leaf_items`` hold excluded items."""
        return contains(self.rows, rows)

    def first_rows(self, leaves: Tensor) -> Tensor:
        """The row of the first item on each leaf that is not excluded.

        Args:
            leaves: int64 ``[B, C]``, none of them closed.

        Returns:
            int64 ``[B, C]``.
        """
        if self._leading is None:
            self._leading = self._leading_leaves()
        first = self.trie.leaf_ptr[leaves] + _count(self._leading, leaves)
        return first.clamp(max=len(self.trie.leaf_items) - 1)

    def _leading_leaves(self) -> Tensor:
        """The leaf of each excluded item that has no other item before it, ``[B, H]`` ascending."""
        trie = self.trie
        none = self.rows == len(trie.leaf_items)
        rows = self.rows.masked_fill(none, 0)
        leaves = trie.leaf_of_row[rows]
        sought = leaves.masked_fill(none, trie.n_leaves).contiguous()
        columns = torch.arange(rows.shape[1], device=rows.device)
        excluded_before = columns - torch.searchsorted(sought, sought)
        leading = rows - trie.leaf_ptr[leaves] == excluded_before
        return sought.masked_fill(~leading, trie.n_leaves).sort(1).values

    def select(self, rows: Tensor) -> Exclusion:
        """The exclusion of some users only; ``rows`` int64 ``[R]``."""
        chosen = copy.copy(self)
        chosen.items = self.items[rows]
        chosen.rows = self.rows[rows]
        chosen.closed = [nodes[rows] for nodes in self.closed]
        chosen._leading = None
        return chosen


def contains(values: Tensor, queries: Tensor) -> Tensor:
    """Whether each of ``queries`` ``[B, ...]`` is among ``values`` ``[B, H]``, ascending."""
    flat = queries.flatten(1).long().contiguous()
    place = torch.searchsorted(values, flat).clamp(max=values.shape[1] - 1)
    return (values.gather(1, place) == flat).view(queries.shape)


def _count(values: Tensor, queries: Tensor) -> Tensor:
    """How often each of ``queries`` ``[B, C]`` is among ``values`` ``[B, H]``, ascending."""
    values = values.contiguous()
    queries = queries.contiguous()
    last = torch.searchsorted(values, queries, right=True)
    return last - torch.searchsorted(values, queries)
