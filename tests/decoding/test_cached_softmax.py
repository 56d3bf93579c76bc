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
    bias = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (ROWS,), generator=generator)
    made = [values.to(dtype).requires_grad_() for values in (states, vectors, bias)]
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


def reference(states, vectors, bias, target, mask, smoothing, temperature):
    """The definition, in float64."""
    logits = linear(states.double(), vectors.double(), bias.double()) / temperature
    losses = []
    for row, own in enumerate(target.tolist()):
        competing = torch.ones(CLASSES, dtype=torch.bool)
        if mask is not None:
            competing = ~(mask if mask.dim() == 1 else mask[row])
        log_probs = logits[row][competing].log_softmax(0)
        place = int(competing[:own].sum())
        losses.append(-(1 - smoothing) * log_probs[place] - smoothing * log_probs.mean())
    return torch.stack(losses).mean()


OPTIONS = list(itertools.product([None, False, True], [0.0, 0.1], [1.0, 0.3]))


@pytest.mark.parametrize(("per_row", "smoothing", "temperature"), OPTIONS)
def test_gradients_are_those_of_finite_differences(per_row, smoothing, temperature):
    states, vectors, bias, target = inputs(torch.float64)
    mask = None if per_row is None else masks(target, per_row)

    def loss(states, vectors, bias):
        return cached_cross_entropy(
            states,
            vectors,
            target,
            bias=bias,
            mask=mask,
            label_smoothing=smoothing,
            temperature=temperature,
            chunk_rows=16,
        )

    assert torch.autograd.gradcheck(loss, (states, vectors, bias))
    expected = reference(states, vectors, bias, target, mask, smoothing, temperature)
    assert loss(states, vectors, bias).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk_rows", [1, 10, 64])
def test_loss_and_gradients_equal_torch(with_bias, smoothing, chunk_rows):
    results = []
    for ours in (True, False):
        states, vectors, bias, target = inputs()
        used = bias if with_bias else None
        if ours:
            loss = cached_cross_entropy(
                states,
                vectors,
                target,
                bias=used,
                label_smoothing=smoothing,
                chunk_rows=chunk_rows,
            )
        else:
            loss = cross_entropy(linear(states, vectors, used), target, label_smoothing=smoothing)
        (3 * loss).backward()
        gradients = [states.grad, vectors.grad]
        if with_bias:
            gradients.append(bias.grad)
        results.append([loss.detach(), *gradients])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_large_logits_stay_finite():
    states, vectors, _, target = inputs()
    loss = cached_cross_entropy(states * 1000, vectors, target)
    loss.backward()
    expected = cross_entropy((states * 1000) @ vectors.T, target)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-3)
    assert torch.isfinite(states.grad).all()


def test_bf16_inputs_are_summed_in_float32():
    states, vectors, bias, target = inputs(torch.bfloat16)
    loss = cached_cross_entropy(states, vectors, target, bias=bias)
    exact = reference(states, vectors, bias, target, None, 0.0, 1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    loss.backward()
    exact_states, exact_vectors, exact_bias, _ = inputs(torch.bfloat16)
    reference(exact_states, exact_vectors, exact_bias, target, None, 0.0, 1.0).backward()
    for mine, theirs in ((states, exact_states), (vectors, exact_vectors), (bias, exact_bias)):
        assert mine.grad.dtype == torch.bfloat16
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-2, atol=1e-4)


def test_autocast_changes_nothing():
    states, vectors, _, target = inputs()
    expected = cached_cross_entropy(states, vectors, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cached_cross_entropy(states, vectors, target)
    assert loss.item() == expected.item()


def test_only_what_is_trained_gets_a_gradient():
    states, vectors, _, target = inputs()
    cached_cross_entropy(states, vectors.detach(), target).backward()
    assert states.grad is not None and vectors.grad is None
    with torch.no_grad():
        assert not cached_cross_entropy(states, vectors, target).requires_grad


def test_no_rows_cost_nothing():
    states, vectors, _, target = inputs()
    loss = cached_cross_entropy(states[:0], vectors, target[:0])
    loss.backward()
    assert loss.item() == 0
    assert not vectors.grad.any()


def test_a_kernel_for_the_gpu_is_used_where_it_is_installed(monkeypatch):
    """The kernels themselves run on a GPU alone; what they are asked is checked here."""
    states, vectors, bias, target = inputs()
    asked = []

    class Fused:
        def __init__(self, label_smoothing):
            self.label_smoothing = label_smoothing

        def __call__(self, weight, rows, classes, bias):
            asked.append(self.label_smoothing)
            return cross_entropy(linear(rows, weight, bias), classes)

    def cut(rows, weight, classes, bias):
        asked.append("cut")
        return cross_entropy(linear(rows, weight, bias).float(), classes)

    on_gpu = cached_softmax._on_gpu
    expected = cross_entropy(linear(states, vectors, bias), target)
    module = SimpleNamespace(LigerFusedLinearCrossEntropyLoss=Fused)
    monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    assert on_gpu(states, vectors, target, bias, None, 0.1).item() == expected.item()

    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", SimpleNamespace(linear_cross_entropy=cut))
    half = [values.detach().bfloat16() for values in (states, vectors, bias)]
    on_gpu(half[0], half[1], target, half[2], None, 0.0)
    assert asked == [0.1, "cut"]

    for per_row in (True, False):
        mask = masks(target, per_row)
        loss = on_gpu(states, vectors, target, bias, mask, 0.1)
        exact = reference(states, vectors, bias, target, mask, 0.1, 1.0)
        assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert asked == [0.1, "cut"]
