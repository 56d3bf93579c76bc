"""Hierarchical k-means, the co-occurrence graph and its spectral embedding against plain
definitions.
"""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.collision import collision_stats, resolve_collisions
from recbole_genrec.tokenizer.hierarchical import co_occurrences, spectral_embedding
from recbole_genrec.tokenizer.quantiser.hierarchical_kmeans import HierarchicalKMeans


def gauss(n=600, d=10, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def same(first: HierarchicalKMeans, second: HierarchicalKMeans) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(first.tensors().values(), second.tensors().values(), strict=True)
    )


def test_definitions():
    x = gauss()
    fitted = HierarchicalKMeans.fit(x, (8, 6, 4))
    codes, distances = fitted.assign(x), fitted.level_distances(x)
    assert fitted.sizes == (8, 6, 4) and codes.dtype == torch.long and codes.shape == (600, 3)
    node = torch.zeros(600, dtype=torch.long)
    for level in range(3):
        starts = fitted.first[level]
        for row in range(600):
            children = fitted.centroids[level][starts[node[row]] : starts[node[row] + 1]]
            plain = (x[row].double() - children).square().sum(1)
            assert (
                torch.allclose(distances[level][row, : len(plain)], plain)
                and codes[row, level] == plain.argmin()
            )
            assert torch.allclose(
                distances[level][row, len(plain) :], plain.max()
            )  # children that do not exist
        node = starts[node] + codes[:, level]
        assert torch.equal(
            node.unique(), torch.arange(len(fitted.centroids[level]))
        )  # every node has items
        rebuilt = fitted.reconstruct(codes[:, : level + 1])
        assert torch.equal(rebuilt, fitted.centroids[level][node])
        for number in node.unique():
            assert torch.allclose(
                fitted.centroids[level][number], x[node == number].double().mean(0), atol=0.05
            )
    assert collision_stats(codes)["unique_ids"] == len(fitted.centroids[2])


def test_the_first_level_is_k_means_and_error_falls():
    x = gauss(n=1000, seed=2)
    fitted = HierarchicalKMeans.fit(x, (20, 5, 3), seed=4)
    theirs = (
        KMeans(20, n_init=1, random_state=4).fit(np.unique(x.double().numpy(), axis=0)).inertia_
    )
    assert float(fitted.level_distances(x)[0].amin(1).sum()) == pytest.approx(theirs, rel=1e-3)
    codes = fitted.assign(x)
    errors = [
        x.var(0, correction=0).mean(),
        *((x - fitted.reconstruct(codes[:, :level])).square().mean() for level in (1, 2, 3)),
    ]
    assert all(after < 0.95 * before for before, after in zip(errors[:-1], errors[1:], strict=True))


def test_a_tree_of_clusters_is_found_and_numbered_from_the_middle():
    centres = torch.tensor([[-4.0, 0], [0, 0], [9, 0]])
    offsets = torch.tensor([[-0.3, 0], [0.31, 0], [0, 0.02]])
    x = (centres[:, None] + offsets + 1e-3 * gauss(20, 2)[:, None, None]).reshape(
        -1, 2
    )  # [20 repeats, 3 clusters, 3 in each]
    codes = HierarchicalKMeans.fit(x, (3, 3)).assign(x).reshape(20, 3, 3, 2)
    assert torch.equal(
        codes[..., 0], torch.tensor([1, 0, 2]).view(1, 3, 1).expand(20, 3, 3)
    )  # the middle of all is at 5/3
    assert torch.equal(codes[..., 1], torch.tensor([1, 2, 0]).expand(20, 3, 3))


def test_order_and_threads_change_nothing():
    x = gauss()
    x[[7, 400]] = x[3].clone()
    first = HierarchicalKMeans.fit(x, (16, 16), seed=5)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    with threadpool_limits(2):
        second = HierarchicalKMeans.fit(x[order], (16, 16), seed=5)
    assert same(first, second)
    codes = first.assign(x)
    assert torch.equal(second.assign(x[order]), codes[order]) and torch.equal(
        first.assign(x[100:101]), codes[100:101]
    )
    assert torch.equal(codes[[7, 400]], codes[[3, 3]])
    assert not torch.equal(
        HierarchicalKMeans.fit(x, (16, 16), seed=6).centroids[0], first.centroids[0]
    )


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 9), st.integers(0, 10**6))
def test_codes_are_legal_and_equal_rows_get_equal_codes(n, d, size, seed):
    x = torch.randint(
        -1, 2, (n, d), generator=torch.Generator().manual_seed(seed)
    ).float()  # many equal and collinear rows
    fitted = HierarchicalKMeans.fit(x, (size, size), seed=seed)
    codes = fitted.assign(x)
    assert (codes >= 0).all() and (codes < torch.tensor(fitted.sizes)).all()
    distinct = len({tuple(row) for row in x.tolist()})
    assert (
        len(
            {
                (tuple(row), tuple(code))
                for row, code in zip(x.tolist(), codes.tolist(), strict=True)
            }
        )
        == distinct
    )
    assert fitted.reconstruct(codes).shape == x.shape
    if distinct <= fitted.sizes[0]:
        assert len(codes[:, 0].unique()) == distinct  # nothing is left to split


@pytest.mark.parametrize(
    "policies", [["nearest_free"], ["sinkhorn", "extra_token"], ["sinkhorn", "nearest_free"]]
)
def test_codes_without_a_child_serve_collision_policies(policies):
    x = gauss(n=150, d=3)
    x[:8] = x[8].clone()
    fitted = HierarchicalKMeans.fit(x, (4, 8, 8))
    codes = fitted.assign(x)
    repaired, _ = resolve_collisions(
        codes, fitted.sizes, policies, distances=lambda rows: fitted.level_distances(x[rows])
    )
    assert (
        collision_stats(codes)["colliding_items"]
        and not collision_stats(repaired)["colliding_items"]
    )


def test_chunks(monkeypatch):
    x = gauss()
    fitted = HierarchicalKMeans.fit(x, (16, 16))
    codes = fitted.assign(x)
    monkeypatch.setattr("recbole_genrec.tokenizer.quantiser.hierarchical_kmeans.CHUNK", 160)
    assert torch.equal(fitted.assign(x), codes)


def test_storage(tmp_path):
    x = gauss()
    fitted = HierarchicalKMeans.fit(x, (8, 8, 8))
    save_artefact(tmp_path, fitted.tensors(), {})
    loaded = HierarchicalKMeans.from_tensors(load_artefact(tmp_path)[0])
    assert (
        loaded.sizes == fitted.sizes
        and same(loaded, fitted)
        and torch.equal(loaded.assign(x), fitted.assign(x))
    )


def test_errors():
    x = gauss()
    fitted = HierarchicalKMeans.fit(x, (2, 150))
    with pytest.raises(ConfigError, match="codes of assign"):
        HierarchicalKMeans.fit(torch.eye(8), (2, 2)).reconstruct(torch.tensor([[0, 7]]))
    x[3, 2] = float("nan")
    for use in (lambda: HierarchicalKMeans.fit(x, (4,)), lambda: fitted.assign(x)):
        with pytest.raises(DataError, match=r"1 of 600 rows are not, the first is row \[3\]"):
            use()
    for sizes in ((), (4, 0)):
        with pytest.raises(ConfigError, match="codebook_sizes of 1 or more"):
            HierarchicalKMeans.fit(gauss(), sizes)


# --- graph ----------------------------------------------------------------------------------------


def sequences(n=30, users=25, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, n, draw.integers(1, 9)) for _ in range(users)]


def test_co_occurrences():
    found = sequences()
    plain = np.zeros((32, 32))
    for items in found:
        for a, b in combinations(set(items.tolist()), 2):  # a repeated item counts once
            plain[a, b] += 1
            plain[b, a] += 1
    np.testing.assert_array_equal(co_occurrences(found, 32).toarray(), plain)
    assert (
        co_occurrences([], 5).nnz == 0
        and co_occurrences([np.array([1]), np.array([2, 2])], 5).nnz == 0
    )


def test_spectral_embedding():
    graph = co_occurrences(sequences(), 32)  # 30 and 31 have no neighbours
    ours = spectral_embedding(graph, 6)
    dense = graph.toarray()[:30, :30]
    scale = dense.sum(1) ** -0.5
    values, vectors = np.linalg.eigh(scale[:, None] * dense * scale)
    assert values[-6] - values[-7] > 1e-3
    expected = vectors[:, -6:] / np.linalg.norm(vectors[:, -6:], axis=1, keepdims=True)
    assert ours.dtype == np.float32 and ours.shape == (32, 6) and not ours[30:].any()
    np.testing.assert_allclose(
        ours[:30] @ ours[:30].T, expected @ expected.T, atol=1e-5
    )  # up to a rotation
    np.testing.assert_array_equal(spectral_embedding(graph, 6), ours)
    assert spectral_embedding(graph, 64).shape == (32, 29)
    assert not spectral_embedding(co_occurrences([], 5), 4).any()
    assert spectral_embedding(co_occurrences([np.array([0, 3])], 5), 4)[[0, 3]].tolist() in (
        [[1.0], [1.0]],
        [[-1.0], [-1.0]],
    )


def test_communities_get_their_own_first_code():
    draw = np.random.default_rng(0)
    found = [10 * (user % 4) + draw.permutation(10)[:6] for user in range(80)]
    x = torch.from_numpy(spectral_embedding(co_occurrences(found, 40), 4))
    codes = HierarchicalKMeans.fit(x, (4, 8)).assign(x)[:, 0].reshape(4, 10)
    assert (codes == codes[:, :1]).all() and len(codes[:, 0].unique()) == 4
