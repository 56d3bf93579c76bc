"""k-means on weighted points, and distances to its centroids."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from recbole_genrec.errors import DataError

CHUNK = 1 << 24
"""Distances computed at once."""


def check_rows(x: Tensor) -> None:
    """Refuse rows that k-means cannot read.

    Args:
        x: ``[n, d]``.

    Raises:
        DataError: no rows, or values that are no finite numbers.
    """
    bad = torch.nonzero(~torch.isfinite(x).all(1)).flatten()
    if len(bad) or len(x) == 0:
        raise DataError(
            f"k-means needs rows of finite numbers; {len(bad)} of {len(x)} rows are not, the first "
            f"is row {bad[:1].tolist()}."
        )


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances ``[n, K]`` of ``points [n, d]`` to ``centroids [K, d]``, never negative."""
    squares = points.square().sum(1, keepdim=True) + centroids.square().sum(1)
    return (squares - 2 * points @ centroids.T).clamp_min(0)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The nearest of ``centroids [K, d]`` for each of ``points [n, d]``, int64 ``[n]``.

    Of equally near ones the first.
    """
    return torch.cat(
        [
            squared_distances(chunk, centroids).argmin(1)
            for chunk in points.split(max(1, CHUNK // len(centroids)))
        ]
    )


def cluster(
    points: Tensor, counts: Tensor, n_clusters: int, seed: int, n_init: int = 1, max_iter: int = 100
) -> Tensor:
    """Centroids of weighted points; the distinct points themselves while there are few enough.

    The result depends on the number of threads; limit them to one.

    Args:
        points: ``[n, d']``.
        counts: weight of each point ``[n]``.
        n_clusters: centroids, at most.
        seed: of the starts.
        n_init: starts, the best of which counts.
        max_iter: iterations of a start, at most.

    Returns:
        float64 ``[K, d']``.
    """
    distinct = torch.unique(points, dim=0) if len(points) > 1 else points
    if len(distinct) <= n_clusters:
        return distinct
    kmeans = KMeans(n_clusters, n_init=n_init, max_iter=max_iter, random_state=seed)
    kmeans.fit(points.float().numpy(), sample_weight=counts.numpy().astype(np.float32))
    return torch.from_numpy(kmeans.cluster_centers_).double()
