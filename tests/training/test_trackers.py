"""What TensorBoard, Weights & Biases and MLflow get: the last two are stand-ins that keep calls."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from toy import TINY_OF, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.training.trainer import GenRecTrainer

SMALL_RQVAE = {
    **TINY_OF["TimelineRec"],
    "tokenizer": "rqvae",
    "tokenizer_epochs": 3,
    "hidden_sizes": [16],
    "code_dim": 8,
    "epochs": 2,
}


def stand_in(monkeypatch, name, **functions):
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "data")


def test_tensorboard_gets_the_tokenizer_and_the_result_keeps_its_curves(folder):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = {**SMALL_RQVAE, "data_path": str(folder)}
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    (losses,) = result["tokenizer_curves"].values()
    assert all(len(values) == 3 for values in losses.values())
    assert "total" in losses

    (log,) = Path("log_tensorboard").iterdir()
    reader = events.EventAccumulator(str(log)).Reload()
    names = reader.Tags()["scalars"]
    (name,) = [name for name in names if name.startswith("tokenizer/") and "total" in name]
    assert [event.value for event in reader.Scalars(name)] == pytest.approx(losses["total"])
    used = [event.value for event in reader.Scalars("codes/used")]
    assert used == [level["used"] for level in result["report"]["tokenizer"]["levels"]]

    again = run_recbole_genrec("TimelineRec", "toy", config_dict={**values, "epochs": 1})
    assert again["tokenizer_curves"] == result["tokenizer_curves"]  # of the stored fit


def test_mlflow_gets_every_curve(folder, monkeypatch):
    metrics: dict[str, list] = {}
    calls = []
    active: list = []
    stand_in(
        monkeypatch,
        "mlflow",
        active_run=lambda: active[-1] if active else None,
        set_experiment=lambda name: calls.append(name),
        start_run=lambda: active.append(SimpleNamespace()),
        end_run=lambda status: active.pop(),
        log_params=lambda params: calls.append(params["tokenizer"]),
        log_metric=lambda name, value, step=None: metrics.setdefault(name, []).append(
            (step, value)
        ),
    )
    values = {**SMALL_RQVAE, "data_path": str(folder), "log_mlflow": True}
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    assert calls == ["recbole_genrec", "rqvae"] and not active
    losses = [(epoch["epoch"], epoch["loss"][0]) for epoch in result["epochs"]]
    assert metrics["train/loss"] == losses
    valid = [(epoch["epoch"], epoch["valid"]["ndcg@10"]) for epoch in result["epochs"]]
    assert metrics["valid/ndcg_at_10"] == valid
    assert metrics["test/recall_at_5"] == [(None, result["test_result"]["recall@5"])]
    assert len(metrics["codes/perplexity"]) == len(result["report"]["tokenizer"]["levels"])
    assert any(name.startswith("tokenizer/") and len(rows) == 3 for name, rows in metrics.items())
    assert not any("@" in name for name in metrics)


def test_a_run_that_fails_ends_as_failed_in_mlflow(folder, monkeypatch):
    ended = []
    stand_in(
        monkeypatch,
        "mlflow",
        active_run=lambda: None,
        set_experiment=lambda name: None,
        start_run=lambda: None,
        end_run=ended.append,
        log_params=lambda params: None,
        log_metric=lambda *_, **__: None,
    )

    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(GenRecTrainer, "fit", fail)
    values = {**SMALL_RQVAE, "data_path": str(folder), "log_mlflow": True}
    with pytest.raises(RuntimeError, match="no memory"):
        run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    assert ended == ["FAILED"]


def test_wandb_gets_the_tokenizer(folder, monkeypatch):
    logged: list[dict] = []
    run = SimpleNamespace(summary={})
    stand_in(
        monkeypatch,
        "wandb",
        run=run,
        init=lambda **_: None,
        define_metric=lambda *_, **__: None,
        log=lambda values, commit=True: logged.append(values),
    )
    values = {**SMALL_RQVAE, "data_path": str(folder), "log_wandb": True}
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    curve = [row for row in logged if any("total" in name for name in row)]
    assert [row["tokenizer_step"] for row in curve] == [0, 1, 2]
    levels = result["report"]["tokenizer"]["levels"]
    assert run.summary["codes/level 1 used"] == levels[0]["used"]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_an_error_before_anything_is_done(folder, package, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == package else find(name)
    )
    values = {**SMALL_RQVAE, "data_path": str(folder), f"log_{package}": True}
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    assert not Path("saved").exists()
