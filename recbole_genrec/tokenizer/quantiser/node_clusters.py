"""Clusters of users and items together, and the rank of each node in its cluster (META ID)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from recbole_genrec.tokenizer.quantiser.balanced_kmeans import assign_within
from recbole_genrec.tokenizer.quantiser.kmeans import check_rows, cluster, squared_distances

RANDOM_STATE = 0
"""Of k-means, as published."""


@dataclass(frozen=True, eq=False)
class NodeClusters:
    """Fitted clusters.

    Attributes:
        centroids: float64 ``[K, d]``; of length 1 where ``spherical``.
        spherical: whether a distance is 1 - cosine; else it is Euclidean, squared.
    """

    centroids: Tensor
    spherical: bool = True

    @classmethod
    def fit(cls, vectors: Tensor, n_clusters: int, spherical: bool = True) -> NodeClusters:
        """k-means of vectors, which ``spherical`` first brings to length 1.

        Args:
            vectors: ``[n, d]``.
            n_clusters: at most so many; never more than distinct vectors.
            spherical: also brings the centroids to length 1.

        Raises:
            DataError: no vectors, or some that are no finite numbers.
        """
        check_rows(vectors)
        points = vectors.detach().cpu().double()
        if spherical:
            points = normalize(points)
        counts = torch.ones(len(points), dtype=torch.int64)
        with threadpool_limits(1):
            centroids = cluster(points, counts, n_clusters, RANDOM_STATE, max_iter=300)
        if spherical:
            centroids = normalize(centroids)
        return cls(centroids, spherical)

    def distances(self, vectors: Tensor) -> Tensor:
        """Distances of ``vectors [n, d]`` to the centroids, float64 ``[n, K]``."""
        points = vectors.detach().cpu().double()
        if self.spherical:
            return 1 - normalize(points) @ self.centroids.T
        return squared_distances(points, self.centroids)

    def codes(self, vectors: Tensor, balanced: bool = False) -> Tensor:
        """The cluster of each node and its rank there by the distance to the centroid.

        Rank 0 is the nearest; of equally near nodes the first comes first.

        Args:
            vectors: ``[n, d]``.
            balanced: no cluster gets more than its share, ``ceil(n / K)``, at the least sum of
                distances; else each node goes to its nearest centroid.

        Returns:
            int64 ``[n, 2]``.
        """
        distances = self.distances(vectors)  # [n, K]
        labels = distances.argmin(1)
        if balanced:
            n_clusters = distances.shape[1]
            share = -(-len(distances) // n_clusters)
            labels = torch.from_numpy(assign_within(distances.numpy(), 0, share).astype(np.int64))
        distance = distances.gather(1, labels.unsqueeze(1)).squeeze(1)
        return torch.stack([labels, ranks(labels, distance)], dim=1)


def ranks(labels: Tensor, distance: Tensor) -> Tensor:
    """Rank of each node among those of its cluster, the nearest first, int64 ``[n]``.

    Args:
        labels: clusters int64 ``[n]``.
        distance: to the centroid ``[n]``; equal ones rank by their place.
    """
    by_distance = distance.argsort(stable=True)
    order = by_distance[labels[by_distance].argsort(stable=True)]
    size = torch.bincount(labels)
    first = size.cumsum(0) - size  # where each cluster begins in the order
    rank = torch.empty_like(labels)
    rank[order] = torch.arange(len(labels)) - first[labels[order]]
    return rank
