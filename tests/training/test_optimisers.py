"""Optimisers, schedules and label smoothing, against their formulas in numpy and torch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from toy import TINY_OF, toy_model, write_dataset

from recbole_genrec.decoding import smoothed_cross_entropy
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.training.optimiser import (
    check_learner,
    in_one_pass,
    make_optimiser,
    make_schedule,
    rate_times,
    sentence_about_half_precision,
)
from recbole_genrec.training.trainer import GenRecTrainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def settings(**values):
    defaults = {"learner": "adafactor", "fsdp": False, "device": torch.device("cpu")}
    return SharedSettings.from_values({**defaults, **values})


def test_squares_in_half_precision_are_a_warning():
    network = nn.Linear(2, 2)
    assert not sentence_about_half_precision("adamw", network)
    network.bfloat16()
    said = sentence_about_half_precision("adamw", network)
    assert "adamw keeps its mean of squared gradients" in said and "--learner=adafactor" in said
    assert not sentence_about_half_precision("adafactor", network)
    assert not sentence_about_half_precision("adamw", network.requires_grad_(False))


def adafactor(weight, gradients, rate, scaled):
    """Algorithm 4 of arXiv 1804.04235 without momentum, for one matrix."""
    rows = np.zeros(weight.shape[0])
    columns = np.zeros(weight.shape[1])
    for step, gradient in enumerate(gradients, start=1):
        decay = 1 - step**-0.8
        squares = gradient**2 + 1e-30
        rows = decay * rows + (1 - decay) * squares.mean(1)
        columns = decay * columns + (1 - decay) * squares.mean(0)
        update = gradient / np.sqrt(np.outer(rows, columns) / rows.mean())
        update = update / max(1.0, np.sqrt((update**2).mean()))
        size = max(1e-3, np.sqrt((weight**2).mean())) if scaled else 1.0
        weight = weight - rate * size * update
    return weight


@pytest.mark.parametrize("scaled", [True, False])
def test_adafactor_is_that_of_its_paper(scaled):
    draw = np.random.default_rng(0)
    start = draw.normal(size=(5, 7))
    gradients = draw.normal(size=(4, 5, 7)) * 3
    weight = nn.Parameter(torch.tensor(start))
    chosen = settings(adafactor_scale=scaled)
    optimiser = make_optimiser(chosen, "adafactor", [weight], 0.01, 0.0)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimiser.step()
    expected = adafactor(start, gradients, 0.01, scaled)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5)


def test_the_rate_stays_and_then_falls_with_the_inverse_square_root():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = make_schedule(optimiser, "constant_inverse_sqrt", 200, 0.05)
    rates = []
    for _ in range(200):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    published = [1 / np.sqrt(max(step, 10)) for step in range(200)]  # arXiv 1910.10683, 3.1.2
    np.testing.assert_allclose(rates, 0.01 * np.array(published) * np.sqrt(10))


def test_smoothing_is_torchs_and_leaves_closed_classes_out():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, 0.1), expected)

    closed = torch.cat([logits, torch.full((6, 3), -torch.inf)], dim=1).requires_grad_()
    loss = smoothed_cross_entropy(closed, labels, 0.1)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(closed.grad).all()


@pytest.mark.parametrize("model", ["TIGER", "STORE", "MetaID", "LCRec"])
def test_losses_are_smoothed_in_training_alone(folder, model, tmp_path):
    cache = {"cache_dir": str(tmp_path / "cache")}
    plain, _, loaders = toy_model(folder, model, **cache)
    smooth, _, _ = toy_model(folder, model, label_smoothing=0.2, **cache)
    smooth.load_state_dict(plain.state_dict())
    batch = next(iter(loaders[0]))

    def loss(network, training):
        torch.manual_seed(0)
        if hasattr(network, "mixture"):
            network.mixture.start_epoch(0)
        value = network.train(training).calculate_loss(batch)
        value = sum(value) if isinstance(value, tuple) else value
        return float(value.detach())

    assert loss(smooth, False) == loss(plain, False)
    assert abs(loss(smooth, True) - loss(plain, True)) > 1e-3


def test_a_stopped_run_goes_on_exactly(folder, monkeypatch):
    values = {**TINY_OF["TIGER"], "data_path": str(folder), "tokenizer": "random", "epochs": 3}
    values |= {"learner": "adafactor", "lr_scheduler": "constant_inverse_sqrt"}
    values |= {"warmup_ratio": 0.2, "learning_rate": 0.05, "label_smoothing": 0.1, "eval_step": 1}

    def run(where, **changes):
        config = {**values, "checkpoint_dir": where, **changes}
        return run_recbole_genrec("TIGER", "toy", config_dict=config)

    whole = run("whole")
    step, calls = GenRecTrainer._optimiser_step, []

    class Killed(BaseException):
        pass

    def killed(self):
        calls.append(0)
        if len(calls) == 20:
            raise Killed
        step(self)

    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", killed)
    with pytest.raises(Killed):
        run("cut")
    monkeypatch.undo()
    resumed = run("cut", resume=True)
    assert [epoch["loss"] for epoch in resumed["epochs"]] == [e["loss"] for e in whole["epochs"]]
    assert resumed["test_result"] == whole["test_result"]


def test_optimisers_that_cannot_run_here():
    with pytest.raises(ConfigError, match="adafactor keeps a state that is not cut up"):
        check_learner(settings(fsdp=True))
    with pytest.raises(ConfigError, match="bitsandbytes|NVIDIA GPU"):
        check_learner(settings(learner="paged_adamw8bit"))
    check_learner(settings())
    check_learner(settings(learner="adamw", fsdp=True))


def test_the_rate_comes_back_after_an_error():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    with pytest.raises(ZeroDivisionError), rate_times(optimiser, 0.1):
        assert optimiser.param_groups[0]["lr"] == pytest.approx(0.05)
        raise ZeroDivisionError
    assert optimiser.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_in_one_pass_is_adam_and_goes_on_from_a_state_of_before(name):
    torch.manual_seed(0)
    layers = [nn.Linear(7, 5) for _ in range(3)]
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    plain_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    plain = plain_class(layers[0].parameters(), lr=0.01, weight_decay=0.01)
    fused, resumed = (
        in_one_pass(plain_class(layer.parameters(), lr=0.01, weight_decay=0.01))
        for layer in layers[1:]
    )
    for step in range(6):
        if step == 3:
            resumed.load_state_dict(copy.deepcopy(plain.state_dict()))
            layers[2].load_state_dict(layers[0].state_dict())
        gradients = [torch.randn_like(weight) for weight in layers[0].parameters()]
        for layer, optimiser in zip(layers, (plain, fused, resumed), strict=True):
            for weight, gradient in zip(layer.parameters(), gradients, strict=True):
                weight.grad = gradient.clone()
            optimiser.step()
    for layer in layers[1:]:
        for weight, expected in zip(layer.parameters(), layers[0].parameters(), strict=True):
            torch.testing.assert_close(weight, expected)
