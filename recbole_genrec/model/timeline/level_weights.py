"""The edges of one level of the stateless tree in training, and the losses among siblings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from recbole_genrec.decoding.smoothing import smoothed_losses
from recbole_genrec.decoding.trie_level import TrieLevel
from recbole_genrec.decoding.window_softmax import Hidden, Windows, window_cross_entropy
from recbole_genrec.model.timeline.distinct_rows import distinct_rows

ROWS_AT_ONCE = 128  # targets whose windows are computed together, little padded in a sorted batch
FEW_CELLS = 256  # logits up to which a window is computed together with others (measured)


class Branches(NamedTuple):
    """Steps of paths at nodes with several children.

    Attributes:
        parent: nodes int64 ``[R]``.
        target: the edges that the paths take, int64 ``[R]``.
        leaving: codes that do not compete, bool ``[R, V]``; ``None`` = all compete.
    """

    parent: Tensor
    target: Tensor
    leaving: Tensor | None = None


class LevelWeights:
    """Some edges of one level, siblings side by side.

    Args:
        level: the edges from one depth to the next.
        edges: vectors ``[E, d]``.
        bias: ``[E]``.
        codes: int64 ``[E]``.
    """

    def __init__(self, level: TrieLevel, edges: Tensor, bias: Tensor, codes: Tensor):
        self.level = level
        self.edges = edges
        self.bias = bias
        self.codes = codes

    def all_logits(self, states: Tensor) -> Tensor:
        """Logits of the edges of the root, ``[P, d]`` -> float32 ``[P, E]``."""
        return (states @ self.edges.T + self.bias).float()

    def by_code(self, logits: Tensor) -> Tensor:
        """Logits of the edges of the root as logits of codes, -inf where no edge has the code."""
        blank = logits.new_full((len(logits), self.level.size), -torch.inf)
        return blank.index_copy(1, self.codes, logits)

    def window_loss(
        self, states: Tensor, steps: Branches, first: Tensor, smoothing: float
    ) -> Tensor:
        """Sum over targets of the cross-entropy among the children of their parents.

        Args:
            states: ``[R, d]``.
            steps: parents and targets.
            first: where the children of each parent begin among the edges ``[R]``.
            smoothing: share of the probability that is spread evenly over the codes that compete.
        """
        if not len(states):
            return states.new_zeros(())
        windows = self._windows(steps, first)
        if self._has_products():
            hidden = None
            if steps.leaving is not None:
                hidden = Hidden(self.codes, steps.leaving)
            return window_cross_entropy(
                states, self.edges, self.bias, windows, FEW_CELLS, smoothing, hidden
            )
        total = states.new_zeros(())
        # Windows of similar width stand together, so that little is computed for nothing.
        for rows in torch.argsort(windows.width).split(ROWS_AT_ONCE):
            leaving = None
            if steps.leaving is not None:
                leaving = steps.leaving[rows]
            total = total + self._padded(states[rows], windows.of(rows), leaving, smoothing)
        return total

    def _windows(self, steps: Branches, first: Tensor) -> Windows:
        """The children of the parents; siblings stand side by side among the edges, too."""
        begin = self.level.ptr[steps.parent].long()
        count = self.level.ptr[steps.parent + 1].long() - begin
        return Windows(first, count, first + steps.target - begin)

    def _has_products(self) -> bool:
        """Whether wide windows are computed one by one; a GPU would wait between them."""
        return self.edges.device.type == "cpu"

    def _padded(
        self, states: Tensor, windows: Windows, leaving: Tensor | None, smoothing: float
    ) -> Tensor:
        """Sum of losses whose windows are padded to the widest; see :meth:`window_loss`."""
        slot = torch.arange(int(windows.width.max()), device=states.device)
        is_outside = slot >= windows.width.unsqueeze(1)  # [R, W]
        window = (windows.first.unsqueeze(1) + slot).masked_fill(is_outside, 0)
        vectors = embedding(window, self.edges)  # [R, W, d]
        logits = torch.bmm(vectors, states.unsqueeze(2)).squeeze(2)
        logits = logits.float() + embedding(window, self.bias.unsqueeze(1)).squeeze(2)
        if leaving is not None:
            is_outside |= leaving.gather(1, self.codes[window])
        logits = logits.masked_fill(is_outside, -torch.inf)
        place = windows.target - windows.first
        return smoothed_losses(logits, place, smoothing).sum()


class BatchEdges(LevelWeights):
    """The edges beside the paths of a batch; the gradients of the tables hold them alone.

    Args:
        level: the edges from one depth to the next.
        table: vectors of all edges of the level ``[n_edges, d]``.
        bias: of the same ``[n_edges]``.
        parent: nodes of the batch, int64 ``[R]``.

    Attributes:
        first: where the children of each parent begin among the edges ``[R]``.
    """

    def __init__(self, level: TrieLevel, table: Tensor, bias: Tensor, parent: Tensor):
        nodes, node = parent.unique(return_inverse=True)
        begin = level.ptr[nodes].long()
        count = level.ptr[nodes + 1].long() - begin
        place = count.cumsum(0) - count
        edges = torch.arange(int(count.sum()), device=parent.device)
        edges += (begin - place).repeat_interleave(count)
        codes = level.code[edges].long()
        super().__init__(level, distinct_rows(table, edges), distinct_rows(bias, edges), codes)
        self.first = place[node]
