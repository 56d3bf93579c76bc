"""LETTER's tokenizer losses (arXiv 2405.07314).

Semantic + collaborative + diversity regularisation of an RQ-VAE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, normalize

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE


class LETTERLoss(nn.Module):
    """``L_Sem + alpha * L_CF + beta * L_Div`` of an :class:`RQVAE`, reduced as that is.

    With ``reduction: mean``, as released, the diversity term of each level stands inside the mean
    over the levels, so that ``beta`` acts as ``beta / L`` on a level.

    Args:
        alpha: weight of L_CF.
        beta: weight of L_Div.
        cf_temperature: divides the logits of L_CF.
        cf_normalize: cosine instead of dot product in L_CF.
        projection: maps collaborative vectors to ``[n, d_code]`` where their dimensions differ;
            trained with the tokenizer (our choice, unpublished).
    """

    def __init__(
        self,
        alpha: float = 0.02,
        beta: float = 1e-4,
        cf_temperature: float = 1.0,
        cf_normalize: bool = False,
        projection: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.cf_temperature = cf_temperature
        self.cf_normalize = cf_normalize
        self.projection = nn.Identity() if projection is None else projection

    def forward(
        self,
        rqvae: RQVAE,
        x: Tensor,
        cf: Tensor | None = None,
        cf_rows: Tensor | None = None,
        labels: Sequence[Tensor] | None = None,
        positives: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one batch of n items.

        Args:
            rqvae: the network.
            x: item vectors ``[n, D]``.
            cf: collaborative vectors ``[n, d]``, constants; needed unless ``alpha`` is 0.
            cf_rows: bool ``[n]``, items with training interactions; the others stay out of L_CF, as
                rows and as columns (our choice, unpublished). ``None``: all.
            labels: cluster of each code, L tensors ``[K_l]`` from :func:`balanced_clusters`; needed
                unless ``beta`` is 0.
            positives: codes ``[n, L]`` for L_Div; ``None``: drawn by :func:`draw_positives` with
                ``generator``.
            generator: of the drawn positives.

        Returns:
            The losses of :meth:`RQVAE.forward`, with ``cf`` (0-d), ``div [L]``, and with ``quant``
            and ``total`` including them.

        Raises:
            ConfigError: ``cf`` or ``labels`` is needed and not there, or as of
                :meth:`collaborative`.
            DataError: as of :func:`draw_positives`.
        """
        if (self.alpha and cf is None) or (self.beta and labels is None):
            raise ConfigError("LETTERLoss needs cf unless alpha is 0, and labels unless beta is 0.")
        _, z_q, codes, losses = rqvae(x)
        losses["cf"] = z_q.new_zeros(()) if cf is None else self.collaborative(z_q, cf, cf_rows)
        losses["div"] = torch.zeros_like(losses["codebook"])
        if labels is not None:
            positives = draw_positives(codes, labels, generator) if positives is None else positives
            losses["div"] = diversity(rqvae.codebooks, codes, positives)
        losses["quant"] = rqvae.over_levels(
            losses["codebook"] + rqvae.mu * losses["commitment"] + self.beta * losses["div"]
        )
        losses["total"] = (
            losses["recon"] + rqvae.quant_loss_weight * losses["quant"] + self.alpha * losses["cf"]
        )
        return losses

    def collaborative(self, z_q: Tensor, cf: Tensor, rows: Tensor | None = None) -> Tensor:
        """L_CF: in-batch cross-entropy of quantised latents against their collaborative vectors.

        In the precision of ``z_q``, whatever is around it.

        Args:
            z_q: quantised latents ``[n, d]``.
            cf: collaborative vectors of the same items; after the projection ``[n, d]``.
            rows: bool ``[n]``, items that take part; ``None`` = all.

        Returns:
            Scalar; 0 where no item takes part.

        Raises:
            ConfigError: the vectors have another size than the latents.
        """
        with torch.autocast(z_q.device.type, enabled=False):
            cf = self.projection(cf.detach().to(z_q.dtype))
            if cf.shape != z_q.shape:
                raise ConfigError(
                    f"L_CF: collaborative vectors {list(cf.shape)} and latents {list(z_q.shape)} "
                    "differ; give a projection."
                )
            if rows is not None:
                z_q, cf = z_q[rows], cf[rows]
            if self.cf_normalize:
                z_q, cf = normalize(z_q), normalize(cf)
            logits = z_q @ cf.T / self.cf_temperature
            targets = torch.arange(len(logits), device=logits.device)
            return cross_entropy(logits, targets) if len(logits) else z_q.sum()


def diversity(codebooks: Iterable[Tensor], codes: Tensor, positives: Tensor) -> Tensor:
    """L_Div of each level: it pulls each chosen code to its positive, away from all others.

    Gradients reach the chosen codes and all others; a code is never compared with itself.

    Args:
        codebooks: of the levels, L tensors ``[K_l, d]``.
        codes: int64 ``[n, L]``.
        positives: int64 ``[n, L]``.

    Returns:
        ``[L]``.
    """
    losses = []
    for book, chosen, positive in zip(codebooks, codes.unbind(1), positives.unbind(1), strict=True):
        with torch.autocast(book.device.type, enabled=False):
            losses.append(_diversity(book, chosen, positive))
    return torch.stack(losses)


def _diversity(book: Tensor, chosen: Tensor, positive: Tensor) -> Tensor:
    """L_Div of one level.

    The denominator of an item depends on its code alone, so it is computed once for each code that
    the batch uses.

    Args:
        book: ``[K, d]``.
        chosen: codes ``[n]``.
        positive: codes ``[n]``.
    """
    count = torch.bincount(chosen, minlength=len(book))
    used = torch.nonzero(count)  # [U, 1]
    logits = (book[used[:, 0]] @ book.T).scatter(1, used, float("-inf"))  # [U, K]
    denominators = logits.logsumexp(1) @ count[used[:, 0]].to(book.dtype)
    products = embedding(chosen, book) * embedding(positive, book)  # [n, d]
    return (denominators - products.sum()) / len(chosen)


def draw_positives(
    codes: Tensor, labels: Sequence[Tensor], generator: torch.Generator | None = None
) -> Tensor:
    """For each code another one of its cluster, drawn uniformly.

    Args:
        codes: int64 ``[n, L]``.
        labels: cluster of each code, L tensors ``[K_l]``.
        generator: draws on its device; ``None`` = torch's own, on the CPU.

    Returns:
        int64 ``[n, L]``.

    Raises:
        DataError: a cluster has one code only.
    """
    device = "cpu" if generator is None else generator.device
    drawn = []
    for level, (column, label) in enumerate(zip(codes.unbind(1), labels, strict=True)):
        size = torch.bincount(label)
        if (size == 1).any():
            raise DataError(
                f"L_Div: cluster {int((size == 1).nonzero()[0])} of level {level} has one code "
                "only, hence no positive."
            )
        order = torch.argsort(label, stable=True)
        place = torch.argsort(order)  # of each code in the clusters laid end to end
        cluster = label[column]
        first, others = (size.cumsum(0) - size)[cluster], size[cluster] - 1
        random = torch.rand(
            column.shape, generator=generator, dtype=torch.float64, device=device
        ).to(column.device)
        offset = 1 + (random * others).long()
        drawn.append(order[first + (place[column] - first + offset) % (others + 1)])
    return torch.stack(drawn, dim=1)
