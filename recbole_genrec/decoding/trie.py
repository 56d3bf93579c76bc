"""The item trie: which code may follow which prefix, held in tensors.

Built by sorting the code rows and comparing neighbours, so there is no loop over items. Constrained
decoding by tensor tables instead of callbacks follows STATIC (arXiv 2602.22647); layout and subset
rules are our choice (unpublished).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recbole_genrec.decoding.trie_level import Children, TrieLevel, pointers
from recbole_genrec.errors import ConfigError, DataError


class ItemTrie:
    """Trie over item codes; root is node 0 of depth 0, leaves are the nodes of depth ``depth``.

    Several items may share a leaf. Rows of the tensors over items are sorted by leaf, then by tie
    order.

    Args:
        codes: int64 ``[n_items, L]`` by item id; row 0 is the padding item. A row with a negative
            code is an item without a tuple: it is left out.
        sizes: alphabet size per level.
        items: item ids to insert; default all of 1 .. n_items - 1.
        budget_mb: memory limit of the dense tables together, in MiB, spent from the root down.
            Levels beyond it, and levels whose branching is small against their alphabet, use
            windows over sorted edges; the results are the same.
        tie_order: ``[n_items]``, smaller = earlier among items on one leaf (for example the
            popularity rank); default the item id.
        n_counted: items from this id on were added after training: ``renormalised`` does not sum
            over children that lead to them alone, so that the scores of all others stay as they
            were. Default: all items count.

    Attributes:
        levels: the edges from each depth to the next.
        leaf_items: int64 ``[R]``, item ids.
        leaf_of_row: int64 ``[R]``, their leaves.
        leaf_rank: float32 ``[R]``, their places on their leaves, 0 = first.
        leaf_ptr: int32 ``[n_leaves + 2]``, where the items of each leaf begin.
        leaf_of_item: int64 ``[n_items]``, -1 where an item is not in the trie.
        leaf_width: number of items on the fullest leaf.
        max_rank: the highest place on a leaf, of the full catalogue.
        subset_norm: the children over which ``renormalised`` sums, see :meth:`subset`.

    Raises:
        DataError: no item to insert, a code outside its alphabet, an item id outside the table, or
            shapes that do not fit.
    """

    leaf_items: Tensor
    leaf_of_row: Tensor
    leaf_rank: Tensor
    leaf_ptr: Tensor
    leaf_of_item: Tensor
    leaf_width: int
    max_rank: float

    def __init__(
        self,
        codes: Tensor,
        sizes: Sequence[int],
        items: Tensor | None = None,
        budget_mb: float = 256,
        tie_order: Tensor | None = None,
        n_counted: int | None = None,
    ) -> None:
        codes = codes.cpu().long()
        self.sizes = tuple(int(size) for size in sizes)
        _check_shape(codes, self.sizes)
        self.n_items, self.depth = codes.shape
        self.n_counted = n_counted
        self.subset_norm = "full"

        if items is None:
            items = torch.arange(1, self.n_items)
        items = torch.unique(items.cpu())
        _check_ids(items, self.n_items)
        order = items[(codes[items] >= 0).all(1)]  # [R]
        if not len(order):
            raise DataError(
                "No item has a code tuple, so there is nothing to search. "
                "Check the code table and the list of items."
            )
        _check_codes(codes, order, self.sizes)

        order = _sorted_items(codes, order, tie_order)
        self.levels, leaves = _build_levels(codes[order], self.sizes, budget_mb * 2**20)
        place = torch.arange(len(order)) - pointers(leaves, self.n_leaves)[leaves]
        rank = place.float()
        self.max_rank = float(rank.max())
        self._set_leaves(order, leaves, rank)
        if n_counted is not None and bool((order >= n_counted).any()):
            self._count_edges(order < n_counted)

    def _count_edges(self, rows: Tensor) -> None:
        """Let ``renormalised`` sum over the edges that lead to some items.

        Below a node without such an item it sums over all edges.

        Args:
            rows: bool ``[R]``, the items that count.
        """
        leads_to_them = self._edges_to(rows)
        levels: list[TrieLevel] = []
        for level, counted in zip(self.levels, leads_to_them, strict=True):
            if levels:
                above = leads_to_them[len(levels) - 1]
                counted = counted | ~above[level.parent]
            levels.append(replace(level, counted=counted))
        self.levels = levels

    def _set_leaves(self, items: Tensor, leaves: Tensor, rank: Tensor) -> None:
        """Attach items to leaves.

        Args:
            items: int64 ``[R]``, sorted by leaf, then by tie order.
            leaves: int64 ``[R]``, their leaves.
            rank: float32 ``[R]``, their places on their leaves.
        """
        self.leaf_items = items
        self.leaf_of_row = leaves
        self.leaf_rank = rank
        self.leaf_ptr = pointers(leaves, self.n_leaves)
        self.leaf_width = int(self.leaf_ptr.diff().max())
        self.leaf_of_item = torch.full((self.n_items,), -1, device=items.device)
        self.leaf_of_item[items] = leaves

    @property
    def n_leaves(self) -> int:
        """Number of distinct code tuples (of the full catalogue)."""
        return self.levels[-1].n_edges

    @property
    def forced_from(self) -> int:
        """Smallest depth from which on no node has two children.

        It is ``depth`` if the last level still branches.
        """
        depth = self.depth
        while depth and self.levels[depth - 1].width == 1:
            depth -= 1
        return depth

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.leaf_items.device

    @property
    def memory_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = list(self._tensors().values())
        for level in self.levels:
            tensors += level.tensors().values()
        return sum(tensor.nbytes for tensor in tensors)

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors over items and leaves, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def children(self, t: int, nodes: Tensor) -> Children:
        """Children of some nodes.

        Args:
            t: their depth.
            nodes: int64 ``[...]``, -1 = dead.
        """
        level = self.levels[t]
        codes, legal = level.children(nodes)
        counted = legal
        if level.allowed is not None:
            legal = torch.where(level.allowed[legal], legal, -1)
        if level.competing is not None:
            counted = torch.where(level.competing[counted], counted, -1)
        if level.counted is not None:
            of_all = counted
            counted = torch.where(level.counted[counted], counted, -1)
            # In a subset of added items alone these compete with each other.
            none = (counted < 0).all(-1, keepdim=True)
            counted = torch.where(none, of_all, counted)
        return Children(codes, legal, counted)

    def child(self, t: int, nodes: Tensor, codes: Tensor) -> Tensor:
        """The nodes that codes lead to.

        Args:
            t: depth of the nodes.
            nodes: int64 ``[...]``, -1 = dead.
            codes: int64 ``[...]``.

        Returns:
            int64 ``[...]``, -1 where no item, or no member of a subset, has that prefix.
        """
        level = self.levels[t]
        child = level.child(nodes, codes)
        if level.allowed is not None:
            child = torch.where(level.allowed[child], child, -1)
        return child

    def counts(self, items: Tensor) -> Tensor:
        """Whether items count where probabilities are normalised; added ones do not."""
        if self.n_counted is None:
            return torch.ones_like(items, dtype=torch.bool)
        return items < self.n_counted

    def leaf_below(self, t: int, nodes: Tensor) -> Tensor:
        """The only leaf below each of some nodes in the full catalogue.

        Args:
            t: their depth.
            nodes: int of any shape, -1 = dead.

        Returns:
            int64 of the same shape, -1 where there are several leaves or none.
        """
        if t == self.depth:
            return nodes.long()
        return self.levels[t].leaf[nodes].long()

    def paths(self, leaves: Tensor) -> list[Tensor]:
        """Nodes on the ways to some leaves.

        Args:
            leaves: int64 ``[...]``, -1 = dead.

        Returns:
            ``depth + 1`` tensors int64 ``[...]``, from the root to the leaf.
        """
        nodes = [leaves]
        for level in reversed(self.levels):
            nodes.append(level.parent[nodes[-1]].long())
        return nodes[::-1]

    def subset(self, item_ids: Tensor, norm: str = "full") -> ItemTrie:
        """The trie of a candidate set (cold items, one category).

        Columns of full outputs stay those of the catalogue. Items without a tuple are ignored.

        Args:
            item_ids: the members.
            norm: ``full``: ``renormalised`` keeps summing over the children that it sums over in
                this trie, so an item keeps its score. ``subset``: it sums over the children that
                lead to a member.

        Raises:
            ConfigError: another ``norm``.
            DataError: an item id outside the table, or no member in the trie.
        """
        if norm not in ("full", "subset"):
            raise ConfigError(f"subset_norm is '{norm}'. Choose 'full' or 'subset'.")
        item_ids = torch.as_tensor(item_ids)
        _check_ids(item_ids, self.n_items)
        is_member = torch.zeros(self.n_items, dtype=torch.bool, device=self.device)
        is_member[item_ids.to(self.device)] = True
        rows = is_member[self.leaf_items]  # [R]
        if not bool(rows.any()):
            raise DataError(
                "No item of the candidate set is in the trie. Check the item ids; "
                "items without a code tuple cannot be searched."
            )
        trie = copy.copy(self)
        trie.subset_norm = norm
        trie.levels = self._levels_of_members(rows, norm)
        trie._set_leaves(self.leaf_items[rows], self.leaf_of_row[rows], self.leaf_rank[rows])
        return trie

    def _levels_of_members(self, rows: Tensor, norm: str) -> list[TrieLevel]:
        """The levels, with the edges allowed that lead to a member.

        Args:
            rows: bool ``[R]``, the members.
            norm: as of :meth:`subset`.
        """
        levels = []
        for level, allowed in zip(self.levels, self._edges_to(rows), strict=True):
            competing = allowed if norm == "subset" else level.competing
            levels.append(replace(level, allowed=allowed, competing=competing))
        return levels

    def _edges_to(self, rows: Tensor) -> list[Tensor]:
        """Which edges of each level lead to some items; the dead edge does not.

        Args:
            rows: bool ``[R]``, the items.

        Returns:
            bool ``[n_edges + 1]`` a level.
        """
        edges = []
        leads = rows
        ptr = self.leaf_ptr
        for level in reversed(self.levels):
            # An edge leads there if one of the entries below it does.
            below = torch.nn.functional.pad(leads.cumsum(0), (1, 0))
            edge = below[ptr[1:].long()] > below[ptr[:-1].long()]
            edges.append(edge)
            leads = edge[:-1]
            ptr = level.ptr
        return edges[::-1]

    def to(self, device: torch.device | str) -> ItemTrie:
        """A copy whose tensors are on ``device``."""
        trie = copy.copy(self)
        trie.levels = [level.to(device) for level in self.levels]
        for name, value in self._tensors().items():
            setattr(trie, name, value.to(device))
        return trie


def _sorted_items(codes: Tensor, items: Tensor, tie_order: Tensor | None) -> Tensor:
    """Item ids ``[R]`` in the lexicographic order of their codes, then in tie order."""
    if tie_order is not None:
        items = items[torch.argsort(tie_order.cpu()[items], stable=True)]
    for level in reversed(range(codes.shape[1])):
        items = items[torch.argsort(codes[items, level], stable=True)]
    return items


def _build_levels(
    rows: Tensor, sizes: tuple[int, ...], budget: float
) -> tuple[list[TrieLevel], Tensor]:
    """The levels of a trie.

    Args:
        rows: int64 ``[R, L]``, codes in lexicographic order.
        sizes: alphabet size per level.
        budget: bytes that all dense tables may take together.

    Returns:
        levels: one for each position.
        leaves: int64 ``[R]``, the leaf of each row.
    """
    changed = torch.ones_like(rows, dtype=torch.bool)  # the code differs from that of the row above
    changed[1:] = rows[1:] != rows[:-1]

    levels = []
    nodes = torch.zeros(len(rows), dtype=torch.int64)  # of each row, at this depth
    n_nodes = 1
    new = torch.zeros(len(rows), dtype=torch.bool)  # the prefix differs from that of the row above
    for depth, size in enumerate(sizes):
        new = new | changed[:, depth]
        level = TrieLevel.build(n_nodes, size, rows[new, depth], nodes[new], budget)
        if level.table is not None:
            budget -= level.table.nbytes
        levels.append(level)
        nodes = new.cumsum(0) - 1
        n_nodes = level.n_edges

    # The only leaf below a node with one child is the one below that child.
    leaf = torch.arange(n_nodes + 1, dtype=torch.int32)
    for depth in reversed(range(len(levels))):
        ptr = levels[depth].ptr
        leaf = torch.where(ptr.diff() == 1, leaf[ptr[:-1].long()], -1)
        levels[depth] = replace(levels[depth], leaf=leaf)
    return levels, nodes


def _check_shape(codes: Tensor, sizes: tuple[int, ...]) -> None:
    if codes.dim() != 2 or not sizes or codes.shape[1] != len(sizes):
        raise DataError(
            f"Codes have shape {tuple(codes.shape)}, but {len(sizes)} alphabet sizes are given. "
            f"Pass one size per column."
        )


def _check_ids(items: Tensor, n_items: int) -> None:
    wrong = items[(items < 1) | (items >= n_items)]
    if len(wrong):
        raise DataError(
            f"Item id {int(wrong[0])} is not in the code table: "
            f"ids run from 1 to {n_items - 1} (0 is the padding item)."
        )


def _check_codes(codes: Tensor, items: Tensor, sizes: tuple[int, ...]) -> None:
    wrong = (codes[items] >= torch.tensor(sizes)).nonzero()
    if len(wrong):
        row, level = wrong[0].tolist()
        item = int(items[row])
        raise DataError(
            f"Item {item} has code {int(codes[item, level])} at level {level}, "
            f"whose codes run from 0 to {sizes[level] - 1}. Build the code table again."
        )
