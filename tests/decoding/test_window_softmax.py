"""The cross-entropy among the children of nodes against torch's, row by row."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.decoding.window_softmax import Hidden, Windows, window_cross_entropy
from recbole_genrec.model.timeline import level_weights, tree

WIDTHS = [1, 30, 4, 17]
STARTS = [0, 1, 31, 35]


def a_batch(n_rows: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(3)
    parent = torch.randint(len(WIDTHS), (n_rows,), generator=generator)
    count = torch.tensor(WIDTHS)[parent]
    first = torch.tensor(STARTS)[parent]
    place = (torch.rand(n_rows, generator=generator) * count).long()
    states = torch.randn(n_rows, 6, generator=generator, dtype=dtype, requires_grad=True)
    vectors = torch.randn(sum(WIDTHS), 6, generator=generator, dtype=dtype, requires_grad=True)
    bias = torch.randn(sum(WIDTHS), generator=generator, dtype=dtype, requires_grad=True)
    return states, vectors, bias, Windows(first, count, first + place)


def row_by_row(states, vectors, bias, windows: Windows, smoothing=0.0, hidden=None):
    total = states.new_zeros(())
    for row, (state, first, count, target) in enumerate(zip(states, *windows, strict=True)):
        window = slice(int(first), int(first + count))
        logits = vectors[window] @ state + bias[window]
        place = target - first
        if hidden is not None:
            competes = ~hidden.of_rows[row][hidden.labels[window]]
            place = competes[:place].sum()
            logits = logits[competes]
        total = total + cross_entropy(logits, place, label_smoothing=smoothing)
    return total


def some_hidden(windows: Windows, n_labels: int) -> Hidden:
    """Labels that are not those of the classes, two of three hidden, the targets' never."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.cat([torch.randperm(n_labels, generator=generator)[:width] for width in WIDTHS])
    of_rows = torch.rand(len(windows.first), n_labels, generator=generator) < 0.66
    of_rows.scatter_(1, labels[windows.target].unsqueeze(1), False)
    return Hidden(labels, of_rows)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("few_cells", [0, 60, 10**6])
@pytest.mark.parametrize("n_rows", [1, 50])
def test_loss_and_gradients_are_torchs(n_rows, few_cells, smoothing, hides):
    states, vectors, bias, windows = a_batch(n_rows, torch.float64)
    hidden = some_hidden(windows, 40) if hides else None
    expected = row_by_row(states, vectors, bias, windows, smoothing, hidden)
    loss = window_cross_entropy(states, vectors, bias, windows, few_cells, smoothing, hidden)
    torch.testing.assert_close(loss, expected)
    theirs = torch.autograd.grad(0.5 * expected, (states, vectors, bias))
    ours = torch.autograd.grad(0.5 * loss, (states, vectors, bias))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_no_rows_give_zero():
    states, vectors, bias, windows = a_batch(5, torch.float32)
    none = Windows(*(numbers[:0] for numbers in windows))
    loss = window_cross_entropy(states[:0], vectors, bias, none)
    loss.backward()
    assert float(loss) == 0 and not vectors.grad.any()


def test_rounded_inputs_are_summed_in_float32():
    states, vectors, bias, windows = a_batch(40, torch.float32)
    halves = (states.bfloat16(), vectors.bfloat16(), bias.bfloat16())
    exact = window_cross_entropy(*(half.float() for half in halves), windows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(window_cross_entropy(*halves, windows), exact)


@pytest.mark.parametrize("few_cells", [0, 40, 10_000])
@pytest.mark.parametrize("has_products", [True, False])
def test_a_tree_has_one_loss_whatever_its_windows_are_computed_by(
    monkeypatch, few_cells, has_products
):
    """Against the exact scores of all items, which use no windows."""
    monkeypatch.setattr(level_weights, "FEW_CELLS", few_cells)
    monkeypatch.setattr(level_weights, "ROWS_AT_ONCE", 16)
    if not has_products:
        monkeypatch.setattr(level_weights.LevelWeights, "_has_products", lambda *_: False)
    generator = torch.Generator().manual_seed(6)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(12), torch.arange(3))
    codes = pairs[torch.randperm(len(pairs), generator=generator)[:90]]
    trie = ItemTrie(torch.cat([torch.full((1, 3), -1), codes]), (5, 12, 3))
    model = tree.StatelessTree(trie, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    states = torch.randn(60, 8, generator=generator)
    items = torch.randint(1, 91, (60,), generator=generator)
    edges = model.edges(trie, torch.randn(91, 8, generator=generator))

    loss = torch.stack(model.level_losses(trie, states, items, edges)).sum()
    scores = tree.log_probs_of_streams(trie, [tree.Stream(model, states, edges)])
    scores = scores.gather(1, items.unsqueeze(1))
    torch.testing.assert_close(loss, -scores.mean())
    parameters = [*model.own, *model.bias, model.scale]
    ours = torch.autograd.grad(loss, parameters, retain_graph=True)
    theirs = torch.autograd.grad(-scores.mean(), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
