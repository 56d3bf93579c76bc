"""MQ, the masked vector-quantised network of TokenRec (arXiv 2406.10450).

K encoders and codebooks side by side, one decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_genrec.tokenizer.quantiser.kmeans import squared_distances
from recbole_genrec.tokenizer.quantiser.masked_network import MaskedNetwork, batch_norm_network


class MQ(MaskedNetwork):
    """Masked input, K encoders with a codebook each, and a decoder of the sum of the codes.

    Args:
        args: see :class:`MaskedNetwork`.
        kwargs: see :class:`MaskedNetwork`.
        official_compat: no straight-through gradient and no commitment loss, hence encoders that
            never learn, as in the released program.
    """

    def __init__(self, *args: Any, official_compat: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.official_compat = official_compat
        if official_compat:
            self.beta = 0.0

    def _encoder(self, widths: Sequence[int], dropout: float) -> nn.Module:
        """One network for each codebook."""
        return _SideBySide(batch_norm_network(widths, dropout) for _ in self.sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mask (in training), encode, quantise and decode ``x [n, D]``, which stays as it is.

        Returns:
            Reconstruction ``[n, D]``; codes int64 ``[n, K]``; :meth:`losses`.
        """
        latents = self.encoder(self.masked(x))
        nearest = [self._nearest(z, book) for z, book in zip(latents, self.codebooks, strict=True)]
        chosen = torch.stack([vectors for _, vectors in nearest])  # [K, n, d]
        quantised = chosen if self.official_compat else latents + (chosen - latents).detach()
        recon = self.decoder(quantised.sum(0))
        codebook = (chosen - latents.detach()).square().mean((1, 2))
        commitment = (latents - chosen.detach()).square().mean((1, 2))
        codes = torch.stack([codes for codes, _ in nearest], dim=1)
        return recon, codes, self.losses(x, recon, codebook, commitment)

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
