"""PCA + k-means against scikit-learn and plain definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.quantiser.pca_kmeans import PCAKMeans


def blobs(n=400, d=12, centres=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (5 * torch.randn(centres, d, generator=generator))[
        torch.arange(n) % centres
    ] + torch.randn(n, d, generator=generator)


@pytest.mark.parametrize("l2", [False, True])
def test_definitions(l2):
    x = blobs()
    fitted = PCAKMeans.fit(x, 9, 5, l2=l2, seed=1)
    pca = PCA(5, random_state=1).fit(x.double().numpy())
    assert torch.allclose(fitted.directions.components, torch.from_numpy(pca.components_))
    z = torch.from_numpy(pca.transform(x.double().numpy()))
    points = z / z.norm(dim=1, keepdim=True) if l2 else z
    distances = (points[:, None] - fitted.centroids).square().sum(-1)
    assert torch.allclose(fitted.distances(x), distances)
    codes = fitted.assign(x)
    assert torch.equal(codes, distances.argmin(1)) and codes.dtype == torch.long
    assert torch.equal(codes.unique(), torch.arange(9))
    for code in range(9):
        assert torch.allclose(fitted.centroids[code], points[codes == code].mean(0), atol=1e-5)
        inverse = z[codes == code].mean(0) @ fitted.directions.components + x.double().mean(0)
        assert torch.allclose(fitted.centroid_vectors()[code], inverse.float(), atol=1e-4)
    assert (fitted.raw_means is None) != l2


def test_inertia_is_that_of_scikit_learn_on_all_rows():
    x = blobs(n=500, d=6, centres=40, seed=3)
    x = torch.cat([x, x[:200]])  # repeated rows count twice
    ours = PCAKMeans.fit(x, 30, 6, seed=0).distances(x).amin(1).sum()
    theirs = min(
        KMeans(30, n_init=10, random_state=seed).fit(x.double().numpy()).inertia_
        for seed in range(2)
    )
    assert ours <= 1.03 * theirs


def test_same_seed_same_codes_on_any_number_of_threads():
    x = blobs(n=1500, centres=60, seed=5)
    first = PCAKMeans.fit(x, 32, 8, seed=7, n_init=2)
    with threadpool_limits(2):
        second = PCAKMeans.fit(x, 32, 8, seed=7, n_init=2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.tensors().values(), second.tensors().values(), strict=True)
    )
    assert torch.equal(first.assign(x), second.assign(x))


def test_few_distinct_vectors():
    distinct = blobs(n=10, seed=2)
    x = distinct[torch.arange(137) % 10]
    fitted = PCAKMeans.fit(x, 256, 64)
    codes = fitted.assign(x)
    assert len(fitted.centroids) == 10 and torch.equal(codes.unique(), torch.arange(10))
    assert torch.equal(codes, codes[:10][torch.arange(137) % 10]) and len(codes[:10].unique()) == 10
    assert torch.allclose(fitted.centroid_vectors()[codes], x, atol=1e-5)
    assert fitted.distances(x).amin(1).max() < 1e-9


@pytest.mark.parametrize("l2", [False, True])
@pytest.mark.parametrize("x", [torch.full((1, 4), 2.0), torch.full((9, 4), 2.0), torch.zeros(9, 4)])
def test_one_distinct_vector(x, l2, tmp_path):
    fitted = PCAKMeans.fit(x, 8, 3, l2=l2)
    assert fitted.assign(x).tolist() == [0] * len(x)
    assert fitted.distances(x).tolist() == [[0.0]] * len(x)
    assert torch.equal(fitted.centroid_vectors(), x[:1])
    save_artefact(tmp_path, fitted.tensors(), {})
    assert torch.equal(
        PCAKMeans.from_tensors(load_artefact(tmp_path)[0]).assign(x), fitted.assign(x)
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 25),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_every_code_is_used_and_equal_rows_get_equal_codes(n, d, n_clusters, pca_dim, l2, seed):
    x = torch.randint(
        -1, 2, (n, d), generator=torch.Generator().manual_seed(seed)
    ).float()  # many equal and collinear rows
    fitted = PCAKMeans.fit(x, n_clusters, pca_dim, l2=l2, n_init=1, seed=seed)
    codes = fitted.assign(x)
    distinct = len({tuple(row) for row in x.tolist()})
    assert len(fitted.centroids) <= min(n_clusters, distinct)
    assert torch.equal(codes.unique(), torch.arange(len(fitted.centroids)))
    assert (
        len({(tuple(row), code) for row, code in zip(x.tolist(), codes.tolist(), strict=True)})
        == distinct
    )
    assert fitted.directions.components.shape[0] <= min(pca_dim, d, max(0, n - 1))
    assert torch.isfinite(fitted.centroid_vectors()).all() and fitted.centroid_vectors().shape == (
        len(fitted.centroids),
        d,
    )


def test_new_rows_and_chunks(monkeypatch):
    x = blobs()
    fitted = PCAKMeans.fit(x[:300], 9, 5)
    codes = fitted.assign(x)
    assert torch.equal(codes[300:], fitted.assign(x[300:])) and torch.equal(
        codes[7:8], fitted.assign(x[7:8])
    )
    monkeypatch.setattr("recbole_genrec.tokenizer.quantiser.pca_kmeans.CHUNK", 50)
    assert torch.equal(codes, fitted.assign(x))


@pytest.mark.parametrize("l2", [False, True])
def test_storage(l2, tmp_path):
    x = blobs()
    fitted = PCAKMeans.fit(x, 9, 5, l2=l2)
    save_artefact(tmp_path, fitted.tensors(), {})
    loaded = PCAKMeans.from_tensors(load_artefact(tmp_path)[0])
    assert torch.equal(loaded.distances(x), fitted.distances(x)) and torch.equal(
        loaded.centroid_vectors(), fitted.centroid_vectors()
    )


def test_errors():
    x = blobs()
    x[3, 2] = float("nan")
    with pytest.raises(DataError, match=r"1 of 400 rows are not, the first is row \[3\]"):
        PCAKMeans.fit(x, 4, 4)
    with pytest.raises(DataError, match="0 of 0 rows"):
        PCAKMeans.fit(x[:0], 4, 4)
    with pytest.raises(ConfigError, match="got 0 and 4"):
        PCAKMeans.fit(blobs(), 0, 4)
