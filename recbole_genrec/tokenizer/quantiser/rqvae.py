"""RQ-VAE.

An autoencoder whose latent is a sum of codes, one of each level (TIGER, arXiv 2305.05065, section
3.1).

Losses and gradients are those that LC-Rec (arXiv 2311.09049) and LETTER (arXiv 2405.07314) release.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, mse_loss

from recbole_genrec.decoding.precision import at_least_float32
from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.code_sizes import effective_sizes
from recbole_genrec.tokenizer.quantiser.codebook_network import CodebookNetwork, random_codebooks
from recbole_genrec.tokenizer.quantiser.codebook_start import constrained_codebooks
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows, squared_distances
from recbole_genrec.tokenizer.quantiser.residual_kmeans import ResidualKMeans
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn_codes

JITTER = 0.1
"""Spread of codes that k-means leaves over, in deviations of the residuals (our choice)."""
ROWS_A_CODE = 2
"""Fewest distinct rows of a code that k-means starts, on average (our choice, unpublished)."""
INIT_ROWS = 100_000
"""Rows, randomly chosen, that k-means sees at most (our choice, unpublished)."""


class RQVAE(CodebookNetwork):
    """Residual-quantised autoencoder with straight-through gradients, no EMA and no dropout.

    Args:
        d_in: D, dimensions of the item vectors.
        hidden: widths between ``d_in`` and ``d_code`` in the encoder; the decoder mirrors them.
        d_code: d, dimensions of the latent and of the codes.
        sizes: K_l, codes of each of the L levels.
        mu: weight of the commitment loss.
        quant_loss_weight: weight of the quantisation losses beside the reconstruction loss.
        reduction: ``mean`` over elements and levels, as LC-Rec and LETTER release it, or ``sum``
            over dimensions and levels (mean over the batch), as the papers print it.
        last_epsilon: above 0 the last level assigns its codes in training by
            :func:`sinkhorn_codes` over the batch (LC-Rec, arXiv 2311.09049, uniform semantic
            mapping); 0 = by the nearest code.
        sinkhorn_iterations: of that level.
    """

    def __init__(
        self,
        d_in: int,
        hidden: Sequence[int],
        d_code: int,
        sizes: Sequence[int],
        mu: float = 0.25,
        quant_loss_weight: float = 1.0,
        reduction: str = "mean",
        last_epsilon: float = 0.0,
        sinkhorn_iterations: int = 50,
    ) -> None:
        super().__init__()
        widths = [d_in, *hidden, d_code]
        if not sizes or min(*widths, *sizes) < 1:
            raise ConfigError(
                f"RQ-VAE: layer widths {widths} and codebook_sizes {list(sizes)} must be 1 or more."
            )
        if reduction not in ("mean", "sum"):
            raise ConfigError(f"RQ-VAE: the reduction is {reduction!r}; write 'mean' or 'sum'.")
        if last_epsilon < 0:
            raise ConfigError(f"RQ-VAE: the Sinkhorn epsilon is {last_epsilon}; it must be >= 0.")
        self.sizes = tuple(sizes)
        self.mu = mu
        self.quant_loss_weight = quant_loss_weight
        self.reduction = reduction
        self.last_epsilon = last_epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.encoder = relu_network(widths)
        self.decoder = relu_network(widths[::-1])
        self.codebooks = random_codebooks(self.sizes, d_code)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Encode, quantise and decode ``x [n, D]``.

        Returns:
            Reconstruction ``[n, D]``; quantised latent ``z_q [n, d]``, whose gradient is the
            latent's; codes int64 ``[n, L]``; losses: ``recon``, ``quant`` and ``total`` (0-d),
            ``codebook`` and ``commitment`` ``[L]``, with ``quant`` = mean or sum over levels of
            ``codebook + mu * commitment`` and ``total = recon + quant_loss_weight * quant``.
        """
        z_q, codes, codebook, commitment = self.quantise(self.encoder(x))
        recon = self.decoder(z_q)
        losses = {"recon": self._error(recon, x), "codebook": codebook, "commitment": commitment}
        losses["quant"] = self.over_levels(codebook + self.mu * commitment)
        losses["total"] = losses["recon"] + self.quant_loss_weight * losses["quant"]
        return recon, z_q, codes, losses

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes of latents ``z [n, d]``, in float32 or better whatever the precision around it.

        Returns ``z_q = z + sg[z_hat - z]``, codes ``[n, L]``, codebook and commitment losses
        ``[L]``. Residuals after level 0 carry no gradient, so reconstruction never moves the codes
        and the commitment of later levels moves nothing, as in the released LETTER.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = at_least_float32(z)
            residual = z
            codes = []
            codebook = []
            commitment = []
            for level, parameter in enumerate(self.codebooks):
                book = parameter.to(z.dtype)
                distances = squared_distances(residual.detach(), book.detach())
                is_last = level == len(self.codebooks) - 1
                if self.training and is_last and self.last_epsilon > 0:
                    level_codes = sinkhorn_codes(
                        distances, self.last_epsilon, self.sinkhorn_iterations
                    )
                else:
                    level_codes = distances.argmin(1)
                codes.append(level_codes)
                chosen = embedding(level_codes, book)
                codebook.append(self._error(chosen, residual.detach()))
                commitment.append(self._error(residual, chosen.detach()))
                residual = (residual - chosen).detach()
            return (
                z - residual,
                torch.stack(codes, dim=1),
                torch.stack(codebook),
                torch.stack(commitment),
            )

    def over_levels(self, losses: Tensor) -> Tensor:
        """Mean or sum over the levels of ``losses [L]``, as ``reduction`` says."""
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def _error(self, a: Tensor, b: Tensor) -> Tensor:
        if self.reduction == "mean":
            return mse_loss(a, b)
        return mse_loss(a, b, reduction="sum") / len(a)

    # --- without gradients --------------------------------------------------------------------

    @torch.no_grad()
    def codebook_init(self, x: Tensor, seed: int = 0, constrained: bool = False) -> Tensor:
        """Set the codes by residual k-means on the latents of the rows ``x [n, D]``.

        TIGER, section 3.1, takes the first batch, which cannot fill 256 codes when it is small;
        LETTER takes all items and clusters with bounds on their sizes. A batch fills a level with
        at most half as many codes as it has distinct rows, so that something is left for the next
        level; further codes become copies of random ones with some noise (our choice, unpublished).

        Args:
            x: all items, or those of a batch.
            seed: of everything random; k-means starts by k-means++.
            constrained: whether the clusters have bounds, see
                :mod:`~recbole_genrec.tokenizer.quantiser.codebook_start`.

        Returns:
            The codes int64 ``[n, L]`` that the rows seen start with.
        """
        check_rows(x)
        generator = torch.Generator().manual_seed(seed)
        if len(x) > INIT_ROWS:
            x = x[torch.randperm(len(x), generator=generator)[:INIT_ROWS].to(x.device)]
        residual = torch.cat([next(path)[0] for path in self.paths(x)]).cpu()

        if constrained:
            centroids_by_level, codes = constrained_codebooks(
                residual, self.sizes, seed, self.last_epsilon, self.sinkhorn_iterations
            )
        else:
            n_rows = len(residual.unique(dim=0))
            sizes = effective_sizes(n_rows, self.sizes, ROWS_A_CODE)
            fitted = ResidualKMeans.fit(residual, sizes, seed)
            centroids_by_level = list(fitted.codebooks)
            codes = fitted.assign(residual)

        for level, (book, centroids) in enumerate(
            zip(self.codebooks, centroids_by_level, strict=True)
        ):
            n_copies = len(book) - len(centroids)
            rows = torch.randint(len(centroids), (n_copies,), generator=generator)
            copied = centroids[rows]
            noise = torch.randn(copied.shape, generator=generator, dtype=copied.dtype)
            noise = noise * residual.std(0, correction=0)
            book.copy_(torch.cat([centroids, copied + JITTER * noise]))
            residual = residual - centroids[codes[:, level]]
        return codes


def relu_network(widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU between them, Xavier-normal weights and zero biases.

    Args:
        widths: of the input and of each layer's output.
        dropout: after each ReLU.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        between: nn.Module = nn.ReLU(inplace=True)
        if dropout:
            between = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(dropout))
        layers += [linear, between]
    return nn.Sequential(*layers[:-1])
