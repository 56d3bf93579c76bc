"""LETTER's tokenizer losses (arXiv 2405.07314): semantic + collaborative + diversity regularisation of an RQ-VAE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.kmeans import check_rows
from recbole_genrec.tokenizer.rqvae import RQVAE


class LETTERLoss(nn.Module):
    """``L_Sem + alpha * L_CF + beta * L_Div`` of an :class:`RQVAE`, reduced as that is.

    With ``reduction: mean``, as released, the diversity term of each level stands inside the mean over the levels, so that ``beta``
    acts as ``beta / L`` on a level.

    Args:
        alpha: weight of L_CF.
        beta: weight of L_Div.
        cf_temperature: divides the logits of L_CF.
        cf_normalize: cosine instead of dot product in L_CF.
        projection: maps collaborative vectors to ``[n, d_code]`` where their dimensions differ; trained with the tokenizer (our choice,
            unpublished).
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
        self.alpha, self.beta, self.cf_temperature, self.cf_normalize = alpha, beta, cf_temperature, cf_normalize
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
            x: item vectors ``[n, D]``.
            cf: collaborative vectors ``[n, d]``, constants; needed unless ``alpha`` is 0.
            cf_rows: bool ``[n]``, items with training interactions; the others stay out of L_CF, as rows and as columns (our choice,
                unpublished). ``None``: all.
            labels: cluster of each code, L tensors ``[K_l]`` from :func:`balanced_clusters`; needed unless ``beta`` is 0.
            positives: codes ``[n, L]`` for L_Div; ``None``: drawn by :func:`draw_positives` with ``generator``.

        Returns:
            The losses of :meth:`RQVAE.forward`, with ``cf`` (0-d), ``div [L]``, and with ``quant`` and ``total`` including them.
        """
        if (self.alpha and cf is None) or (self.beta and labels is None):
            raise ConfigError("LETTERLoss needs cf unless alpha is 0, and labels unless beta is 0.")
        _, z_q, codes, losses = rqvae(x)
        losses["cf"] = z_q.new_zeros(()) if cf is None else self.collaborative(z_q, cf, cf_rows)
        losses["div"] = torch.zeros_like(losses["codebook"])
        if labels is not None:
            positives = draw_positives(codes, labels, generator) if positives is None else positives
            losses["div"] = diversity(rqvae.codebooks, codes, positives)
        losses["quant"] = rqvae.over_levels(losses["codebook"] + rqvae.mu * losses["commitment"] + self.beta * losses["div"])
        losses["total"] = losses["recon"] + rqvae.quant_loss_weight * losses["quant"] + self.alpha * losses["cf"]
        return losses

    def collaborative(self, z_q: Tensor, cf: Tensor, rows: Tensor | None = None) -> Tensor:
        """L_CF: in-batch cross-entropy of the quantised latents ``z_q [n, d]`` against their own ``cf [n, d]``.

        Without any item in ``rows`` it is 0.
        """
        cf = self.projection(cf.detach().to(z_q.dtype))
        if cf.shape != z_q.shape:
            raise ConfigError(f"L_CF: collaborative vectors {list(cf.shape)} and latents {list(z_q.shape)} differ; give a projection.")
        if rows is not None:
            z_q, cf = z_q[rows], cf[rows]
        if self.cf_normalize:
            z_q, cf = normalize(z_q), normalize(cf)
        logits = z_q @ cf.T / self.cf_temperature
        own = torch.arange(len(logits), device=logits.device)
        return cross_entropy(logits, own) if len(logits) else z_q.sum()


def diversity(codebooks: Sequence[Tensor], codes: Tensor, positives: Tensor) -> Tensor:
    """L_Div of each level, ``[L]``: pulls each chosen code to its positive, away from all other codes of the level.

    ``codes`` and ``positives`` are ``[n, L]``. Gradients reach the chosen codes and all others; a code is never compared with itself.
    """
    losses = []
    for book, own, positive in zip(codebooks, codes.unbind(1), positives.unbind(1), strict=True):
        logits = (book[own] @ book.T).scatter(1, own[:, None], float("-inf"))
        losses.append(cross_entropy(logits, positive))
    return torch.stack(losses)


def draw_positives(codes: Tensor, labels: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
    """For each of ``codes [n, L]`` another code of its cluster, uniformly, int64 ``[n, L]``; :class:`DataError` for a cluster of one code.

    ``labels``: cluster of each code, L tensors ``[K_l]``. Drawn on the device of ``generator`` (CPU without one).
    """
    device = "cpu" if generator is None else generator.device
    drawn = []
    for level, (own, label) in enumerate(zip(codes.unbind(1), labels, strict=True)):
        size = torch.bincount(label)
        if (size == 1).any():
            raise DataError(f"L_Div: cluster {int((size == 1).nonzero()[0])} of level {level} has one code only, hence no positive.")
        order = torch.argsort(label, stable=True)
        place = torch.argsort(order)  # of each code in the clusters laid end to end
        cluster = label[own]
        first, others = (size.cumsum(0) - size)[cluster], size[cluster] - 1
        random = torch.rand(own.shape, generator=generator, dtype=torch.float64, device=device).to(own.device)
        offset = 1 + (random * others).long()
        drawn.append(order[first + (place[own] - first + offset) % (others + 1)])
    return torch.stack(drawn, dim=1)


def cluster_limits(n_codes: int, n_clusters: int = 10) -> tuple[int, int, int]:
    """Clusters, their least and their largest size for a codebook of ``n_codes`` >= 2: LETTER's 10 clusters of 10 to 60 for 256 codes.

    Smaller codebooks get fewer clusters, of two codes or more; larger ones up to twice the mean size (our choice, unpublished).
    """
    n_clusters = min(n_clusters, max(n_codes // 4, min(n_codes // 2, 2)))
    low = max(2, min(n_codes // 20, 10, n_codes // n_clusters))
    return n_clusters, low, max(6 * low, 2 * -(-n_codes // n_clusters))


def balanced_clusters(
    vectors: Tensor,
    n_clusters: int = 10,
    low: int | None = None,
    high: int | None = None,
    seed: int = 0,
    n_init: int = 10,
    max_iter: int = 10,
    clustering: str = "own",
) -> Tensor:
    """Constrained k-means of the code ``vectors [K, d]``: the cluster of each code, int64 ``[K]`` on the device of ``vectors``.

    Every cluster has ``low`` to ``high`` codes; where a limit is not given, :func:`cluster_limits` chooses it, and fewer clusters when
    there are few codes. Best of ``n_init`` k-means++ starts with at most ``max_iter`` iterations, each of which assigns the codes at the
    least total cost within the limits. A function of vectors and seed alone. ``clustering="library"`` leaves the work to the
    k-means-constrained package. :class:`ConfigError` when the limits cannot be met, :class:`DataError` for values that are no numbers.
    """
    check_rows(vectors)
    if len(vectors) < 2:
        raise ConfigError("Clusters of codes need codebook_sizes of 2 or more.")
    fewer, *limits = cluster_limits(len(vectors), n_clusters)
    if low is None and high is None:
        n_clusters = fewer
    low, high = (limit if given is None else given for given, limit in zip((low, high), limits, strict=True))
    if not 1 <= low <= high or not n_clusters * low <= len(vectors) <= n_clusters * high:
        raise ConfigError(f"{len(vectors)} codes do not fit into {n_clusters} clusters of {low} to {high}; change the limits.")
    points = vectors.detach().cpu().double().numpy()
    if clustering == "library":
        labels = _library(points, n_clusters, low, high, seed, n_init, max_iter)
    elif clustering == "own":
        seeds = np.random.SeedSequence(seed).generate_state(n_init)
        with threadpool_limits(1):
            starts = [_balanced_kmeans(points, n_clusters, low, high, int(start), max_iter) for start in seeds]
        labels = min(starts, key=lambda start: start[0])[1]
    else:
        raise ConfigError(f"clustering is {clustering!r}; write 'own' or 'library'.")
    return torch.from_numpy(labels.astype(np.int64)).to(vectors.device)


def _balanced_kmeans(points: np.ndarray, n_clusters: int, low: int, high: int, seed: int, max_iter: int) -> tuple[float, np.ndarray]:
    """One start: the sum of squared distances to the cluster means, and the cluster of each point."""
    centres, labels = kmeans_plusplus(points, n_clusters, random_state=seed)[0], np.array(())
    for _ in range(max_iter):
        before, labels = labels, assign_within(np.square(points[:, None] - centres).sum(-1), low, high)
        if np.array_equal(before, labels):
            break
        centres = np.stack([points[labels == number].mean(0) for number in range(n_clusters)])
    return float(np.square(points - centres[labels]).sum()), labels


def assign_within(cost: np.ndarray, low: int, high: int) -> np.ndarray:
    """Cluster of each row of ``cost [K, C]``, int ``[K]``, at the least total cost among those with ``low`` to ``high`` rows a cluster.

    A minimum-cost flow by successive shortest paths: from the cheapest clusters, one row at a time leaves a cluster that is too large (or
    enters one that is too small) by the cheapest chain of moves from cluster to cluster. Needs ``C * low <= K <= C * high``.
    """
    labels, n_clusters = cost.argmin(1), cost.shape[1]
    price = np.full((n_clusters, n_clusters), np.inf)  # of the cheapest move from one cluster to another, and the row that makes it
    mover = np.zeros((n_clusters, n_clusters), dtype=np.int64)
    rounding = 1e-12 * np.abs(cost).max()
    changed: list[int] = list(range(n_clusters))
    while True:
        size = np.bincount(labels, minlength=n_clusters)
        if size.max() > high:
            sources, targets = size > high, size < high
        elif size.min() < low:
            sources, targets = size > low, size < low
        else:
            return labels
        for a in changed:
            rows = np.flatnonzero(labels == a)
            if len(rows):
                moves = cost[rows] - cost[rows, a, None]
                mover[a], price[a] = rows[moves.argmin(0)], moves.min(0)
            else:
                price[a] = np.inf
        reach, origin = np.where(sources, 0.0, np.inf), np.full(n_clusters, -1)
        for _ in range(n_clusters):
            through = reach[:, None] + price
            shorter = through.min(0) < reach - rounding
            if not shorter.any():
                break
            origin = np.where(shorter, through.argmin(0), origin)
            reach = np.where(shorter, through.min(0), reach)
        end = int(np.where(targets, reach, np.inf).argmin())
        changed = [end]
        while (start := int(origin[end])) >= 0:
            labels[mover[start, end]] = end
            end = start
            changed.append(end)


def _library(points: np.ndarray, n_clusters: int, low: int, high: int, seed: int, n_init: int, max_iter: int) -> np.ndarray:
    try:
        from k_means_constrained import KMeansConstrained
    except ImportError:
        raise ConfigError("clustering 'library' needs k-means-constrained: pip install 'recbole-genrec[constrained-kmeans]'.") from None
    kmeans = KMeansConstrained(n_clusters, size_min=low, size_max=high, n_init=n_init, max_iter=max_iter, random_state=seed)
    return kmeans.fit_predict(points)
