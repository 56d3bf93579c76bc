"""The trainer: resume after a kill, the stock trainer, schedules, accumulation, the result file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from recbole.trainer import Trainer
from toy import TINY, toy_config, toy_model, write_dataset

from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.collector import TensorCollector
from recbole_genrec.training.trainer import GenRecTrainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def settings(folder, **changes):
    return {**TINY, "data_path": str(folder), "epochs": 4, **changes}


def history_of(result):
    return [(epoch["loss"], epoch["valid"]) for epoch in result["epochs"]]


def test_same_seed_same_numbers_with_fitted_and_stored_tokenizer(folder):
    first = run_recbole_genrec("STORE", "toy", config_dict=settings(folder, epochs=1))
    second = run_recbole_genrec("STORE", "toy", config_dict=settings(folder, epochs=1))
    assert first["test_result"] == second["test_result"] and history_of(first) == history_of(second)


WINDOWS = {"train_rows": "windows", "MAX_ITEM_LIST_LENGTH": 4}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lr_scheduler": "cosine", "align_mode": "alternate", "gradient_accumulation_steps": 2},
        WINDOWS,
    ],
)
def test_an_interrupted_run_continues_exactly(folder, monkeypatch, changes):
    whole = run_recbole_genrec(
        "STORE", "toy", config_dict=settings(folder, checkpoint_dir="whole", **changes)
    )

    class Killed(BaseException):
        pass

    step = GenRecTrainer._optimiser_step
    calls = []

    def killed(self):
        calls.append(0)
        if len(calls) == 5:
            raise Killed
        step(self)

    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", killed)
    with pytest.raises(Killed):
        run_recbole_genrec(
            "STORE", "toy", config_dict=settings(folder, checkpoint_dir="cut", **changes)
        )
    monkeypatch.undo()
    resumed = run_recbole_genrec(
        "STORE", "toy", config_dict=settings(folder, checkpoint_dir="cut", resume=True, **changes)
    )
    assert resumed["test_result"] == whole["test_result"]
    assert history_of(resumed) == history_of(whole)


def test_kill_9_and_resume_by_the_same_command(folder, tmp_path):
    arguments = [f"--{key}={value}" for key, value in settings(folder, epochs=6).items()]
    command = [
        sys.executable,
        "-m",
        "recbole_genrec.cli",
        "run",
        "--model=STORE",
        "--dataset=toy",
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }

    def start(*more):
        return subprocess.Popen(
            [*command, *more],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    process = start("--checkpoint_dir=cut")
    deadline = time.monotonic() + 120
    while not any(
        load_checkpoint(path)["epoch"] >= 2 for path in tmp_path.glob("cut/*.resume.pth")
    ):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("cut/*.json"))
    assert start("--checkpoint_dir=cut", "--resume").wait() == 0
    assert start("--checkpoint_dir=whole").wait() == 0
    (cut,), (whole,) = (list(tmp_path.glob(f"{name}/*.json")) for name in ("cut", "whole"))
    assert (
        json.loads(cut.read_text())["test_result"] == json.loads(whole.read_text())["test_result"]
    )


def test_the_stock_trainer_works_and_is_told_apart(folder, caplog):
    model, config, (train, valid, test) = toy_model(folder, epochs=1)
    trainer = Trainer(config, model)
    trainer.eval_collector = TensorCollector(config)
    trainer.fit(train, valid, saved=False)
    result = trainer.evaluate(test, load_best_model=False)
    assert result["recall@10"] > 0
    assert "Another trainer than GenRecTrainer" in caplog.text


def test_accumulated_batches_equal_one_batch(folder):
    def weights(**changes):
        model, config, loaders = toy_model(
            folder, epochs=1, lambda_align=0.0, group_by_length=False, learner="sgd", **changes
        )
        rows = loaders[0]._dataset.inter_feat
        keep = (
            (rows[model.ITEM_SEQ_LEN] == 5).nonzero().flatten()[:16]
        )  # equal lengths: mean of means = mean
        loaders[0]._dataset.inter_feat = rows[keep]
        trainer = GenRecTrainer(config, model)
        batches = [
            loaders[0].collate_fn(part.numpy())
            for part in torch.arange(len(keep)).split(config["train_batch_size"])
        ]
        trainer._train_epoch(batches, 0)
        return model.vocabulary.embedding.detach()

    whole = weights(train_rows="all", train_batch_size=16)
    halves = weights(train_rows="all", train_batch_size=8, gradient_accumulation_steps=2)
    torch.testing.assert_close(whole, halves, atol=1e-6, rtol=0)


def test_the_last_step_of_an_epoch_is_the_mean_of_its_batches(folder):
    def norms(size, **changes):
        """Norm of the gradient before each step on 24 rows."""
        options = {"lambda_align": 0.0, "group_by_length": False, "learner": "sgd", **changes}
        options |= {"train_rows": "all", "train_batch_size": size, "learning_rate": 0.0}
        model, config, (train, *_) = toy_model(folder, epochs=1, **options)
        rows = train._dataset.inter_feat
        kept = (rows[model.ITEM_SEQ_LEN] == 5).nonzero().flatten()[:24]
        train._dataset.inter_feat = rows[kept]
        trainer = GenRecTrainer(config, model)
        step, seen = trainer._optimiser_step, []

        def noted():
            seen.append(model.vocabulary.embedding.grad.norm().item())
            step()

        trainer._optimiser_step = noted
        trainer._train_epoch([train.collate_fn(part.numpy()) for part in blocks(size)], 0)
        return seen

    def blocks(size):
        return torch.arange(24).split(size)

    assert norms(8, gradient_accumulation_steps=2) == pytest.approx(norms(16), rel=1e-4)


@pytest.mark.parametrize("name", ["linear", "cosine", "inverse_sqrt", "constant_with_warmup"])
def test_schedules_start_low_and_cover_all_steps(folder, name):
    model, config, (train, *_) = toy_model(folder, epochs=3, lr_scheduler=name, warmup_ratio=0.5)
    trainer = GenRecTrainer(config, model)
    scheduler = trainer._build_scheduler(len(train))
    rates = []
    for _ in range(3 * len(train)):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        scheduler.step()
    assert rates[0] == 0 and max(rates) == pytest.approx(config["learning_rate"], rel=0.5)
    if name in ("linear", "cosine"):
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_result_file_says_what_a_number_stands_on(folder):
    result = run_recbole_genrec(
        "STORE", "toy", config_dict=settings(folder, epochs=1, result_file="out/result.json")
    )
    stored = json.loads(Path("out/result.json").read_text())
    assert stored["test_result"] == result["test_result"]
    assert {"seed", "versions", "config", "seconds", "peak_memory_mb", "report", "commit"} <= set(
        stored
    )
    assert (
        0 <= stored["report"]["search"]["certified@10"] <= 1
        and stored["report"]["search"]["unfilled"] == 0
    )
    assert stored["report"]["tokenizer"]["reconstruction_loss"] > 0
    assert stored["config"]["text_encoder"] == "default" and stored["config"]["beam_width"] == 20


def test_settings_from_a_named_file_are_used_and_recorded(folder):
    Path("mine.yaml").write_text("epochs: 1\nbeam_width: 30\n")
    options = {key: value for key, value in settings(folder).items() if key != "epochs"}
    result = run_recbole_genrec(
        "STORE", "toy", config_dict=options, argv=["--config_files=mine.yaml"]
    )
    assert (result["config"]["epochs"], result["config"]["beam_width"]) == (1, 30)
    assert "--config_files=mine.yaml" in result["command"]


def test_toy_config_reads_no_arguments(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--epochs=99"])
    assert toy_config(folder)["epochs"] == TINY["epochs"]
