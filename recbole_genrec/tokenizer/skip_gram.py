"""Skip-gram with negative sampling over random walks: one vector space for users and items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from recbole_genrec.tokenizer.training_loop import TrainingStage

NEGATIVES_AT_ONCE = 32
"""Negatives that all pairs of a walk share; their mean stands for those of a pair (our choice)."""
SMOOTHING = 0.75
"""Exponent on the frequencies from which negatives are drawn, as in word2vec."""


class SkipGram(nn.Module):
    """Two vectors for each node: as the centre of a window, and as its context.

    Args:
        n_nodes: N.
        dim: d, size of the vectors.
    """

    def __init__(self, n_nodes: int, dim: int) -> None:
        super().__init__()
        self.centres = nn.Embedding(n_nodes, dim)
        self.contexts = nn.Embedding(n_nodes, dim)
        for table in (self.centres, self.contexts):
            nn.init.uniform_(table.weight, -0.5 / dim, 0.5 / dim)

    def forward(self, walks: Tensor, negatives: Tensor, window: int, n_negatives: int) -> Tensor:
        """Mean loss over all pairs of a centre x and a context y in its window.

        The loss of a pair is ``-log sigmoid(v_x . w_y) - sum_neg log sigmoid(-v_x . w_neg)``.

        Args:
            walks: nodes ``[B, T]``.
            negatives: nodes ``[B, S]``, shared by the pairs of a walk.
            window: largest distance of a context from its centre, in both directions.
            n_negatives: weight of the mean over the negatives, their number for each pair.

        Returns:
            0-d.
        """
        centres = self.centres(walks)  # [B, T, d]
        place = torch.arange(walks.shape[1], device=walks.device)
        distance = (place.unsqueeze(1) - place).abs()
        in_window = (distance > 0) & (distance <= window)  # [T, T]
        n_contexts = in_window.sum(1)  # [T]

        towards = centres @ self.contexts(walks).transpose(1, 2)  # [B, T, T]
        attraction = -(logsigmoid(towards) * in_window).sum()
        away = centres @ self.contexts(negatives).transpose(1, 2)  # [B, T, S]
        repulsion = -(logsigmoid(-away).mean(-1) * n_contexts).sum()
        return (attraction + n_negatives * repulsion) / (len(walks) * n_contexts.sum())


@dataclass(frozen=True)
class SkipGramSettings:
    """How the vectors are trained.

    Attributes:
        window: nodes on either side of a centre.
        negatives: for each pair.
        batch_size: walks in a batch.
        epochs: passes over the walks.
        learning_rate: of the first step; it falls linearly to zero.
        seed: of everything random.
    """

    window: int
    negatives: int
    batch_size: int
    epochs: int
    learning_rate: float
    seed: int


class SkipGramStage(TrainingStage):
    """Trains a :class:`SkipGram` on walks with Adam (the optimiser is our choice).

    The order of the walks and the negatives of an epoch follow from the seed and its number alone,
    so a fit that continues sees the same ones.

    Args:
        network: what is trained.
        walks: nodes int32 ``[W, T]``.
        how: window, negatives, batches, rate and seed.
    """

    def __init__(self, network: SkipGram, walks: np.ndarray, how: SkipGramSettings) -> None:
        optimiser = torch.optim.Adam(network.parameters(), how.learning_rate)
        super().__init__("skip-gram", "Path vectors", network, optimiser, how.epochs)
        self.skip_gram = network
        self.how = how
        self.walks = torch.from_numpy(walks)
        self.device = network.centres.weight.device

        frequency = np.bincount(walks.ravel(), minlength=network.centres.num_embeddings)
        self.cumulative = torch.from_numpy((frequency**SMOOTHING).cumsum())
        self.step = 0

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """Walks in a new order."""
        self.draws = torch.Generator().manual_seed(_epoch_seed(self.how.seed, epoch))
        order = torch.randperm(len(self.walks), generator=self.draws)
        batches = order.split(self.how.batch_size)
        self.step = epoch * len(batches)
        self.last_step = self.how.epochs * len(batches)
        self._set_rate()
        return batches

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """The loss of a batch of walks."""
        negatives = self._negatives(len(rows)).to(self.device)
        walks = self.walks[rows].long().to(self.device)
        return {"total": self.skip_gram(walks, negatives, self.how.window, self.how.negatives)}

    def after_step(self) -> None:
        """Lower the learning rate."""
        self.step += 1
        self._set_rate()

    def _set_rate(self) -> None:
        rate = self.how.learning_rate * (1 - self.step / self.last_step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _negatives(self, n_walks: int) -> Tensor:
        """Nodes ``[n_walks, S]``, drawn by their frequency to the power of 3/4."""
        shape = (n_walks, NEGATIVES_AT_ONCE)
        draw = torch.rand(shape, generator=self.draws, dtype=torch.float64)
        nodes = torch.searchsorted(self.cumulative, draw * self.cumulative[-1], right=True)
        return nodes.clamp(max=len(self.cumulative) - 1)


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
