"""How different the embeddings of identifiers are, and how well they keep who liked what (META ID).

Both figures are means over pairs of items that are drawn once with a seed, because all pairs of a
catalogue are too many. Which sign the paper prefers is not confirmed; the docstrings say what a
larger value means here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import cosine_similarity

N_PAIRS = 10_000
VARIANCE = 0.95
"""Share of the variance that the principal components keep."""


def item_pairs(n_items: int) -> Tensor:
    """Pairs of different rows, int64 ``[2, N_PAIRS]``, always the same.

    Args:
        n_items: number of rows, at least 2.
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(n_items, (N_PAIRS,), generator=generator)
    further = torch.randint(1, n_items, (N_PAIRS,), generator=generator)
    return torch.stack([first, (first + further) % n_items])


def diversity(embeddings: Tensor, pairs: Tensor) -> float:
    """Mean symmetric Kullback-Leibler divergence, in nats; larger = more diverse.

    ``(KL(p_i || p_j) + KL(p_j || p_i)) / 2`` with p = softmax over the dimensions.

    Args:
        embeddings: of identifiers ``[n, d]``.
        pairs: rows ``[2, P]``.
    """
    log_p = embeddings.double().log_softmax(1)
    first = log_p[pairs[0]]
    second = log_p[pairs[1]]
    # The two divergences add up to (p - q) . (log p - log q).
    both = ((first.exp() - second.exp()) * (first - second)).sum(1)
    return float(both.mean() / 2)


def memorisation(embeddings: Tensor, pairs: Tensor, sequences: Sequence[np.ndarray]) -> float:
    """Mean squared distance of two similarities; smaller = the embeddings keep more.

    The one is :func:`adjusted_cosine` of the interactions, scaled to 0 .. 1; the other the cosine
    of the embeddings after standardising each dimension and a PCA that keeps 95 % of the variance.

    Args:
        embeddings: of identifiers ``[n, d]``.
        pairs: rows ``[2, P]``.
        sequences: rows of each user's items.
    """
    scaled = StandardScaler().fit_transform(embeddings.double().numpy())
    reduced = torch.from_numpy(PCA(VARIANCE, svd_solver="full").fit_transform(scaled))
    of_embeddings = cosine_similarity(reduced[pairs[0]], reduced[pairs[1]], dim=1)

    similarity = adjusted_cosine(sequences, len(embeddings), pairs)
    spread = similarity.max() - similarity.min()
    of_interactions = (similarity - similarity.min()) / spread.clamp(min=1e-12)
    return float((of_embeddings - of_interactions).square().mean())


def adjusted_cosine(sequences: Sequence[np.ndarray], n_items: int, pairs: Tensor) -> Tensor:
    """Similarity of pairs of items by those who have both, float64 ``[P]``.

    An interaction is a rating of 1 and none is 0, so the mean of a user is the share of the
    catalogue that the user has (our choice: the data has no ratings). The sum of products runs over
    the users of both items, the two norms over the users of each.

    Args:
        sequences: rows of each user's items.
        n_items: number of rows.
        pairs: rows ``[2, P]``.
    """
    distinct = [np.unique(items) for items in sequences]
    counts = np.array([len(items) for items in distinct])
    users = np.repeat(np.arange(len(distinct)), counts)
    deviation = np.repeat(1 - counts / n_items, counts)
    table = csr_array(
        (deviation, (np.concatenate(distinct), users)), shape=(n_items, len(distinct))
    )
    first = table[pairs[0].numpy()]
    second = table[pairs[1].numpy()]
    products = np.asarray(first.multiply(second).sum(1)).ravel()
    norms = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
    scale = norms[pairs[0].numpy()] * norms[pairs[1].numpy()]
    return torch.from_numpy(products / np.maximum(scale, 1e-12))
