"""What TokenRec's networks share: a masked input, and codes that start by k-means on all rows."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from recbole_genrec.tokenizer.quantiser.codebook_network import CodebookNetwork
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows, cluster


class MaskedNetwork(CodebookNetwork):
    """An autoencoder of collaborative vectors, part of which is hidden from it in training.

    Attributes:
        mask_ratio: rho, probability with which an input value is hidden in training, drawn for each
            sample and dimension.
    """

    mask_ratio: float

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mask (in training), encode, quantise and decode ``x [n, D]``, which stays as it is.

        Returns:
            Reconstruction ``[n, D]``; codes int64 ``[n, K]``; losses.
        """

    def masked(self, x: Tensor) -> Tensor:
        """``x [n, D]`` with a random share of its values set to 0 in training; a new tensor."""
        return x * (torch.rand_like(x) >= self.mask_ratio) if self.training else x

    @torch.no_grad()
    def codebook_init(self, x: Tensor, seed: int = 0) -> None:
        """Set the codes by k-means on what each codebook quantises of all rows ``x [n, D]``.

        In evaluation mode. The encoders' batch norm first takes over mean and variance of all rows:
        with those that it starts from, the latents would have another scale than in the first
        training step (our choice, unpublished). Where there are fewer distinct latents than codes,
        the other codes stay random.
        """
        check_rows(x)
        norms = [module for module in self.encoder.modules() if isinstance(module, nn.BatchNorm1d)]
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0  # forget what was there
        self.encoder.train()(x)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum

        with threadpool_limits(1):
            for level, book in enumerate(self.codebooks):
                points = torch.cat([_points(path, level) for path in self.paths(x)])
                distinct, counts = points.cpu().unique(dim=0, return_counts=True)
                centres = cluster(distinct, counts, len(book), n_init=1, seed=seed, max_iter=100)
                book[: len(centres)] = centres.to(book)


def _points(path: Iterator[tuple[Tensor, Tensor, Tensor]], level: int) -> Tensor:
    """What the codebook of a level quantises, ``[n, d]``."""
    return next(itertools.islice(path, level, None))[0]


def batch_norm_network(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers; batch norm, dropout and ReLU between them.

    Args:
        widths: of the input and of each layer's output.
        dropout: in front of each ReLU.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.Dropout(dropout), nn.ReLU()]
    return nn.Sequential(*layers[:-3])
