"""Output vectors of prefixes tell items with shared codes apart (ours, unpublished).

The vector of a prefix is the mean vector of the items below it. It is added to the output vector of
the code. The item tree becomes a hierarchical softmax (Morin and Bengio, AISTATS 2005) with
SASRec's tied item table (arXiv 1808.09781) at its nodes. What is generated are codes all the same.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.model.timeline.edge_logits import EdgeProducts
from recbole_genrec.model.timeline.edge_set import every_edge


class PathVectors(EdgeProducts):
    """Vectors of all prefixes of a catalogue, for one state of the item vectors.

    Args:
        trie: of the whole catalogue.
        table: item vectors ``[n_items, d]``; row 0, the padding item, is not read.
    """

    def __init__(self, trie: ItemTrie, table: Tensor):
        means = every_edge(trie).means(table)
        super().__init__(trie, [pad(mean, (0, 0, 0, 1)) for mean in means])
