"""Interrupted trainings: what a resume file holds, and which one a run goes on from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from toy import SMALL, TINY_OF, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.runtime import interrupts
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.resume import ResumePoints
from recbole_genrec.training.trainer import GenRecTrainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


class Killed(BaseException):
    pass


def run(folder, model="SASRec", **changes):
    options = {**TINY_OF.get(model, SMALL), "data_path": str(folder), "checkpoint_dir": "saved"}
    if model == "SASRec":
        options |= {"hidden_size": 16, "inner_size": 16, "n_layers": 1}
    return run_recbole_genrec(model, "toy", config_dict={**options, **changes})


def killed_run(folder, monkeypatch, step, seconds=0.0, every=0.0, **changes):
    """A run that saves after every step, or seldom, and is killed in one.

    Args:
        folder: of the dataset.
        monkeypatch: of the test.
        step: number of the step, from 1, that the run does not do.
        seconds: CPU time of each step.
        every: seconds between two saves.
        **changes: settings.
    """
    whole, calls = GenRecTrainer._optimiser_step, []

    def counted(self):
        calls.append(0)
        if len(calls) == step:
            raise Killed
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(GenRecTrainer, "_optimiser_step", counted)
        patch.setattr(interrupts, "SAVE_EVERY", every)
        with pytest.raises(Killed):
            run(folder, **changes)


def killed(*_, **__):
    raise Killed


def resume_files(folder="saved"):
    return sorted(Path(folder).glob("*.resume.pth"))


# --- what is in the file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "step", "name"),
    [("Pop", 5, "item_cnt"), ("MultiVAE", 3, "update"), ("DiffRec", 3, "Lt_history")],
)
def test_what_models_of_recbole_learn_outside_their_weights(folder, monkeypatch, model, step, name):
    whole = run(folder, model, checkpoint_dir="whole")
    killed_run(folder, monkeypatch, step, model=model)
    outside = load_checkpoint(resume_files()[0])["outside"]
    assert name in outside and "training" not in outside
    assert not any("history_item" in attribute for attribute in outside)  # made of the data
    resumed = run(folder, model, resume=True)
    assert resumed["epochs"] == whole["epochs"]
    assert resumed["test_result"] == whole["test_result"]


def test_our_own_models_make_what_they_need_again(folder, monkeypatch):
    killed_run(folder, monkeypatch, 2, model="TimelineRec")
    assert load_checkpoint(resume_files()[0])["outside"] == {}


def test_the_time_of_an_epoch_that_broke_off_counts(folder, monkeypatch):
    killed_run(folder, monkeypatch, 4, seconds=0.2)
    assert load_checkpoint(resume_files()[0])["batch"] == 3
    assert load_checkpoint(resume_files()[0])["cpu_seconds"]["train"] >= 0.6
    result = run(folder, resume=True)
    assert result["cpu_seconds"]["train"] >= 0.6
    parts = result["cpu_seconds"]["train"] + result["cpu_seconds"]["valid"]
    assert result["cpu_seconds"]["fit"] >= parts
    assert result["seconds"]["cpu"] >= parts


def test_several_passes_an_epoch(folder, monkeypatch, caplog):
    with pytest.raises(ConfigError, match=r"RecVAE trains in several passes.*=constant"):
        run(folder, "RecVAE", lr_scheduler="linear")
    killed_run(folder, monkeypatch, 2, model="RecVAE")
    assert not resume_files()
    with caplog.at_level("INFO"):
        result = run(folder, "RecVAE", resume=True)
    assert caplog.text.count("so there is no resume file") == 1
    assert [epoch["epoch"] for epoch in result["epochs"]] == [0, 1]
    assert all(len(epoch["loss"]) == 4 for epoch in result["epochs"])

    with monkeypatch.context() as patch:
        patch.setattr(GenRecTrainer, "evaluate", killed)  # a checkpoint is there, and no result
        with pytest.raises(Killed):
            run(folder, "RecVAE", seed=7)
    assert run(folder, "RecVAE", seed=7, resume=True)["test_result"]


# --- more epochs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["first step", "checkpoint"])
def test_a_run_that_took_another_over_is_found_again(folder, monkeypatch, place):
    whole = run(folder, epochs=4, checkpoint_dir="whole")
    killed_run(folder, monkeypatch, 16, epochs=2)
    (earlier,) = resume_files()
    assert load_checkpoint(earlier)["epoch"] == 1

    if place == "first step":
        killed_run(folder, monkeypatch, 1, every=300.0, epochs=4, resume=True)
        assert earlier.is_file()
    else:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(ResumePoints, "_finish_take_over", killed)
            run(folder, epochs=4, resume=True)
        assert len(resume_files()) == 2
    resumed = run(folder, epochs=4, resume=True)
    assert resumed["epochs"] == whole["epochs"]
    assert resumed["test_result"] == whole["test_result"]
    assert resume_files() == [earlier]  # which is another run's


def test_a_run_under_a_name_that_is_not_counted_on_goes_on(folder, monkeypatch, caplog):
    killed_run(folder, monkeypatch, 5)
    (file,) = resume_files()
    file.rename(file.with_name("SASRec-toy-00000000.resume.pth"))
    with caplog.at_level("INFO"):
        run(folder, resume=True)
    assert "SASRec-toy-00000000.resume.pth" in caplog.text


def test_the_run_that_came_farthest_is_taken_over(folder, monkeypatch, caplog):
    for epochs, step in ((2, 5), (3, 16), (4, 3)):
        killed_run(folder, monkeypatch, step, epochs=epochs)
    run(folder, epochs=1)
    farthest = max(resume_files(), key=lambda file: load_checkpoint(file)["epoch"])
    with caplog.at_level("INFO"):
        run(folder, epochs=5, resume=True)
    assert f"Resuming at epoch 1, batch 2 from {farthest}" in caplog.text


def test_only_without_an_interrupted_run_a_finished_one_is_named(folder):
    run(folder, epochs=1)
    with pytest.raises(ConfigError, match="is a finished run that differs in epochs: it had 1,"):
        run(folder, epochs=2, resume=True)
