"""The stateless tree as a decoder along the codes, for the search with beams."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.model.timeline.depth import StateAlone
from recbole_genrec.model.timeline.edge_logits import EdgeProducts, counted_codes
from recbole_genrec.model.timeline.tree import CodeTree


class StatelessDepth(StateAlone):
    """The tree as a decoder along the codes, for the search of ``score_mode: beam``.

    A query carries the states of its user in M streams side by side, ``[..., M d]``.

    Args:
        trie: of the whole catalogue.
        trees: the tree of each stream.
    """

    def __init__(self, trie: ItemTrie, trees: Sequence[CodeTree]):
        self.trie = trie
        self.trees = [tree.weights for tree in trees]
        self.products = [self._products(tree) for tree in trees]

    def _products(self, tree: CodeTree) -> EdgeProducts:
        # The bias of an edge is one more entry of its vector, against a 1 in the state. An edge
        # that does not compete has any logit, here 0.
        vectors = []
        edges = tree.edges
        biases = tree.weights.bias
        for numbers, edge, bias in zip(edges.among.edges, edges.vectors, biases, strict=True):
            joined = torch.cat([edge, bias[numbers].unsqueeze(1)], dim=1)
            blank = joined.new_zeros(len(bias) + 1, joined.shape[1])
            vectors.append(blank.index_copy(0, numbers, joined))
        return EdgeProducts(self.trie, vectors)

    def read(self, carried: Tensor, level: int) -> Tensor:
        """The states that give the logits of a level, float32 ``[..., M d]``."""
        # float32, as where one product scores all items
        with torch.autocast(carried.device.type, enabled=False):
            stream_states = carried.float().chunk(len(self.trees), dim=-1)
            pairs = zip(self.trees, stream_states, strict=True)
            return torch.cat([tree.state(part, level) for tree, part in pairs], dim=-1)

    def log_probs(self, states: Tensor, level: int, nodes: Tensor) -> Tensor:
        """Log-probabilities of the codes that continue prefixes.

        Args:
            states: see :meth:`read`, ``[..., M d]``.
            level: number of the level, counted from 0.
            nodes: the prefixes ``[...]``, -1 = the prefix of no item.

        Returns:
            float32 ``[..., V_level]``; codes that continue no item are not read.
        """
        states = states.float()
        ones = torch.ones_like(states[..., :1])
        parts = states.chunk(len(self.trees), dim=-1)
        # bf16 and fp16 would let many codes tie
        with torch.autocast(states.device.type, enabled=False):
            of_streams = (
                products.logits(torch.cat([part, ones], dim=-1), level, nodes)
                for products, part in zip(self.products, parts, strict=True)
            )
            logits = reduce(add, of_streams) / len(self.trees)
        is_counted = counted_codes(self.trie, level, nodes)
        mass = logits.masked_fill(~is_counted, -torch.inf).logsumexp(-1, keepdim=True)
        return logits - mass.masked_fill(mass == -torch.inf, 0)
