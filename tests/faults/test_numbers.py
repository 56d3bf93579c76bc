"""Numbers that go wrong are named at once, with the place and what to change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import TINY_OF, toy_model, write_dataset

from recbole_genrec.errors import GenRecError, explained_memory
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.training.trainer import GenRecTrainer

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 9 bytes."
    ),
    np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("float64")),
    MemoryError(),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=20)


def trainer_of(folder, name: str = "TIGER", **changes):
    model, config, loaders = toy_model(folder, name, tokenizer="random", **changes)
    return GenRecTrainer(config, model), *loaders


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_stops_at_once(folder, monkeypatch, value):
    trainer, train, valid, _ = trainer_of(
        folder, train_batch_size=8, train_rows="all", lr_scheduler="constant"
    )
    good, calls = trainer.model.calculate_loss, []

    def loss(interaction):
        calls.append(0)
        return good(interaction) * (value if len(calls) == 3 else 1.0)

    monkeypatch.setattr(trainer.model, "calculate_loss", loss)
    with pytest.raises(
        GenRecError,
        match=rf"loss is {value} in epoch 0, batch 2, at learning rate "
        r"0\.001.*--learning_rate.*--precision",
    ):
        trainer.fit(train, valid)
    assert len(calls) == 3
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


def test_scores_that_are_no_numbers_make_no_metrics(folder):
    trainer, _, valid, _ = trainer_of(folder)
    with torch.no_grad():
        next(iter(trainer.model.parameters())).fill_(float("nan"))
    with pytest.raises(GenRecError, match=r"not numbers.*--learning_rate"):
        trainer.evaluate(valid, load_best_model=False)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_says_which_key_to_lower(folder, monkeypatch, error):
    trainer, train, valid, _ = trainer_of(folder)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(trainer.model, "search", fail)
    with pytest.raises(
        GenRecError,
        match="There is not enough memory.*--beam_width, --search_batch_size, --eval_batch_size",
    ):
        trainer.evaluate(valid, load_best_model=False)
    monkeypatch.setattr(trainer.model, "loss", fail)
    with pytest.raises(
        GenRecError,
        match="There is not enough memory.*--train_batch_size.*--gradient_accumulation_steps",
    ):
        trainer.fit(train, valid)


def test_the_cpu_really_runs_out_of_memory():
    with (
        pytest.raises(
            GenRecError, match=r"There is not enough memory .*can't allocate memory.* Buy more\."
        ),
        explained_memory("Buy more."),
    ):
        torch.empty(2**55, dtype=torch.float64)


def test_other_errors_keep_their_type():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), explained_memory("Never said."):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_an_overflow_of_half_precision_skips_the_step_and_lowers_the_scale(folder):
    trainer, *_ = trainer_of(folder, precision="fp16")
    weights = [
        parameter for group in trainer.optimizer.param_groups for parameter in group["params"]
    ]
    before, scale = [weight.detach().clone() for weight in weights], trainer.scaler.get_scale()
    assert scale > 1
    for value, moved in ((float("inf"), False), (1.0, True)):
        trainer.scaler.scale(sum(weight.sum() for weight in weights)).backward()
        weights[0].grad[0] *= value
        trainer._optimiser_step()
        assert any(not torch.equal(a, b) for a, b in zip(weights, before, strict=True)) is moved
        assert trainer.scaler.get_scale() == scale / 2
        assert all(torch.isfinite(weight).all() for weight in weights)


@pytest.mark.parametrize("name", ["STORE", "TIGER"])
def test_half_precision_trains_on_the_cpu(folder, name):
    settings = {**TINY_OF[name], "data_path": str(folder), "epochs": 2, "precision": "fp16"}
    more = {"tokenizer_epochs": 1} if name == "STORE" else {"tokenizer": "random"}
    result = run_recbole_genrec(name, "toy", config_dict={**settings, **more})
    losses = [sum(epoch["loss"]) for epoch in result["epochs"]]
    assert losses[1] < losses[0]


def test_a_collapsed_level_is_named():
    learned = torch.stack([torch.arange(64) % 64, torch.zeros(64, dtype=torch.long)], dim=1)
    codes = ItemCodes.build(learned, (64, 64), ["[PAD]", *map(str, range(64))], ["none"])
    (warning,) = codes.warnings()
    assert "LEVEL 1 OF THE CODES COLLAPSED" in warning and "codebook_sizes" in warning
