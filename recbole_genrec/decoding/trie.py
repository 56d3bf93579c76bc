"""The item trie: which code may follow which prefix, held in tensors.

Built by sorting the code rows and comparing neighbours, so there is no loop over items. Constrained decoding by tensor tables instead of
callbacks follows STATIC (arXiv 2602.22647); layout and subset rules are our choice (unpublished).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_genrec.errors import ConfigError, DataError

NARROW = 4  # a window of at most V / NARROW entries is cheaper to search than a dense row of V


class Children(NamedTuple):
    """Children of a block of nodes; ``W`` slots per node.

    ``codes`` int64 ``[..., W]``, or None when slot j is code j; ``nodes`` int32 ``[..., W]``, -1 = illegal; ``counted`` like ``nodes``:
    the children over which ``renormalised`` sums (those of the full catalogue for a subset with ``norm="full"``).
    """

    codes: Tensor | None
    nodes: Tensor
    counted: Tensor


@dataclass(frozen=True)
class TrieLevel:
    """Edges from depth t to depth t + 1; edge e leads to node e of depth t + 1, so a node and the edge to it share one id.

    Nodes of a depth are numbered in lexicographic order: children of a node are contiguous. Every tensor over nodes ends in one extra row
    for the dead node -1. ``table`` int32 ``[n_nodes + 1, size]`` (child or -1) exists where the level is dense; otherwise children are read
    through a window of ``width`` (the largest branching) edges that starts at ``ptr[node]``.
    """

    n_nodes: int
    n_edges: int
    size: int
    width: int
    code: Tensor  # int32 [n_edges + 1]
    parent: Tensor  # int32 [n_edges + 1], dead: -1
    ptr: Tensor  # int32 [n_nodes + 2]
    table: Tensor | None
    leaf: Tensor  # int32 [n_nodes + 1], the only leaf below a node, -1 where there are several
    allowed: Tensor | None = None  # bool [n_edges + 1] in a subset

    def children(self, nodes: Tensor) -> tuple[Tensor | None, Tensor]:
        """Codes (None when dense) and child nodes ``[..., W]`` in the full catalogue for ``nodes`` int64 ``[...]`` (-1 = dead)."""
        if self.table is None:
            return self.window(nodes)
        rows = torch.where(nodes < 0, self.n_nodes, nodes)
        return None, self.table.index_select(0, rows.flatten()).view(*rows.shape, self.size)

    def window(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and child nodes ``[..., width]`` for ``nodes`` int64 ``[...]`` (-1 = dead), children first, the rest -1."""
        rows = torch.where(nodes < 0, self.n_nodes, nodes)
        first = self.ptr[rows].unsqueeze(-1)
        edges = first + torch.arange(self.width, device=nodes.device, dtype=first.dtype)
        edges = torch.where(edges < self.ptr[rows + 1].unsqueeze(-1), edges, -1)
        return self.code[edges].long(), edges

    def child(self, nodes: Tensor, codes: Tensor) -> Tensor:
        """The node that ``codes`` int64 ``[...]`` lead to from ``nodes`` int64 ``[...]``, int64; -1 where no item has that prefix."""
        if self.table is not None:
            return self.table[torch.where(nodes < 0, self.n_nodes, nodes), codes].long()
        known, edges = self.window(nodes)
        return torch.where(known == codes.unsqueeze(-1), edges, -1).amax(-1).long()

    def slot(self, edges: Tensor) -> Tensor:
        """Where in its parent's row of :meth:`children` each edge (int64, any shape; -1 = dead) stands."""
        if self.table is not None:
            return self.code[edges].long()
        return (edges - self.ptr[self.parent[edges]]).clamp(min=0).long()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by field name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class ItemTrie:
    """Trie over item codes; root is node 0 of depth 0, leaves are the nodes of depth ``depth``. Several items may share a leaf.

    Args:
        codes: int64 ``[n_items, L]`` by item id; row 0 is the padding item. A row with a negative code is an item without a tuple: it is
            left out and counted in ``n_without_codes``.
        sizes: alphabet size per level.
        items: item ids to insert; default all of 1 .. n_items - 1.
        budget_mb: memory limit of the dense tables together, in MiB, spent from the root down. Levels beyond it, and levels whose
            branching is small against their alphabet, use windows over sorted edges; the results are the same.
        tie_order: ``[n_items]``, smaller = earlier among items on one leaf (for example the popularity rank); default the item id.

    Raises:
        DataError: no item to insert, a code outside its alphabet, an item id outside the table, or shapes that do not fit.
    """

    def __init__(
        self,
        codes: Tensor,
        sizes: Sequence[int],
        items: Tensor | None = None,
        budget_mb: float = 256,
        tie_order: Tensor | None = None,
    ) -> None:
        codes, self.sizes = codes.cpu().long(), tuple(int(size) for size in sizes)
        if codes.dim() != 2 or not self.sizes or codes.shape[1] != len(self.sizes):
            raise DataError(
                f"Codes have shape {tuple(codes.shape)}, but {len(self.sizes)} alphabet sizes are given. Pass one size per column."
            )
        self.n_items, self.depth = codes.shape
        self.subset_norm = "full"
        items = torch.arange(1, self.n_items) if items is None else torch.unique(items.cpu())
        _check_ids(items, self.n_items)
        coded = (codes[items] >= 0).all(1)
        self.n_without_codes = int((~coded).sum())
        order = items[coded]
        if not len(order):
            raise DataError(
                "No item has a code tuple, so there is nothing to search. Check the code table and the list of items."
            )
        _check_codes(codes, order, self.sizes)
        if tie_order is not None:
            order = order[torch.argsort(tie_order.cpu()[order], stable=True)]
        for level in reversed(range(self.depth)):
            order = order[torch.argsort(codes[order, level], stable=True)]

        rows = codes[order]
        changed = torch.ones_like(rows, dtype=torch.bool)
        changed[1:] = rows[1:] != rows[:-1]
        parents, n_nodes, self.levels = torch.zeros(len(order), dtype=torch.int64), 1, []
        budget, new = budget_mb * 2**20, torch.zeros(len(order), dtype=torch.bool)
        for level, size in enumerate(self.sizes):
            new = new | changed[:, level]
            built = _build_level(n_nodes, size, rows[new, level], parents[new], budget)
            budget -= 0 if built.table is None else built.table.nbytes
            self.levels.append(built)
            parents, n_nodes = new.cumsum(0) - 1, built.n_edges
        leaf = torch.arange(n_nodes + 1, dtype=torch.int32)
        for depth in reversed(range(self.depth)):
            ptr = self.levels[depth].ptr
            leaf = torch.where(ptr.diff() == 1, leaf[ptr[:-1].long()], -1)
            self.levels[depth] = replace(self.levels[depth], leaf=leaf)
        self._set_leaves(order, parents)

    def _set_leaves(self, items: Tensor, leaves: Tensor, rank: Tensor | None = None) -> None:
        """Attach ``items`` (sorted by leaf, then by tie order) to their ``leaves``; ``rank`` is their place on the leaf."""
        device = items.device
        self.leaf_items, self.leaf_of_row = items, leaves
        self.leaf_ptr = _pointers(leaves, self.n_leaves)
        self.leaf_rank = (
            (torch.arange(len(items), device=device) - self.leaf_ptr[leaves]).float()
            if rank is None
            else rank
        )
        self.leaf_of_item = torch.full((self.n_items,), -1, device=device).index_put_(
            (items,), leaves
        )
        self.leaf_width = int(self.leaf_ptr.diff().max())
        self.max_rank = float(self.leaf_rank.max()) if rank is None else self.max_rank

    @property
    def n_leaves(self) -> int:
        """Number of distinct code tuples (of the full catalogue)."""
        return self.levels[-1].n_edges

    @property
    def forced_from(self) -> int:
        """Smallest depth from which on no node has two children; ``depth`` if the last level still branches."""
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
        own = [value for value in vars(self).values() if isinstance(value, Tensor)]
        return sum(value.nbytes for value in own) + sum(
            value.nbytes for level in self.levels for value in level.tensors().values()
        )

    def children(self, t: int, nodes: Tensor) -> Children:
        """Children at depth ``t + 1`` of ``nodes`` (int64 ``[...]``, nodes of depth ``t``, -1 = dead)."""
        codes, counted = self.levels[t].children(nodes)
        allowed = self.levels[t].allowed
        legal = counted if allowed is None else torch.where(allowed[counted], counted, -1)
        return Children(codes, legal, counted if self.subset_norm == "full" else legal)

    def leaf_below(self, t: int, nodes: Tensor) -> Tensor:
        """The only leaf below each of ``nodes`` (int, any shape, nodes of depth ``t``, -1 = dead) in the full catalogue, int64; else -1."""
        return nodes.long() if t == self.depth else self.levels[t].leaf[nodes].long()

    def paths(self, leaves: Tensor) -> list[Tensor]:
        """Nodes on the way to ``leaves`` (int64 ``[...]``, -1 = dead): ``depth + 1`` tensors, from the root to the leaf."""
        nodes = [leaves]
        for level in reversed(self.levels):
            nodes.append(level.parent[nodes[-1]].long())
        return nodes[::-1]

    def subset(self, item_ids: Tensor, norm: str = "full") -> ItemTrie:
        """The trie of a candidate set (cold items, one category); columns of full outputs stay those of the catalogue.

        ``norm="full"``: ``renormalised`` keeps summing over the children of the full trie, so an item keeps the score it has in the whole
        catalogue. ``norm="subset"``: it sums over the children that lead to a member. Items without a tuple are ignored.
        """
        if norm not in ("full", "subset"):
            raise ConfigError(f"subset_norm is '{norm}'. Choose 'full' or 'subset'.")
        item_ids = torch.as_tensor(item_ids)
        _check_ids(item_ids, self.n_items)
        member = torch.zeros(self.n_items, dtype=torch.bool, device=self.device)
        member[item_ids.to(self.device)] = True
        kept = member[self.leaf_items]
        if not bool(kept.any()):
            raise DataError(
                "No item of the candidate set is in the trie. Check the item ids; items without a code tuple cannot be searched."
            )
        trie = copy.copy(self)
        trie.subset_norm, trie.levels = norm, []
        allowed, ptr = kept, self.leaf_ptr
        for level in reversed(self.levels):
            below = torch.nn.functional.pad(allowed.cumsum(0), (1, 0))
            allowed = (
                below[ptr[1:].long()] > below[ptr[:-1].long()]
            )  # the dead node covers an empty interval
            trie.levels.append(replace(level, allowed=allowed))
            allowed, ptr = allowed[:-1], level.ptr
        trie.levels.reverse()
        trie._set_leaves(self.leaf_items[kept], self.leaf_of_row[kept], self.leaf_rank[kept])
        return trie

    def to(self, device: torch.device | str) -> ItemTrie:
        """A copy whose tensors are on ``device``."""
        trie = copy.copy(self)
        trie.levels = [
            replace(level, **{name: value.to(device) for name, value in level.tensors().items()})
            for level in self.levels
        ]
        vars(trie).update(
            {
                name: value.to(device)
                for name, value in vars(self).items()
                if isinstance(value, Tensor)
            }
        )
        return trie


def _build_level(n_nodes: int, size: int, code: Tensor, parent: Tensor, budget: float) -> TrieLevel:
    """Edges given by ``code`` and ``parent``, both int64 ``[n_edges]``, sorted by parent and code."""
    n_edges = len(code)
    ptr = _pointers(parent, n_nodes)
    width = int(ptr.diff().max())
    table = None
    if width * NARROW > size and 4 * (n_nodes + 1) * size <= budget:
        table = torch.full((n_nodes + 1, size), -1, dtype=torch.int32)
        table[parent, code] = torch.arange(n_edges, dtype=torch.int32)
    code = torch.nn.functional.pad(code, (0, 1)).int()
    parent = torch.nn.functional.pad(parent, (0, 1), value=-1).int()
    return TrieLevel(n_nodes, n_edges, size, width, code, parent, ptr, table, leaf=ptr[:0])


def _pointers(owner: Tensor, n: int) -> Tensor:
    """int32 ``[n + 2]``: where each owner's entries start in the sorted ``owner``; the last, dead owner has none."""
    counts = torch.bincount(owner, minlength=n + 1)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()


def _check_ids(items: Tensor, n_items: int) -> None:
    wrong = items[(items < 1) | (items >= n_items)]
    if len(wrong):
        raise DataError(
            f"Item id {int(wrong[0])} is not in the code table: ids run from 1 to {n_items - 1} (0 is the padding item)."
        )


def _check_codes(codes: Tensor, items: Tensor, sizes: tuple[int, ...]) -> None:
    wrong = (codes[items] >= torch.tensor(sizes)).nonzero()
    if len(wrong):
        row, level = wrong[0].tolist()
        item, size = int(items[row]), sizes[level]
        raise DataError(
            f"Item {item} has code {int(codes[item, level])} at level {level}, whose codes run from 0 to {size - 1}."
        )
