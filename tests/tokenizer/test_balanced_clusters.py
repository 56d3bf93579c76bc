"""Clusters of codes with limits on their sizes, against an exact assignment solver."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.quantiser import balanced_kmeans
from recbole_genrec.tokenizer.quantiser.balanced_kmeans import (
    assign_within,
    balanced_clusters,
    cluster_limits,
)


def codebook(k=256, d=32, seed=0):
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def two_starts(monkeypatch):
    """Fewer k-means++ starts, for speed."""
    monkeypatch.setattr(balanced_kmeans, "STARTS", 2)


def cheapest(cost, low, high):
    """Total cost of the best assignment: every cluster offers ``high`` places, and filling its
    first ``low`` places is worth a fortune.
    """
    places = np.repeat(np.arange(cost.shape[1]), high)
    fortune = (cost.shape[1] + 2) * (np.ptp(cost) + 1)
    required = np.tile(np.arange(high) < low, cost.shape[1])
    rows, chosen = linear_sum_assignment(cost[:, places] - fortune * required)
    return cost[rows, places[chosen]].sum()


@settings(max_examples=150)
@given(
    st.integers(1, 6), st.integers(0, 3), st.integers(0, 4), st.integers(0, 10**6), st.booleans()
)
def test_assignment_is_the_cheapest_within_the_limits(n_clusters, low, slack, seed, ties):
    high = max(1, low + slack)
    rng = np.random.default_rng(seed)
    n = rng.integers(max(1, n_clusters * low), n_clusters * high + 1)
    cost = rng.random((n, n_clusters)) ** 2 + rng.choice([0, 3]) * rng.random(n_clusters)
    cost = np.round(3 * cost) if ties else cost
    labels = assign_within(cost, low, high)
    size = np.bincount(labels, minlength=n_clusters)
    assert low <= size.min() and size.max() <= high
    assert cost[np.arange(n), labels].sum() == pytest.approx(cheapest(cost, low, high), abs=1e-9)


@pytest.mark.parametrize("kind", ["gauss", "one dense clump", "all equal"])
def test_sizes_of_a_full_codebook(kind, two_starts):
    vectors = codebook()
    if kind == "one dense clump":
        vectors[:200] *= 0.01
    if kind == "all equal":
        vectors[:] = vectors[0]
    labels = balanced_clusters(vectors, seed=1)
    size = torch.bincount(labels)
    assert labels.dtype == torch.long and labels.shape == (256,) and len(size) == 10
    assert size.min() >= 10 and size.max() <= 60


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7, 8, 13, 40, 100, 700])
def test_default_limits_fit_any_codebook(k, two_starts):
    n_clusters, low, high = cluster_limits(k)
    assert low >= 2 and n_clusters * low <= k <= n_clusters * high and n_clusters <= 10
    size = torch.bincount(balanced_clusters(codebook(k, d=3)), minlength=n_clusters)
    assert low <= size.min() and size.max() <= high and len(size) == n_clusters


def test_limits_of_the_paper():
    assert cluster_limits(256) == (10, 10, 60)


def test_a_function_of_seed_and_codebook(two_starts):
    vectors = codebook(100, 8)
    labels = balanced_clusters(vectors, seed=3)
    np.random.seed(0)
    torch.manual_seed(0)
    assert torch.equal(balanced_clusters(vectors.clone(), seed=3), labels)
    assert not torch.equal(balanced_clusters(vectors, seed=4), labels)
    assert torch.equal(balanced_clusters(torch.nn.Parameter(vectors.double()), seed=3), labels)


def test_it_finds_clusters_that_fit_and_is_a_local_optimum(monkeypatch):
    monkeypatch.setattr(balanced_kmeans, "ITERATIONS", 100)
    truth = torch.arange(60) % 6
    vectors = 10 * codebook(6, 4, seed=1)[truth] + codebook(60, 4, seed=2)
    labels = balanced_clusters(vectors, 6, seed=0)
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 6

    points = codebook(60, 4, seed=5).double().numpy()
    labels = balanced_clusters(torch.from_numpy(points), 4).numpy()
    _, low, high = cluster_limits(60, 4)
    means = np.stack([points[labels == number].mean(0) for number in range(4)])
    cost = np.square(points[:, None] - means).sum(-1)
    assert cost[np.arange(60), labels].sum() == pytest.approx(cheapest(cost, low, high), abs=1e-9)


def test_more_starts_are_never_worse(monkeypatch):
    vectors = codebook(80, 6)

    def inertia(starts):
        monkeypatch.setattr(balanced_kmeans, "STARTS", starts)
        labels = balanced_clusters(vectors, 8)
        return sum(
            float((vectors[labels == c] - vectors[labels == c].mean(0)).square().sum())
            for c in range(8)
        )

    assert inertia(8) <= inertia(3) <= inertia(1)


def test_errors(monkeypatch):
    with pytest.raises(ConfigError, match="codebook_sizes of 2 or more"):
        balanced_clusters(codebook(1))
    with pytest.raises(ConfigError, match="clustering is 'best'"):
        balanced_clusters(codebook(20), clustering="best")
    monkeypatch.setitem(sys.modules, "k_means_constrained", None)
    with pytest.raises(ConfigError, match=r"pip install 'recbole-genrec\[constrained-kmeans\]'"):
        balanced_clusters(codebook(20), clustering="library")
    vectors = codebook(20)
    vectors[4] = float("nan")
    with pytest.raises(DataError, match=r"first is row \[4\]"):
        balanced_clusters(vectors)


def test_library():
    pytest.importorskip("k_means_constrained")
    vectors = codebook(100, 8)
    labels = balanced_clusters(vectors, 5, clustering="library")
    size = torch.bincount(labels)
    _, low, high = cluster_limits(100, 5)
    assert labels.dtype == torch.long and len(size) == 5
    assert size.min() >= low and size.max() <= high
    assert torch.equal(balanced_clusters(vectors, 5, clustering="library"), labels)
