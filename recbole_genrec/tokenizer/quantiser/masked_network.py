"""What TokenRec's networks share: a masked input, and codes that start by k-means on all rows."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.codebook_network import CodebookNetwork, random_codebooks
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows, cluster


class MaskedNetwork(CodebookNetwork):
    """An autoencoder of collaborative vectors, part of which is hidden from it in training.

    Args:
        d_in: D, dimensions of the collaborative vectors.
        sizes: L_k, codes of each of the K codebooks.
        d_code: d, dimensions of the codes.
        hidden: widths between ``d_in`` and ``d_code`` in an encoder; the decoder mirrors them.
        mask_ratio: rho, probability with which an input value is hidden in training, drawn for each
            sample and dimension.
        beta: weight of the commitment loss.
        dropout: in front of each ReLU.

    Raises:
        ConfigError: no codebook, or a width or size below 1.
    """

    def __init__(
        self,
        d_in: int,
        sizes: Sequence[int],
        d_code: int,
        hidden: Sequence[int] = (128, 256),
        mask_ratio: float = 0.2,
        beta: float = 0.25,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [d_in, *hidden, d_code]
        if not sizes or min(*widths, *sizes) < 1:
            raise ConfigError(
                f"{type(self).__name__}: layer widths {widths} and codebook_sizes {list(sizes)} "
                "must be 1 or more."
            )
        self.sizes = tuple(sizes)
        self.mask_ratio = mask_ratio
        self.beta = beta
        self.encoder = self._encoder(widths, dropout)
        self.decoder = batch_norm_network(widths[::-1], dropout)
        self.codebooks = random_codebooks(self.sizes, d_code)

    def _encoder(self, widths: Sequence[int], dropout: float) -> nn.Module:
        """One network for all codebooks."""
        return batch_norm_network(widths, dropout)

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mask (in training), encode, quantise and decode ``x [n, D]``, which stays as it is.

        Returns:
            Reconstruction ``[n, D]``; codes int64 ``[n, K]``; :meth:`losses`.
        """

    def losses(
        self, x: Tensor, recon: Tensor, codebook: Tensor, commitment: Tensor
    ) -> dict[str, Tensor]:
        """What is learned, as means over rows and dimensions.

        Args:
            x: vectors ``[n, D]`` without mask.
            recon: their reconstruction ``[n, D]``.
            codebook: ``[K]``, squared distances of the codes to what they stand for.
            commitment: ``[K]``, the same distances, whose gradient reaches the encoder.

        Returns:
            ``recon`` and ``total`` (0-d), ``codebook`` and ``commitment`` ``[K]``, with
            ``total = recon + sum of (codebook + beta * commitment)``.
        """
        error = mse_loss(recon, x)
        total = error + (codebook + self.beta * commitment).sum()
        return {"recon": error, "codebook": codebook, "commitment": commitment, "total": total}

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
                centres = cluster(distinct, counts, len(book), seed)
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
