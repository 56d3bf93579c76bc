"""Inner products of states with the edges that leave their prefixes, code by code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from recbole_genrec.decoding import ItemTrie

MAX_GATHERED = 2**24  # numbers gathered at once; bounds the memory of the search


class EdgeProducts:
    """Products of states with the vectors of the edges of a trie.

    Args:
        trie: of the whole catalogue.
        vectors: for each level ``[n_edges + 1, d]``; the last row, of the dead node, is 0.
    """

    def __init__(self, trie: ItemTrie, vectors: Sequence[Tensor]):
        self.trie = trie
        self.vectors = list(vectors)
        # Windows have empty slots. Skipping them saves work on a CPU. A GPU would have to count
        # them first, so there all slots are computed.
        self.skips_empty_slots = self.vectors[0].device.type == "cpu"

    def logits(self, states: Tensor, level: int, nodes: Tensor) -> Tensor:
        """What the vectors of the continuations add to the logits of a level.

        Args:
            states: ``[..., d]``.
            level: number of the level, counted from 0.
            nodes: prefixes ``[...]``, nodes of depth ``level``; -1 = the prefix of no item.

        Returns:
            ``[..., V_level]``; 0 for codes that continue no item.
        """
        at = self.trie.levels[level]
        vectors = self.vectors[level]
        added = torch.zeros(*nodes.shape, at.size, device=states.device)  # [..., V]
        if level == 0:
            # There is one prefix, the root.
            root_logits = (states @ vectors[:-1].T).float()  # [..., n_edges]
            return added.index_copy(-1, at.code[:-1].long(), root_logits)

        window_codes, window_edges = at.window(nodes)
        codes = window_codes.flatten(0, -2)  # [Q, W]
        edges = window_edges.flatten(0, -2)
        queries = torch.arange(len(edges), device=edges.device).unsqueeze(1).expand_as(edges)
        is_live = edges >= 0
        edges = torch.where(is_live, edges, at.n_edges)  # the vector of the dead node is 0
        if self.skips_empty_slots:
            edge = edges[is_live]  # [n]
            query = queries[is_live]  # [n]
            code = codes[is_live]  # [n]
        else:
            edge = edges.flatten()
            query = queries.flatten()
            code = codes.flatten()

        flat_states = states.flatten(0, -2)  # [Q, d]
        n_rows = max(1, MAX_GATHERED // states.shape[-1])
        products = [
            (embedding(some_edges, vectors) * embedding(some_queries, flat_states)).sum(-1)
            for some_edges, some_queries in zip(
                edge.split(n_rows), query.split(n_rows), strict=True
            )
        ]
        values = torch.cat(products).float()  # [n]
        flat_added = added.flatten(0, -2)  # [Q, V]
        return flat_added.index_put((query, code), values, accumulate=True).view_as(added)


def counted_codes(trie: ItemTrie, level: int, nodes: Tensor) -> Tensor:
    """Which codes compete after a prefix: those that continue it, without added items.

    Args:
        trie: of the whole catalogue.
        level: number of the level, counted from 0.
        nodes: prefixes ``[...]``, nodes of depth ``level``; -1 = the prefix of no item.

    Returns:
        bool ``[..., V_level]``.
    """
    children = trie.children(level, nodes)
    is_counted = children.counted >= 0
    if children.codes is None:
        return is_counted
    size = trie.levels[level].size
    codes = torch.zeros(*nodes.shape, size, dtype=torch.int8, device=nodes.device)
    return codes.scatter_reduce(-1, children.codes, is_counted.to(torch.int8), "amax") > 0
