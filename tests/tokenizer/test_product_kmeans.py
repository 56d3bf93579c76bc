"""Optimised product quantisation against plain definitions."""

from __future__ import annotations

import pytest
import torch

from recbole_genrec.errors import ConfigError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer.free_codes import FreeCodes
from recbole_genrec.tokenizer.quantiser.product_kmeans import (
    ProductKMeans,
    balanced_directions,
    nearest_rotation,
    part_widths,
)


def correlated(n=800, d=20, seed=0):
    """Vectors whose dimensions depend on each other and differ in variance."""
    generator = torch.Generator().manual_seed(seed)
    mixture = torch.randn(d, d, generator=generator) * torch.linspace(2, 0.05, d).unsqueeze(1)
    return torch.randn(n, d, generator=generator) @ mixture


def error(fitted, x):
    return float((fitted.reconstruct(fitted.assign(x)) - x).square().mean())


def test_codes_are_the_nearest_centroids_of_the_rotated_parts():
    x = correlated()
    fitted = ProductKMeans.fit(x, (16, 12, 8), rounds=4)
    assert fitted.sizes == (16, 12, 8)
    identity = torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(fitted.rotation @ fitted.rotation.T, identity, atol=1e-6, rtol=0)
    rotated, codes = x.double() @ fitted.rotation, fitted.assign(x)
    first = 0
    for part, (book, width) in enumerate(zip(fitted.codebooks, (7, 7, 6), strict=True)):
        plain = (rotated[:, None, first : first + width] - book).square().sum(-1)
        assert torch.equal(codes[:, part], plain.argmin(1))
        torch.testing.assert_close(fitted.level_distances(x)[part], plain)
        first += width


def test_the_rotation_lowers_the_error_on_correlated_data():
    x = correlated()
    plain = error(ProductKMeans.fit(x, (16,) * 4, rounds=0), x)
    one = error(ProductKMeans.fit(x, (16,) * 4, rounds=1), x)
    learned = error(ProductKMeans.fit(x, (16,) * 4, rounds=15), x)
    assert learned < one < plain
    assert learned < 0.8 * plain


def test_the_rotation_is_the_nearest_one():
    torch.manual_seed(0)
    rows, counts = torch.randn(50, 6), torch.randint(1, 4, (50,))
    true = torch.linalg.qr(torch.randn(6, 6))[0]
    torch.testing.assert_close(nearest_rotation(rows, rows @ true, counts), true, atol=1e-5, rtol=0)
    targets = torch.randn(50, 6)
    best = nearest_rotation(rows, targets, counts)

    def distance(rotation):
        return ((rows @ rotation - targets).square().sum(1) * counts).sum()

    for _ in range(20):
        other = torch.linalg.qr(best + 0.1 * torch.randn(6, 6))[0]
        other = other * torch.sign((other * best).sum(0))
        assert distance(best) <= distance(other) + 1e-4


@pytest.mark.parametrize("unit", [1.0, 0.05, 20.0])
def test_the_parts_have_similar_variance_whatever_the_unit(unit):
    torch.manual_seed(3)
    rows = torch.randn(400, 12) * torch.logspace(0, -2, 12)
    widths = part_widths(12, 3)
    directions = balanced_directions(rows * unit, torch.ones(400), widths)
    assert torch.allclose(
        directions.abs(), balanced_directions(rows, torch.ones(400), widths).abs()
    )
    logs = ((rows @ directions).var(0)).log()
    products = [part.sum() for part in logs.split(widths)]
    assert max(products) - min(products) < 0.1 * abs(min(products))


def test_neither_order_nor_storing_changes_the_codes(tmp_path):
    x = correlated(n=200, d=8)
    fitted = ProductKMeans.fit(x, (8, 8), seed=3, rounds=3)
    order = torch.randperm(200)
    shuffled = ProductKMeans.fit(x[order], (8, 8), seed=3, rounds=3)
    assert torch.equal(shuffled.assign(x), fitted.assign(x))
    save_artefact(tmp_path / "fit", fitted.tensors(), {})
    loaded = ProductKMeans.from_tensors(load_artefact(tmp_path / "fit")[0])
    assert torch.equal(loaded.assign(x), fitted.assign(x))


def test_all_codes_are_used():
    x = correlated(n=20, d=8)
    fitted = ProductKMeans.fit(x, (5, 5), rounds=2)
    assert max(fitted.sizes) <= 5
    for part, size in enumerate(fitted.sizes):
        assert len(fitted.assign(x)[:, part].unique()) == size


def test_more_codes_than_dimensions_are_refused():
    with pytest.raises(ConfigError, match="1 to 8 sizes"):
        ProductKMeans.fit(correlated(n=50, d=8), (4,) * 9)
    assert part_widths(20, 3) == [7, 7, 6]


def test_free_codes_of_many_places_are_counted_where_a_branch_can_be_full():
    codes = torch.tensor([[0] * 20, [0] * 19 + [1]])
    free = FreeCodes(codes, [2] + [256] * 18 + [2])
    assert not free.full((0,)) and free.full((0,) * 19)
    taken, shared = free.take([0] * 20, lambda prefix: range(256))
    assert shared == 18 and taken == (0,) * 18 + (1, 0)
