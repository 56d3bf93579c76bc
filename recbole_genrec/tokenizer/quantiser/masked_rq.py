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
            Reconstruction ``[n, D]``; codes int64 ``[n, K]``; losses: ``recon`` and ``total``
            (0-d), ``codebook`` and ``commitment`` ``[K]``, all means over rows and dimensions, with
            ``total = recon + sum of (codebook + beta * commitment)``. The target of ``recon`` is
            ``x`` without mask. The commitment of every level reaches the encoder (our choice; the
            ablation's details are unpublished).
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
        losses = {
            "recon": mse_loss(recon, x),
            "codebook": torch.stack(codebook),
            "commitment": torch.stack(commitment),
        }
        losses["total"] = (
            losses["recon"] + (losses["codebook"] + self.beta * losses["commitment"]).sum()
        )
        return recon, torch.stack(columns, dim=1), losses
