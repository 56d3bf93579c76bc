"""The softmax in cache: loss and gradients of torch's cross-entropy, whatever the options."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from recbole_genrec.decoding import cached_softmax
from recbole_genrec.decoding.cached_softmax import cached_cross_entropy

ROWS, CLASSES, WIDTH = 37, 53, 8


def inputs(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    vectors = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (ROWS,), generator=generator)
    made = [values.to(dtype).requires_grad_() for values in (states, vectors)]
    return (*made, target)


def masks(target, per_row):
    generator = torch.Generator().manual_seed(7)
    if not per_row:
        mask = torch.rand(CLASSES, generator=generator) < 0.3
        mask[target] = False
        return mask
    mask = torch.rand(ROWS, CLASSES, generator=generator) < 0.3
    mask[torch.arange(ROWS), target] = False
    return mask


def reference(states, vectors, target, mask=None, smoothing=0.0):
    """The definition, in float64."""
    logits = linear(states.double(), vectors.double())
    losses = []
    for row, own in enumerate(target.tolist()):
        competing = torch.ones(CLASSES, dtype=torch.bool)
        if mask is not None:
            competing = ~(mask if mask.dim() == 1 else mask[row])
        log_probs = logits[row][competing].log_softmax(0)
        place = int(competing[:own].sum())
        losses.append(-(1 - smoothing) * log_probs[place] - smoothing * log_probs.mean())
    return torch.stack(losses).mean()


OPTIONS = list(itertools.product([None, False, True], [0.0, 0.1]))


@pytest.mark.parametrize(("per_row", "smoothing"), OPTIONS)
def test_gradients_are_those_of_finite_differences(per_row, smoothing):
    states, vectors, target = inputs(torch.float64)
    mask = None if per_row is None else masks(target, per_row)

    def loss(states, vectors):
        return cached_cross_entropy(
            states, vectors, target, mask=mask, label_smoothing=smoothing, chunk_rows=16
        )

    assert torch.autograd.gradcheck(loss, (states, vectors))
    expected = reference(states, vectors, target, mask, smoothing)
    assert loss(states, vectors).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk_rows", [1, 10, 64])
def test_loss_and_gradients_equal_torch(smoothing, chunk_rows):
    results = []
    for ours in (True, False):
        states, vectors, target = inputs()
        if ours:
            loss = cached_cross_entropy(
                states, vectors, target, label_smoothing=smoothing, chunk_rows=chunk_rows
            )
        else:
            loss = cross_entropy(states @ vectors.T, target, label_smoothing=smoothing)
        (3 * loss).backward()
        results.append([loss.detach(), states.grad, vectors.grad])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_large_logits_stay_finite():
    states, vectors, target = inputs()
    loss = cached_cross_entropy(states * 1000, vectors, target)
    loss.backward()
    expected = cross_entropy((states * 1000) @ vectors.T, target)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-3)
    assert torch.isfinite(states.grad).all()


def test_bf16_inputs_are_summed_in_float32():
    states, vectors, target = inputs(torch.bfloat16)
    loss = cached_cross_entropy(states, vectors, target)
    exact = reference(states, vectors, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    loss.backward()
    exact_states, exact_vectors, _ = inputs(torch.bfloat16)
    reference(exact_states, exact_vectors, target).backward()
    for mine, theirs in ((states, exact_states), (vectors, exact_vectors)):
        assert mine.grad.dtype == torch.bfloat16
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-2, atol=1e-4)


def test_autocast_changes_nothing():
    states, vectors, target = inputs()
    expected = cached_cross_entropy(states, vectors, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cached_cross_entropy(states, vectors, target)
    assert loss.item() == expected.item()


def test_only_what_is_trained_gets_a_gradient():
    states, vectors, target = inputs()
    cached_cross_entropy(states, vectors.detach(), target).backward()
    assert states.grad is not None and vectors.grad is None
    with torch.no_grad():
        assert not cached_cross_entropy(states, vectors, target).requires_grad


def test_no_rows_cost_nothing():
    states, vectors, target = inputs()
    loss = cached_cross_entropy(states[:0], vectors, target[:0])
    loss.backward()
    assert loss.item() == 0
    assert not vectors.grad.any()


class Fused:
    """Liger's class: logits in the type of what it is given, as its kernel has them."""

    asked: list[float] = []

    def __init__(self, label_smoothing):
        self.label_smoothing = label_smoothing

    def __call__(self, weight, rows, classes):
        self.asked.append(self.label_smoothing)
        logits = linear(rows, weight).float()
        return cross_entropy(logits, classes, label_smoothing=self.label_smoothing)


@pytest.fixture
def kernels(monkeypatch):
    """``install(liger, cut)``: which optional packages are there; what they were asked."""
    asked = []
    monkeypatch.setattr(Fused, "asked", asked)

    def linear_cross_entropy(rows, weight, classes):
        assert rows.dtype == weight.dtype == torch.bfloat16
        asked.append("cut")
        return cross_entropy(linear(rows.float(), weight.float()), classes)

    def install(liger=False, cut=False):
        fused = SimpleNamespace(LigerFusedLinearCrossEntropyLoss=Fused)
        of_cut = SimpleNamespace(linear_cross_entropy=linear_cross_entropy)
        monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fused if liger else None)
        monkeypatch.setitem(sys.modules, "cut_cross_entropy", of_cut if cut else None)
        return asked

    return install


def test_a_kernel_for_the_gpu_is_used_where_it_is_installed(kernels):
    """The kernels themselves run on a GPU alone; what they are asked is checked here."""
    states, vectors, target = inputs()
    on_gpu = cached_softmax._on_gpu
    asked = kernels(liger=True)
    loss = on_gpu(states, vectors, target, None, 0.1)
    exact = reference(states, vectors, target, None, 0.1)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)

    kernels(cut=True)
    on_gpu(states.bfloat16(), vectors.bfloat16(), target, None, 0.0)
    assert asked == [0.1, "cut"]

    for per_row in (True, False):
        mask = masks(target, per_row)
        loss = on_gpu(states, vectors, target, mask, 0.1)
        exact = reference(states, vectors, target, mask, 0.1)
        assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert asked == [0.1, "cut"]


@pytest.mark.parametrize("installed", [{}, {"liger": True}, {"cut": True}], ids=str)
@pytest.mark.parametrize("half_vectors", [True, False])
def test_a_kernel_that_is_installed_does_not_change_the_loss(kernels, installed, half_vectors):
    kernels(**installed)
    states, vectors, target = inputs()
    states = states.bfloat16()
    if half_vectors:
        vectors = vectors.bfloat16()
    loss = cached_softmax._on_gpu(states, vectors, target, None, 0.0)
    assert loss.dtype == torch.float32
    exact = cached_cross_entropy(states, vectors, target)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
