"""MQ, the masked vector-quantised network of TokenRec (arXiv 2406.10450).

K encoders and codebooks side by side, one decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.kmeans import squared_distances
from recbole_genrec.tokenizer.quantiser.masked_network import MaskedNetwork, batch_norm_network


class MQ(MaskedNetwork):
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
        self.encoder = _SideBySide(batch_norm_network(widths, dropout) for _ in self.sizes)
        self.decoder = batch_norm_network(widths[::-1], dropout)
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

    def path(
        self, latent: Tensor, books: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each codebook quantises the latent of its own encoder."""
        for z, book in zip(latent, books, strict=True):
            distances = squared_distances(z, book)
            yield z, distances, distances.argmin(1)

    @staticmethod
    def _nearest(z: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
        codes = squared_distances(z.detach(), book.detach()).argmin(1)
        return codes, book[codes]


class _SideBySide(nn.ModuleList):
    """K networks of the same input: ``[n, D]`` to ``[K, n, d]``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self])
