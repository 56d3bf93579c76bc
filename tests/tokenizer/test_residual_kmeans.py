"""Residual k-means against plain definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.code_sizes import effective_sizes
from recbole_genrec.tokenizer.quantiser.residual_kmeans import ResidualKMeans


def gauss(n=600, d=10, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pca_dim", [None, 6])
def test_definitions(pca_dim):
    x = gauss()
    fitted = ResidualKMeans.fit(x, (16, 12, 8), pca_dim=pca_dim)
    assert fitted.sizes == (16, 12, 8)
    points = x.double()
    if pca_dim:
        components = fitted.directions.components
        assert torch.allclose(components @ components.T, torch.eye(6).double())
        points = (points - x.double().mean(0)) @ components.T
    residual, codes, distances = points, fitted.assign(x), fitted.level_distances(x)
    assert codes.dtype == torch.long and codes.shape == (600, 3)
    for level, book in enumerate(fitted.codebooks):
        plain = (residual[:, None] - book).square().sum(-1)
        assert torch.allclose(distances[level], plain) and torch.equal(
            codes[:, level], plain.argmin(1)
        )
        for code in range(len(book)):
            assert torch.allclose(book[code], residual[codes[:, level] == code].mean(0), atol=0.05)
        residual = residual - book[codes[:, level]]
    rebuilt = points - residual
    if pca_dim:
        rebuilt = rebuilt @ components + fitted.directions.mean
    assert torch.allclose(fitted.reconstruct(codes), rebuilt)


def test_the_first_level_is_k_means():
    x = gauss(seed=2)
    ours = ResidualKMeans.fit(x, (20,), seed=4).level_distances(x)[0].amin(1).sum()
    theirs = (
        KMeans(20, n_init=1, random_state=4).fit(np.unique(x.double().numpy(), axis=0)).inertia_
    )
    assert float(ours) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("pca_dim", [None, 10])
def test_error_falls_with_every_level(pca_dim):
    x = gauss(n=1000)
    fitted = ResidualKMeans.fit(x, (32,) * 4, pca_dim=pca_dim)
    codes = fitted.assign(x)
    errors = [
        x.var(0, correction=0).mean(),
        *((x - fitted.reconstruct(codes[:, :level])).square().mean() for level in range(1, 5)),
    ]
    assert all(after < 0.95 * before for before, after in zip(errors[:-1], errors[1:], strict=True))


@pytest.mark.parametrize("pca_dim", [None, 5])
def test_order_and_threads_change_nothing(pca_dim):
    x = gauss()
    x[[7, 400]] = x[3].clone()
    first = ResidualKMeans.fit(x, (32, 32), seed=5, pca_dim=pca_dim)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    with threadpool_limits(2):
        second = ResidualKMeans.fit(x[order], (32, 32), seed=5, pca_dim=pca_dim)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.tensors().values(), second.tensors().values(), strict=True)
    )
    codes = first.assign(x)
    assert torch.equal(second.assign(x[order]), codes[order]) and torch.equal(
        first.assign(x[100:101]), codes[100:101]
    )
    assert torch.equal(codes[[7, 400]], codes[[3, 3]])
    assert not torch.equal(
        ResidualKMeans.fit(x, (32, 32), seed=6, pca_dim=pca_dim).codebooks[0], first.codebooks[0]
    )


def test_chunks(monkeypatch):
    x = gauss()
    fitted = ResidualKMeans.fit(x, (16, 16))
    codes = fitted.assign(x)
    monkeypatch.setattr("recbole_genrec.tokenizer.quantiser.kmeans.CHUNK", 50)
    assert torch.equal(fitted.assign(x), codes)


def test_small_catalogues_get_small_codebooks():
    assert effective_sizes(100, (256, 16, 25)) == (25, 16, 25) and effective_sizes(3, (256, 1)) == (
        2,
        1,
    )
    assert effective_sizes(12101, (256, 256)) == (256, 256)
    assert ResidualKMeans.fit(gauss(n=40), (10, 10, 4)).sizes == (10, 10, 4)


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(1, 12),
    st.sampled_from([None, 1, 3]),
    st.integers(0, 10**6),
)
def test_every_code_is_used_and_equal_rows_get_equal_codes(n, d, size, pca_dim, seed):
    x = torch.randint(
        -1, 2, (n, d), generator=torch.Generator().manual_seed(seed)
    ).float()  # many equal and collinear rows
    fitted = ResidualKMeans.fit(x, (size, size), seed=seed, pca_dim=pca_dim)
    codes = fitted.assign(x)
    for level, column in enumerate(codes.unbind(1)):
        assert (
            torch.equal(column.unique(), torch.arange(fitted.sizes[level]))
            and fitted.sizes[level] <= size
        )
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
    assert (
        fitted.reconstruct(codes).shape == x.shape
        and torch.isfinite(fitted.reconstruct(codes)).all()
    )


@pytest.mark.parametrize("pca_dim", [None, 4])
def test_storage(pca_dim, tmp_path):
    x = gauss()
    fitted = ResidualKMeans.fit(x, (16,) * 3, pca_dim=pca_dim)
    save_artefact(tmp_path, fitted.tensors(), {})
    loaded = ResidualKMeans.from_tensors(load_artefact(tmp_path)[0])
    assert loaded.sizes == fitted.sizes and torch.equal(loaded.assign(x), fitted.assign(x))
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.level_distances(x), fitted.level_distances(x), strict=True)
    )


def test_errors():
    x = gauss()
    fitted = ResidualKMeans.fit(x, (4,))
    x[3, 2] = float("nan")
    for use in (lambda: ResidualKMeans.fit(x, (4,)), lambda: fitted.assign(x)):
        with pytest.raises(DataError, match=r"1 of 600 rows are not, the first is row \[3\]"):
            use()
    for sizes, pca_dim in (((), None), ((4, 0), None), ((4,), 0)):
        with pytest.raises(ConfigError, match="codebook_sizes and pca_dim of 1 or more"):
            ResidualKMeans.fit(gauss(), sizes, pca_dim=pca_dim)
