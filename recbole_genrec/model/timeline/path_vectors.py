"""Output vectors of prefixes, so that items that share codes can be told apart by more than a shared code table (ours, unpublished).

The vector of a prefix is the mean id embedding of the items below it. Added to the code's own output vector it makes the item tree a
hierarchical softmax (Morin and Bengio, AISTATS 2005) with SASRec's tied item table (arXiv 1808.09781) on its nodes; what is generated
are codes all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from recbole_genrec.decoding import ItemTrie

MOST = 2**24  # numbers gathered at once; bounds the memory of the search


class PathVectors:
    """Vectors of all prefixes of a catalogue, for one state of the id embeddings.

    Args:
        trie: of the whole catalogue.
        table: id embeddings ``[n_items, d]``; row 0, the padding item, is not read.
    """

    def __init__(self, trie: ItemTrie, table: Tensor):
        self.trie, self.vectors = trie, []
        self.ragged = (
            table.device.type == "cpu"
        )  # skip the empty slots of windows; on a GPU, which would have to count them, take them all
        placed = (trie.leaf_of_item >= 0).nonzero().squeeze(1)
        for level, nodes in zip(
            trie.levels, trie.paths(trie.leaf_of_item[placed])[1:], strict=True
        ):
            total = table.new_zeros(level.n_edges + 1, table.shape[1]).index_add(
                0, nodes, table[placed]
            )  # the last row is the dead node's
            self.vectors.append(
                total / torch.bincount(nodes, minlength=level.n_edges + 1).clamp(min=1).unsqueeze(1)
            )

    def logits(self, states: Tensor, level: int, nodes: Tensor) -> Tensor:
        """What the vectors of the continuations add to the logits of a level; 0 for codes that continue no item.

        Args:
            states: ``[..., d]``. nodes: prefixes ``[...]``, nodes of depth ``level``; -1 = the prefix of no item.

        Returns:
            ``[..., V_level]``
        """
        at, vectors = self.trie.levels[level], self.vectors[level]
        added = torch.zeros(*nodes.shape, at.size, device=states.device)
        if level == 0:  # one prefix, the root
            return added.index_copy(-1, at.code[:-1].long(), (states @ vectors[:-1].T).float())
        codes, edges = (found.flatten(0, -2) for found in at.window(nodes))
        live, query = (
            edges >= 0,
            torch.arange(len(edges), device=edges.device).unsqueeze(1).expand_as(edges),
        )
        slots = (torch.where(live, edges, at.n_edges), query, codes)  # the dead node's vector is 0
        edge, query, code = (values[live] if self.ragged else values.flatten() for values in slots)
        rows, flat = max(1, MOST // states.shape[-1]), states.flatten(0, -2)
        parts = [
            (embedding(some, vectors) * embedding(owner, flat)).sum(-1)
            for some, owner in zip(edge.split(rows), query.split(rows), strict=True)
        ]
        return (
            added.flatten(0, -2)
            .index_put((query, code), torch.cat(parts).float(), accumulate=True)
            .view_as(added)
        )
