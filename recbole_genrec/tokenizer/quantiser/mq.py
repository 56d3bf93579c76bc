"""MQ, the masked vector-quantised network of TokenRec (arXiv 2406.10450).

K encoders and codebooks side by side, one decoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.codebook_network import CodebookNetwork
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows, cluster, squared_distances


class MQ(CodebookNetwork):
    """Masked input, K encoders with a codebook each, and a decoder of the sum of the codes.

    Args:
        d_in: D, dimensions of the collaborative vectors.
        sizes: L_k, codes of each of the K codebooks.
        d_code: d, dimensions of the codes.
        hidden: widths between ``d_in`` and ``d_code`` in each encoder; the decoder mirrors them.
        mask_ratio: rho, probability with which an input value is hidden in training, drawn for each
            sample and dimension.
        beta: weight of the commitment loss.
        dropout: in front of each ReLU.
        official_compat: no straight-through gradient and no commitment loss, hence encoders that
            never learn, as in the released program.
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
        official_compat: bool = False,
    ) -> None:
        super().__init__()
        widths = [d_in, *hidden, d_code]
        if not sizes or min(*widths, *sizes) < 1:
            raise ConfigError(
                f"MQ: layer widths {widths} and codebook_sizes {list(sizes)} must be 1 or more."
            )
        self.sizes, self.mask_ratio, self.beta, self.official_compat = (
            tuple(sizes),
            mask_ratio,
            beta,
            official_compat,
        )
        self.encoder = _SideBySide(_mlp(widths, dropout) for _ in self.sizes)
        self.decoder = _mlp(widths[::-1], dropout)
        self.codebooks = nn.ParameterList(
            torch.empty(size, d_code).uniform_(-1 / size, 1 / size) for size in self.sizes
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mask (in training), encode, quantise and decode ``x [n, D]``, which stays as it is.

        Returns:
            Reconstruction ``[n, D]``; codes int64 ``[n, K]``; losses: ``recon`` and ``total``
            (0-d), ``codebook`` and ``commitment`` ``[K]``, all means over rows and dimensions, with
            ``total = recon + sum of (codebook + beta * commitment)``. The target of ``recon`` is
            ``x`` without mask.
        """
        latents = self.encoder(self.masked(x))
        nearest = [self._nearest(z, book) for z, book in zip(latents, self.codebooks, strict=True)]
        chosen = torch.stack([vectors for _, vectors in nearest])  # [K, n, d]
        quantised = chosen if self.official_compat else latents + (chosen - latents).detach()
        recon = self.decoder(quantised.sum(0))
        losses = {
            "recon": mse_loss(recon, x),
            "codebook": (chosen - latents.detach()).square().mean((1, 2)),
        }
        losses["commitment"] = (latents - chosen.detach()).square().mean((1, 2))
        beta = 0.0 if self.official_compat else self.beta
        losses["total"] = losses["recon"] + (losses["codebook"] + beta * losses["commitment"]).sum()
        return recon, torch.stack([codes for codes, _ in nearest], dim=1), losses

    def masked(self, x: Tensor) -> Tensor:
        """``x [n, D]`` with a random share of its values set to 0 in training; a new tensor."""
        return x * (torch.rand_like(x) >= self.mask_ratio) if self.training else x

    def path(
        self, latent: Tensor, books: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each codebook quantises the latent of its own encoder."""
        for z, book in zip(latent, books, strict=True):
            distances = squared_distances(z, book)
            yield z, distances, distances.argmin(1)

    @torch.no_grad()
    def codebook_init(self, x: Tensor, seed: int = 0) -> None:
        """Set the codes by k-means on the latents of all rows ``x [n, D]``, in evaluation mode.

        The encoders' batch norm first takes over mean and variance of all rows: with those that it
        starts from, the latents would have another scale than in the first training step (our
        choice, unpublished). Where there are fewer distinct latents than codes, the other codes
        stay random.
        """
        check_rows(x)
        norms = [module for module in self.encoder.modules() if isinstance(module, nn.BatchNorm1d)]
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0  # forget what was there
        self.encoder.train()(x)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
        chunks = []
        for path in self.paths(x):
            chunks.append([latents for latents, *_ in path])
        points = [torch.cat(level) for level in zip(*chunks, strict=True)]
        with threadpool_limits(1):
            for book, z in zip(self.codebooks, points, strict=True):
                distinct, counts = z.cpu().unique(dim=0, return_counts=True)
                centres = cluster(distinct, counts, len(book), n_init=1, seed=seed, max_iter=100)
                book[: len(centres)] = centres.to(book)

    @staticmethod
    def _nearest(z: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
        codes = squared_distances(z.detach(), book.detach()).argmin(1)
        return codes, book[codes]


class _SideBySide(nn.ModuleList):
    """K networks of the same input: ``[n, D]`` to ``[K, n, d]``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self])


def _mlp(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers; batch norm, dropout and ReLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.Dropout(dropout), nn.ReLU()]
    return nn.Sequential(*layers[:-3])
