"""Log-probabilities of some classes, chunk by chunk, against torch's softmax in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from recbole_genrec.decoding import cached_log_probs, log_probs

CLOSE = {"atol": 1e-5, "rtol": 0}
ROWS, WIDTH, SIZES = 11, 6, (23, 19)
CLASSES = sum(SIZES)


def inputs():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, ROWS, WIDTH, generator=generator)
    tables = [torch.randn(size, WIDTH, generator=generator) for size in SIZES]
    bias = torch.randn(SIZES[0], generator=generator)
    return states, tables, bias


def exact(states, tables, bias=None, temperature=1.0):
    """The whole softmax ``[ROWS, CLASSES]`` in float64."""
    logits = linear(states[0].double(), torch.cat(tables).double()) / temperature
    if bias is not None:
        logits[:, : SIZES[0]] += bias.double() / temperature
    return logits.log_softmax(-1)


@pytest.mark.parametrize("first", [0, 11, -20])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("gradients", [False, True])
def test_they_are_columns_of_the_softmax(monkeypatch, first, temperature, gradients):
    monkeypatch.setattr(log_probs, "TILE_ROWS", 9)
    monkeypatch.setattr(log_probs, "TILE_CLASSES", 14)  # a tile has as many logits as 3 rows
    states, tables, bias = inputs()
    tables[0].requires_grad_()
    rows_at_once = []

    def with_bias(rows):
        rows_at_once.append(len(rows))
        return linear(rows, tables[0], bias)

    expected = exact(states, tables, bias, temperature)[:, range(first, first + 20)].detach()
    with torch.set_grad_enabled(gradients):
        layers = [with_bias, tables[1]]
        values = cached_log_probs(states, layers, first, 20, CLASSES, temperature)
    torch.testing.assert_close(values[0].detach().double(), expected, **CLOSE)
    assert max(rows_at_once) == (ROWS if gradients else 3)
    if gradients:
        values.sum().backward()
        assert tables[0].grad.abs().sum() > 0


@pytest.mark.parametrize("size", [1, 16, 42])
@torch.no_grad()
def test_tables_and_functions_give_the_same(size):
    states, _, _ = inputs()
    table = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = linear(states[0].double(), table.double()).log_softmax(-1)
    for layer in (table, lambda rows: linear(rows, table)):
        values = cached_log_probs(states, [layer], 0, size, size)
        assert values.dtype == torch.float32
        torch.testing.assert_close(values[0].double(), expected, **CLOSE)


@pytest.mark.parametrize("tile", [1, 7, 19, 42, 100])
@pytest.mark.parametrize(("first", "count"), [(0, 42), (5, 1), (20, 7)])
@torch.no_grad()
def test_tiles_of_any_size_give_the_same(monkeypatch, tile, first, count):
    monkeypatch.setattr(log_probs, "TILE_ROWS", 4)
    monkeypatch.setattr(log_probs, "TILE_CLASSES", tile)
    states, tables, _ = inputs()
    values = cached_log_probs(states, tables, first, count, CLASSES)
    expected = exact(states, tables)[:, first : first + count]
    torch.testing.assert_close(values[0].double(), expected, **CLOSE)


@torch.no_grad()
def test_sums_of_powers_out_of_range_change_nothing():
    """Rows with large, small and usual logits side by side, as precise as float32 logits are."""
    states, tables, bias = inputs()
    shift = torch.tensor([0.0, 400.0, -400.0, 0.5, 300.0, -60.0, 60.0, 90.0, -90.0, 1.0, 2.0])
    states[..., 0] = shift
    for table in tables:
        table[:, 0] = 1.0  # moves all logits of a row alike

    def with_bias(rows):
        return linear(rows, tables[0], bias)

    values = cached_log_probs(states, [with_bias, tables[1]], 0, CLASSES, CLASSES, 0.7)
    errors = (values[0].double() - exact(states, tables, bias, 0.7)).abs().amax(1)
    assert (errors < 1e-5 + 2.0**-22 * shift.abs() / 0.7).all()


@torch.no_grad()
def test_extreme_logits_stay_finite():
    states, tables, _ = inputs()
    values = cached_log_probs(1e4 * states, tables, 0, CLASSES, CLASSES)
    assert values.isfinite().all()
    assert values.exp().sum(-1).allclose(torch.ones(1, ROWS))


@torch.no_grad()
def test_half_tables_keep_float32_scores():
    states, tables, _ = inputs()
    half = [tables[0].bfloat16(), tables[1]]
    values = cached_log_probs(states, half, 0, CLASSES, CLASSES)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values[0].double(), exact(states, tables), atol=0.1, rtol=0)


@pytest.mark.parametrize("gradients", [False, True])
def test_no_rows(gradients):
    _, tables, _ = inputs()
    with torch.set_grad_enabled(gradients):
        values = cached_log_probs(torch.zeros(0, 2, WIDTH), tables, 2, 3, CLASSES)
    assert values.shape == (0, 2, 3)
