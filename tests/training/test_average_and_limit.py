"""The average of the weights, and the limit of CPU time."""

from __future__ import annotations

import pytest
import torch
from toy import SMALL, TINY_OF, toy_model, write_dataset

from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.time_limit import TimeLimit
from recbole_genrec.training.trainer import GenRecTrainer
from recbole_genrec.training.weight_average import WeightAverage, anew_after_refresh

MODELS = ["TimelineRec", "SASRec"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def settings(folder, model, tmp_path, **changes):
    values = {**TINY_OF.get(model, SMALL), "data_path": str(folder), "epochs": 4}
    values |= {"cache_dir": str(tmp_path / "cache"), "checkpoint_dir": str(tmp_path / "saved")}
    return {**values, **changes}


def test_the_average_is_the_recurrence():
    layer = torch.nn.Linear(3, 2)
    average = WeightAverage(layer, 0.5)
    expected = layer.weight.detach().clone()
    for step in range(6):
        with torch.no_grad():
            layer.weight.add_(torch.randn_like(layer.weight))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
        average.after_step()
    trained = layer.weight.detach().clone()
    average.show()
    torch.testing.assert_close(layer.weight.detach(), expected)
    average.hide()
    assert torch.equal(layer.weight, trained)


def test_the_average_of_half_precision_weights_arrives():
    layer = torch.nn.Linear(1, 1).bfloat16()
    average = WeightAverage(layer, 0.99)
    with torch.no_grad():
        layer.weight.add_(1)
    for _ in range(2000):
        average.after_step()
    assert average.averages["weight"].dtype == torch.float32
    torch.testing.assert_close(average.averages["weight"], layer.weight.detach().float())
    average.show()
    assert layer.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("changes", [0, 1])
def test_it_starts_anew_with_new_codes(changes):
    layer = torch.nn.Linear(3, 2)
    layer.register_buffer("codes_version", torch.tensor(4))
    average = WeightAverage(layer, 0.9)
    with torch.no_grad():
        layer.weight.add_(1)
    average.after_step()
    mixed = average.averages["weight"].clone()
    assert not torch.equal(mixed, layer.weight)
    with anew_after_refresh(average, layer):
        layer.codes_version += changes
    with anew_after_refresh(None, layer):
        pass
    assert average.steps == (0 if changes else 1)
    assert torch.equal(average.averages["weight"], layer.weight if changes else mixed)


def test_a_refresh_in_a_run_starts_the_average_anew(folder, tmp_path, monkeypatch):
    counts = []
    start_anew = WeightAverage.start_anew
    monkeypatch.setattr(
        WeightAverage, "start_anew", lambda self: (counts.append(1), start_anew(self))[1]
    )
    improving = {"self_improve": True, "si_start_epoch": 1, "si_interval": 1, "si_rounds": 2}
    values = settings(folder, "TIGER", tmp_path, ema_decay=0.9, epochs=4, **improving)
    result = run_recbole_genrec("TIGER", "toy", config_dict=values)
    refreshes = result["report"]["self_improve"]["refreshes"]
    assert len(counts) == 1 + len(refreshes) == 3


@pytest.mark.parametrize("model", MODELS)
def test_the_checkpoint_holds_the_average_and_training_goes_on_without_it(folder, model, tmp_path):
    values = settings(folder, model, tmp_path, ema_decay=0, train_neg_sample_args=None)
    plain = run_recbole_genrec(model, "toy", config_dict=values)
    averaged = run_recbole_genrec(model, "toy", config_dict={**values, "ema_decay": 0.9})
    losses = [[epoch["loss"] for epoch in run["epochs"]] for run in (plain, averaged)]
    assert losses[0] == losses[1]
    assert plain["checkpoint"] != averaged["checkpoint"]
    first, second = (load_checkpoint(run["checkpoint"])["state_dict"] for run in (plain, averaged))
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", MODELS)
def test_an_interrupted_average_continues_exactly(folder, model, tmp_path, monkeypatch):
    values = settings(folder, model, tmp_path, ema_decay=0.9, train_neg_sample_args=None)
    whole = run_recbole_genrec(model, "toy", config_dict=values)
    values["checkpoint_dir"] = str(tmp_path / "again")

    class Killed(BaseException):
        pass

    original = GenRecTrainer._train_batches

    def killed(self, train_data, epoch, *rest):
        if epoch == 2:
            raise Killed
        return original(self, train_data, epoch, *rest)

    monkeypatch.setattr(GenRecTrainer, "_train_batches", killed)
    with pytest.raises(Killed):
        run_recbole_genrec(model, "toy", config_dict=values)
    monkeypatch.setattr(GenRecTrainer, "_train_batches", original)
    again = run_recbole_genrec(model, "toy", config_dict={**values, "resume": True})
    assert again["test_result"] == whole["test_result"]
    assert [e["loss"] for e in again["epochs"]] == [e["loss"] for e in whole["epochs"]]
    assert [e["valid"] for e in again["epochs"]] == [e["valid"] for e in whole["epochs"]]


@pytest.mark.parametrize("model", MODELS)
def test_training_stops_inside_an_epoch_and_validates_it(folder, model, tmp_path, monkeypatch):
    seen = []

    def is_over(self):
        seen.append(0)
        return self.seconds is not None and len(seen) > 2

    monkeypatch.setattr(TimeLimit, "is_over", is_over)
    values = settings(folder, model, tmp_path, max_cpu_minutes=1, eval_step=3, epochs=9)
    result = run_recbole_genrec(
        model, "toy", config_dict={**values, "train_neg_sample_args": None, "train_batch_size": 8}
    )
    assert len(result["epochs"]) == 1 and result["epochs"][0]["valid"]
    assert result["test_result"]


def test_a_limit_in_the_first_of_several_passes_ends_no_epoch(folder, tmp_path, monkeypatch):
    begun = []
    train_batches = GenRecTrainer._train_batches

    def noted(self, train_data, epoch, *rest):
        begun.append(epoch)
        return train_batches(self, train_data, epoch, *rest)

    monkeypatch.setattr(GenRecTrainer, "_train_batches", noted)
    monkeypatch.setattr(TimeLimit, "is_over", lambda limit: 1 in begun)
    values = settings(folder, "RecVAE", tmp_path, max_cpu_minutes=1, eval_step=3, epochs=9)
    result = run_recbole_genrec("RecVAE", "toy", config_dict=values)
    assert [len(epoch["loss"]) for epoch in result["epochs"]] == [4, 4]
    assert result["epochs"][1]["valid"] and result["test_result"]


def test_a_limit_that_is_not_reached_changes_nothing(folder, tmp_path):
    values = settings(folder, "TimelineRec", tmp_path, epochs=2)
    plain = run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    limited = run_recbole_genrec("TimelineRec", "toy", config_dict={**values, "max_cpu_minutes": 9})
    assert plain["test_result"] == limited["test_result"]


def test_the_limit_counts_what_an_interrupted_run_has_used():
    limit = TimeLimit(1)
    limit.start(used=0)
    assert not limit.is_over()
    limit.start(used=60)
    assert limit.is_over()
    assert not TimeLimit(None).is_over()


def test_without_the_keys_a_trainer_has_neither(folder):
    model, config, _ = toy_model(folder, "STORE")
    trainer = GenRecTrainer(config, model)
    assert trainer.average is None and trainer.limit.seconds is None
