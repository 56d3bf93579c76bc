"""One level of the item trie: the edges from one depth to the next."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

NARROW = 4  # a window of at most V / NARROW entries is cheaper to search than a dense row of V


class Children(NamedTuple):
    """Children of a block of nodes; W slots per node.

    Attributes:
        codes: int64 ``[..., W]``, or None when slot j is code j.
        nodes: int32 ``[..., W]``, -1 = illegal.
        counted: int32 ``[..., W]``, the children over which ``renormalised`` sums, -1 = none; for
            a subset with ``norm="full"`` those of the full catalogue, without children that lead to
            items added after training alone.
    """

    codes: Tensor | None
    nodes: Tensor
    counted: Tensor


@dataclass(frozen=True)
class TrieLevel:
    """Edges from depth t to depth t + 1.

    Edge e leads to node e of depth t + 1, so a node and the edge to it share one id. Nodes of a
    depth are numbered in lexicographic order: children of a node are contiguous. Every tensor over
    nodes or edges ends in one extra row for the dead node -1.

    Attributes:
        n_nodes: number of nodes of depth t.
        n_edges: number of edges.
        size: alphabet size V.
        width: the largest branching.
        code: int32 ``[n_edges + 1]``, code of each edge.
        parent: int32 ``[n_edges + 1]``, where each edge starts; dead: -1.
        ptr: int32 ``[n_nodes + 2]``, where the edges of each node begin.
        table: int32 ``[n_nodes + 1, size]``, child or -1, where the level is dense; otherwise
            children are read through a window of ``width`` edges that starts at ``ptr[node]``.
        leaf: int32 ``[n_nodes + 1]``, the only leaf below a node, -1 where there are several.
        allowed: bool ``[n_edges + 1]`` in a subset, whether an edge leads to a member.
        competing: the same of the subset over whose edges alone ``renormalised`` sums; None = there
            is no such subset.
        counted: bool ``[n_edges + 1]``, whether ``renormalised`` sums over an edge; None = all.
    """

    n_nodes: int
    n_edges: int
    size: int
    width: int
    code: Tensor
    parent: Tensor
    ptr: Tensor
    table: Tensor | None
    leaf: Tensor
    allowed: Tensor | None = None
    competing: Tensor | None = None
    counted: Tensor | None = None

    @classmethod
    def build(
        cls, n_nodes: int, size: int, code: Tensor, parent: Tensor, budget: float
    ) -> TrieLevel:
        """A level from its edges; ``leaf`` is still empty.

        Args:
            n_nodes: number of nodes of depth t.
            size: alphabet size.
            code: int64 ``[n_edges]``, sorted by parent, then by code.
            parent: int64 ``[n_edges]``.
            budget: bytes that a dense table may take.
        """
        n_edges = len(code)
        ptr = pointers(parent, n_nodes)
        width = int(ptr.diff().max())
        table = None
        if width * NARROW > size and 4 * (n_nodes + 1) * size <= budget:
            table = torch.full((n_nodes + 1, size), -1, dtype=torch.int32)
            table[parent, code] = torch.arange(n_edges, dtype=torch.int32)
        code = torch.nn.functional.pad(code, (0, 1)).int()
        parent = torch.nn.functional.pad(parent, (0, 1), value=-1).int()
        return cls(n_nodes, n_edges, size, width, code, parent, ptr, table, leaf=ptr[:0])

    def children(self, nodes: Tensor) -> tuple[Tensor | None, Tensor]:
        """Children in the full catalogue.

        Args:
            nodes: int64 ``[...]``, -1 = dead.

        Returns:
            codes int64 ``[..., W]`` (None when the level is dense) and child nodes int32
            ``[..., W]``.
        """
        if self.table is None:
            return self.window(nodes)
        rows = torch.where(nodes < 0, self.n_nodes, nodes)
        children = self.table.index_select(0, rows.flatten())
        return None, children.view(*rows.shape, self.size)

    def window(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Children in the full catalogue, read through the window.

        Args:
            nodes: int64 ``[...]``, -1 = dead.

        Returns:
            codes int64 and child nodes int32, both ``[..., width]``; children first, the rest -1.
        """
        rows = torch.where(nodes < 0, self.n_nodes, nodes)
        first = self.ptr[rows].unsqueeze(-1)
        edges = first + torch.arange(self.width, device=nodes.device, dtype=first.dtype)
        edges = torch.where(edges < self.ptr[rows + 1].unsqueeze(-1), edges, -1)
        return self.code[edges].long(), edges

    def child(self, nodes: Tensor, codes: Tensor) -> Tensor:
        """The nodes that codes lead to.

        Args:
            nodes: int64 ``[...]``, -1 = dead.
            codes: int64 ``[...]``.

        Returns:
            int64 ``[...]``, -1 where no item has that prefix.
        """
        if self.table is not None:
            return self.table[torch.where(nodes < 0, self.n_nodes, nodes), codes].long()
        known, edges = self.window(nodes)
        return torch.where(known == codes.unsqueeze(-1), edges, -1).amax(-1).long()

    def slot(self, edges: Tensor) -> Tensor:
        """Where in its parent's row of :meth:`children` each edge stands.

        Args:
            edges: int64 of any shape, -1 = dead.

        Returns:
            int64 of the same shape.
        """
        if self.table is not None:
            return self.code[edges].long()
        return (edges - self.ptr[self.parent[edges]]).clamp(min=0).long()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by field name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> TrieLevel:
        """A copy whose tensors are on ``device``."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)


def pointers(owner: Tensor, n: int) -> Tensor:
    """Where the entries of each owner start.

    Args:
        owner: int64, sorted: the owner of each entry, 0 to n - 1.
        n: number of owners.

    Returns:
        int32 ``[n + 2]``; the last, dead owner has no entries.
    """
    counts = torch.bincount(owner, minlength=n + 1)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
