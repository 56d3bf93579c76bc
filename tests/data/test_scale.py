"""The scale of the columns of vectors, against plain definitions."""

import numpy as np
import pytest
import torch

from recbole_genrec.data.vectors.scale import Scale, standardised
from recbole_genrec.errors import DataError


def rows() -> np.ndarray:
    """Two columns that vary, and between them two that are constant but for rounding."""
    draw = np.random.default_rng(0)
    columns = [
        draw.normal(3, 2, 50),
        np.full(50, 0.1),
        np.full(50, 0.25) + draw.normal(0, 1e-9, 50),
        draw.normal(0, 1e-3, 50),
    ]
    return np.column_stack(columns).astype(np.float32)


def test_columns_get_unit_variance_and_constant_ones_stay_at_zero():
    x = rows()
    scaled = Scale.of(x).apply(x)
    assert scaled.dtype == torch.float32
    assert not scaled[:, 1:3].any()
    for column in (0, 3):
        wide = x[:, column].astype(np.float64)
        expected = (wide - wide.mean()) / wide.std()
        np.testing.assert_allclose(scaled[:, column], expected, atol=1e-5)
    nothing = np.zeros((3, 2), dtype=np.float32)
    assert not Scale.of(nothing).apply(nothing).any()


def test_a_scale_is_undone_and_stored():
    x = rows()
    scale = Scale.of(x)
    again = Scale.from_tensors(scale.tensors())
    np.testing.assert_allclose(again.undo(again.apply(torch.from_numpy(x))), x, atol=1e-6)
    assert again.width == 4


def test_without_standardising_vectors_stay_as_they_are():
    x = rows()
    np.testing.assert_array_equal(Scale.of(x, standardize=False).apply(x), x)


def test_the_first_rows_give_the_scale_and_the_padding_item_stays_zero():
    x = rows()
    scaled = standardised(x, 30)
    assert not scaled[0].any()
    np.testing.assert_array_equal(scaled[1:], Scale.of(x[1:30]).apply(x[1:]))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="row 1"):
        Scale.of(np.array([[1.0, 2.0], [np.nan, 1.0]]))


def test_columns_of_large_numbers_leave_the_others_as_they_are():
    x = rows()
    year = np.linspace(0, 1e9, len(x), dtype=np.float32)[:, None]
    beside = Scale.of(np.concatenate([x, year], axis=1))
    assert torch.equal(beside.factor[:4], Scale.of(x).factor)
    assert torch.equal(beside.factor == 0, torch.tensor([0, 1, 1, 0, 0]).bool())


def test_a_price_leaves_a_rating_as_it_is():
    x = np.random.default_rng(2).random((50, 2)).astype(np.float32)
    factor = Scale.of(x * np.array([1e8, 1], dtype=np.float32)).factor
    torch.testing.assert_close(factor * torch.tensor([1e8, 1]), Scale.of(x).factor.double())


def test_rounding_noise_where_zeros_should_be_stays_at_zero():
    """The directions without variance of vectors that were turned."""
    x = np.random.default_rng(1).normal(3, 2, (50, 4)).astype(np.float32)
    noise = 1e-9 * np.random.default_rng(0).standard_normal((len(x), 1)).astype(np.float32)
    factor = Scale.of(np.concatenate([x, noise], axis=1)).factor
    assert factor[-1] == 0
    assert torch.equal(factor[:-1], Scale.of(x).factor)
