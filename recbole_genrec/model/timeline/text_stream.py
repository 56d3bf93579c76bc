"""A second stream of TimelineRec, which knows items by their texts alone (``text_stream``).

Ids learn which item follows which; texts learn what kind of item follows, and go on learning when
ids begin to know the training data by heart. The two err differently. So the second stream shares
nothing with the first but the codes: it has a text map, a transformer and a stateless tree of its
own, and its edges have no vectors of their own. The children of a node compete by the means of both
logits (late fusion), so that the result is one distribution, exact or by beams. A flat softmax over
items may stand in the place of the tree, for the flat twin, or beside it. The form is ours and
unpublished.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import embedding

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.model.timeline.head_vectors import HeadVectors
from recbole_genrec.model.timeline.item_vectors import make_text_map, mapped_texts
from recbole_genrec.model.timeline.keys import Plan
from recbole_genrec.model.timeline.tree import CodeTree, StatelessTree
from recbole_genrec.model.timeline.trunk import (
    RelativeTransformer,
    Slots,
    input_layers,
    last_items,
)


class StreamVectors(NamedTuple):
    """A stream with what follows from its weights alone.

    Attributes:
        stream: its weights.
        items: vectors of all items ``[n_items, d]``.
        heads: what its heads read.
    """

    stream: TextStream
    items: Tensor
    heads: HeadVectors

    def states(self, history: Tensor) -> Tensor:
        """States of all positions; state t knows items 1 to t.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.

        Returns:
            ``[B, T, d]``; what stands at padding has no meaning.
        """
        return self.stream.states(history, self.items)

    def last_states(self, history: Tensor, length: Tensor) -> Tensor:
        """The state of the last item of each history, ``[B, d]``; see :meth:`states`."""
        return last_items(self.states(history), length)


class TextStream(nn.Module):
    """Item vectors from texts, a transformer, and the heads of the model: a tree, a flat softmax.

    Args:
        plan: of the run.
        trie: of the whole catalogue.
        n_text: width of the sentence embeddings.
        n_distances: distances that have a bias of their own.
    """

    tree: StatelessTree | None

    def __init__(self, plan: Plan, trie: ItemTrie, n_text: int, n_distances: int):
        super().__init__()
        settings = plan.settings
        d = settings.d_model
        dropout = settings.text_stream_dropout
        self.text_map = make_text_map(n_text, settings.text_stream_mlp, d)
        self.transformer = RelativeTransformer(
            d, settings.n_heads, settings.n_layers, dropout, settings.norm, n_distances
        )
        self.dropout, self.input_norm = input_layers(self.transformer, d, settings.norm, dropout)
        self.tree = None
        if "tree" in plan.head_names:
            self.tree = StatelessTree(trie, d, edge_vectors="mean")

    def vectors(self, trie: ItemTrie, texts: Tensor) -> StreamVectors:
        """Vectors of items and edges.

        Args:
            trie: of the whole catalogue.
            texts: sentence embeddings of all items ``[n_items, D]``.
        """
        items = mapped_texts(self.text_map, texts)  # [n_items, d]
        heads = HeadVectors(outputs=items)
        if self.tree is not None:
            heads.trees = [CodeTree.of(self.tree, trie, items)]
        return StreamVectors(self, items, heads)

    def states(self, history: Tensor, vectors: Tensor) -> Tensor:
        """States of all positions; see :meth:`StreamVectors.states`.

        Args:
            history: item ids ``[B, T]``, right-padded with 0.
            vectors: of all items ``[n_items, d]``.
        """
        slots = Slots.of(history)
        items = history.flatten()[slots.places]  # [N]
        x = self.dropout(self.input_norm(embedding(items, vectors)))  # [N, d]
        return slots.padded(self.transformer(x, slots))
