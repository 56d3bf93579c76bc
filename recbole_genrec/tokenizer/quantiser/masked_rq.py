"""The ablation of TokenRec (arXiv 2406.10450): residual quantisation in the place of MQ.

One encoder, K codebooks each of which quantises what those before it leave.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from recbole_genrec.tokenizer.quantiser.kmeans import squared_distances
from recbole_genrec.tokenizer.quantiser.masked_network import MaskedNetwork


class MaskedRQ(MaskedNetwork):
    """Masked input, one encoder, K residual codebooks with straight-through, and a decoder.

    The arguments are those of :class:`MaskedNetwork`.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mask (in training), encode, quantise and decode ``x [n, D]``, which stays as it is.

        Returns:
            Reconstruction ``[n, D]``; codes int64 ``[n, K]``; :meth:`losses`. The commitment of
            every level reaches the encoder (our choice; the ablation's details are unpublished).
        """
        latent = self.encoder(self.masked(x))  # [n, d]
        residual = latent
        columns = []
        codebook = []
        commitment = []
        for book in self.codebooks:
            codes = squared_distances(residual.detach(), book.detach()).argmin(1)
            chosen = book[codes]
            columns.append(codes)
            codebook.append(mse_loss(chosen, residual.detach()))
            commitment.append(mse_loss(residual, chosen.detach()))
            residual = residual - chosen.detach()

        quantised = latent - residual.detach()
        recon = self.decoder(quantised)
        losses = self.losses(x, recon, torch.stack(codebook), torch.stack(commitment))
        return recon, torch.stack(columns, dim=1), losses
