"""Codebooks before training: k-means with bounds on the sizes of clusters, level by level.

LETTER (arXiv 2405.07314) starts so; the other starts are ordinary k-means on all rows or on the
first batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_genrec.tokenizer.quantiser.balanced_kmeans import assign_within
from recbole_genrec.tokenizer.quantiser.kmeans import (
    check_rows,
    cluster,
    nearest,
    squared_distances,
)
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn_codes

Start = Literal["all", "constrained", "first_batch"]
FEWEST_ROWS = 512
"""Fewer rows are clustered without bounds (our choice)."""
MOST_ITERATIONS = 10
"""Iterations of the clustering with bounds, as released; ordinary k-means goes before (ours)."""


def size_limits(n_rows: int, n_clusters: int) -> tuple[int, int]:
    """Least and largest size of a cluster.

    Published: ``min(n // 512, 50)`` for 256 clusters, and four times that. Where this is no room
    for all rows, the largest size is twice the mean (our choice).
    """
    low = min(n_rows // (2 * n_clusters), 50)
    high = 4 * low
    if high * n_clusters < n_rows:
        high = 2 * -(-n_rows // n_clusters)
    return low, high


def constrained_kmeans(points: Tensor, n_clusters: int, seed: int) -> Tensor:
    """Centres of clusters none of which is small or large, float64 ``[K, d]``.

    Args:
        points: ``[n, d]``.
        n_clusters: K; fewer where there are fewer distinct points.
        seed: of the start.

    Raises:
        DataError: values that are no finite numbers.
    """
    check_rows(points)
    points = points.double()
    distinct, counts = torch.unique(points, dim=0, return_counts=True)
    centres = cluster(distinct, counts, n_clusters, seed)
    low, high = size_limits(len(points), len(centres))
    if low < 1 or len(points) < FEWEST_ROWS:
        return centres

    labels = torch.zeros(0, dtype=torch.long)
    for _ in range(MOST_ITERATIONS):
        before = labels
        costs = squared_distances(points, centres).numpy()  # [n, K]
        labels = torch.from_numpy(assign_within(costs, low, high))
        if torch.equal(before, labels):
            break
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        centres = sums / labels.bincount(minlength=len(centres)).unsqueeze(1)
    return centres


def constrained_codebooks(
    points: Tensor, sizes: Sequence[int], seed: int, epsilon: float, iterations: int
) -> tuple[list[Tensor], Tensor]:
    """Codebooks of :func:`constrained_kmeans`, each on what the levels before leave.

    Args:
        points: latents of all rows, ``[n, d]``.
        sizes: codes of each of the L levels.
        seed: of every level.
        epsilon: the last level assigns its rows by Sinkhorn over all of them; 0 = nearest codes.
        iterations: of Sinkhorn.

    Returns:
        L codebooks float64 ``[K_l, d]``, and the codes int64 ``[n, L]`` that the rows start with.
    """
    books = []
    columns = []
    residual = points.double()
    with threadpool_limits(1):
        for level, size in enumerate(sizes):
            book = constrained_kmeans(residual, size, seed)
            is_last = level == len(sizes) - 1
            if is_last and epsilon > 0:
                column = sinkhorn_codes(squared_distances(residual, book), epsilon, iterations)
            else:
                column = nearest(residual, book)
            books.append(book)
            columns.append(column)
            residual = residual - book[column]
    return books, torch.stack(columns, dim=1)
