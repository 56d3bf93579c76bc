"""PCA followed by k-means.

A quantiser without training, hence without collapse (STORE, arXiv 2409.07276v1, dense token
discretisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.kmeans import (
    CHUNK,
    check_rows,
    cluster,
    squared_distances,
)
from recbole_genrec.tokenizer.quantiser.pca import Directions


@dataclass(frozen=True, eq=False)
class PCAKMeans:
    """A fitted quantiser of one level.

    All tensors are float64; d' = PCA dimensions, K_j = codes in use.

    Attributes:
        directions: the space of the centroids.
        centroids: ``[K_j, d']``.
        raw_means: ``[K_j, d']``, means of the clusters before the L2 normalisation; ``None``
            without normalisation.
    """

    directions: Directions
    centroids: Tensor
    raw_means: Tensor | None = None

    @classmethod
    def fit(
        cls,
        x: Tensor,
        n_clusters: int,
        pca_dim: int,
        l2: bool = False,
        n_init: int = 10,
        seed: int = 0,
    ) -> PCAKMeans:
        """PCA, L2 normalisation where it is asked for, and k-means.

        There are never more codes than distinct rows, and every code is used by some row. Same data
        and seed give the same result whatever the number of threads: the fit runs on one.

        Args:
            x: ``[n, d]``.
            n_clusters: codes, at most.
            pca_dim: dimensions of the PCA, at most.
            l2: whether rows have length 1 after the PCA.
            n_init: starts of k-means, the best of which counts.
            seed: of everything random.

        Raises:
            ConfigError: ``n_clusters`` or ``pca_dim`` below 1.
            DataError: no rows, or values that are no finite numbers.
        """
        if n_clusters < 1 or pca_dim < 1:
            raise ConfigError(
                f"k-means needs codebook_sizes and pca_dim of 1 or more, got {n_clusters} and "
                f"{pca_dim}."
            )
        check_rows(x)
        x = x.detach().cpu().double()
        rows, counts = torch.unique(x, dim=0, return_counts=True)
        n_dims = min(pca_dim, x.shape[1], len(rows) - 1)
        with threadpool_limits(1):
            directions = Directions.fit(x, n_dims, seed)
            projected = directions.project(rows)
            points = normalize(projected) if l2 else projected
            centroids = cluster(points, counts, n_clusters, seed, n_init, max_iter=300)
        raw_means = None
        if l2:
            raw_means = projected
        nearest = cls(directions, centroids, raw_means).assign(rows)
        used, codes = torch.unique(nearest, return_inverse=True)
        if l2:
            weight = one_hot(codes, len(used)).T * counts
            raw_means = (weight.double() @ projected) / weight.sum(1, keepdim=True)
        return cls(directions, centroids[used], raw_means)

    def assign(self, x: Tensor) -> Tensor:
        """Nearest code of each row of ``x [n, d]``, int64 ``[n]``; equal rows get equal codes."""
        rows, inverse = torch.unique(x.detach().cpu(), dim=0, return_inverse=True)
        chunks = rows.split(max(1, CHUNK // len(self.centroids)))
        return torch.cat([self.distances(chunk).argmin(1) for chunk in chunks])[inverse]

    def distances(self, x: Tensor) -> Tensor:
        """Squared distances of ``x [n, d]`` to the centroids, float64 ``[n, K_j]``.

        After PCA, and after normalisation where it was fitted with it.
        """
        points = self.directions.project(x)
        if self.raw_means is not None:
            points = normalize(points)
        return squared_distances(points, self.centroids)

    def centroid_vectors(self) -> Tensor:
        """The codes as vectors of the input space, float32 ``[K_j, d]``.

        PCA inverse of the centroids (with ``l2`` of the raw means).
        """
        inner = self.centroids if self.raw_means is None else self.raw_means
        return self.directions.restore(inner).float()

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`from_tensors` needs, for an artefact."""
        tensors = {**self.directions.tensors(), "centroids": self.centroids}
        if self.raw_means is not None:
            tensors["raw_means"] = self.raw_means
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> PCAKMeans:
        """The quantiser whose :meth:`tensors` these are."""
        directions = Directions.from_tensors(tensors)
        return cls(directions, tensors["centroids"], tensors.get("raw_means"))
