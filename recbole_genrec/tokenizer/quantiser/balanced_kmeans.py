"""k-means with bounds on the sizes of clusters."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows

STARTS = 10
"""k-means++ starts, the best of which counts."""
ITERATIONS = 10
"""Iterations of a start, at most."""


def cluster_limits(n_codes: int, n_clusters: int = 10) -> tuple[int, int, int]:
    """Sizes that clusters of codes may have: LETTER's 10 clusters of 10 to 60 for 256 codes.

    Smaller codebooks get fewer clusters, of two codes or more; larger ones up to twice the mean
    size (our choice, unpublished).

    Args:
        n_codes: of the codebook, 2 or more.
        n_clusters: asked for.

    Returns:
        The number of clusters, their least and their largest size.
    """
    n_clusters = min(n_clusters, max(n_codes // 4, min(n_codes // 2, 2)))
    low = max(2, min(n_codes // 20, 10, n_codes // n_clusters))
    return n_clusters, low, max(6 * low, 2 * -(-n_codes // n_clusters))


def balanced_clusters(
    vectors: Tensor, n_clusters: int = 10, seed: int = 0, clustering: str = "own"
) -> Tensor:
    """Constrained k-means of codes, within the sizes that :func:`cluster_limits` chooses.

    The best of several k-means++ starts; each iteration assigns the codes at the least total cost
    within the limits. A function of vectors and seed alone.

    Args:
        vectors: of the codes ``[K, d]``.
        n_clusters: number of clusters; fewer where there are few codes.
        seed: of the starts.
        clustering: ``own``, or ``library`` for the k-means-constrained package.

    Returns:
        The cluster of each code, int64 ``[K]`` on the device of ``vectors``.

    Raises:
        ConfigError: fewer than two codes, another ``clustering``, or the package is not there.
        DataError: values that are no numbers.
    """
    check_rows(vectors)
    if len(vectors) < 2:
        raise ConfigError("Clusters of codes need codebook_sizes of 2 or more.")
    n_clusters, low, high = cluster_limits(len(vectors), n_clusters)
    points = vectors.detach().cpu().double().numpy()
    if clustering == "library":
        labels = _library(points, n_clusters, low, high, seed)
    elif clustering == "own":
        seeds = np.random.SeedSequence(seed).generate_state(STARTS)
        with threadpool_limits(1):
            starts = [
                _balanced_kmeans(points, n_clusters, low, high, int(start)) for start in seeds
            ]
        labels = min(starts, key=lambda start: start[0])[1]
    else:
        raise ConfigError(f"clustering is {clustering!r}; write 'own' or 'library'.")
    return torch.from_numpy(labels.astype(np.int64)).to(vectors.device)


def _balanced_kmeans(
    points: np.ndarray, n_clusters: int, low: int, high: int, seed: int
) -> tuple[float, np.ndarray]:
    """k-means within the limits, from one k-means++ start.

    Args:
        points: float64 ``[K, d]``.
        n_clusters: number of clusters.
        low: least size of a cluster.
        high: largest size of a cluster.
        seed: of the start.

    Returns:
        The sum of squared distances to the cluster means, and the cluster of each point ``[K]``.
    """
    centres = kmeans_plusplus(points, n_clusters, random_state=seed)[0]
    labels = np.zeros(0, dtype=np.int64)
    for _ in range(ITERATIONS):
        before = labels
        cost = np.square(points[:, None] - centres).sum(-1)  # [K, C]
        labels = assign_within(cost, low, high)
        if np.array_equal(before, labels):
            break
        centres = np.stack([points[labels == number].mean(0) for number in range(n_clusters)])
    return float(np.square(points - centres[labels]).sum()), labels


def assign_within(cost: np.ndarray, low: int, high: int) -> np.ndarray:
    """Clusters of rows at the least total cost, within limits on their sizes.

    A minimum-cost flow by successive shortest paths: from the cheapest clusters, one row at a time
    leaves a cluster that is too large (or enters one that is too small) by the cheapest chain of
    moves from cluster to cluster.

    Args:
        cost: of each row in each cluster ``[K, C]``.
        low: rows of a cluster at least, ``C * low <= K``.
        high: rows of a cluster at most, ``K <= C * high``.

    Returns:
        The cluster of each row, int ``[K]``.
    """
    labels, n_clusters = cost.argmin(1), cost.shape[1]
    price = np.full(
        (n_clusters, n_clusters), np.inf
    )  # of the cheapest move from one cluster to another, and the row that makes it
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


def _library(points: np.ndarray, n_clusters: int, low: int, high: int, seed: int) -> np.ndarray:
    try:
        from k_means_constrained import KMeansConstrained
    except ImportError:
        raise ConfigError(
            "clustering 'library' needs k-means-constrained: pip install "
            "'recbole-genrec[constrained-kmeans]'."
        ) from None
    kmeans = KMeansConstrained(
        n_clusters,
        size_min=low,
        size_max=high,
        n_init=STARTS,
        max_iter=ITERATIONS,
        random_state=seed,
    )
    return kmeans.fit_predict(points)
