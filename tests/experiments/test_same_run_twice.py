"""Two processes with the same settings: the second is refused, and the first is left alone."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import filelock
import pytest
from interruptions import interrupted_in
from processes import together
from toy import write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, HeldError, ProcessError
from recbole_genrec.experiments import benchmark, tuning
from recbole_genrec.experiments.benchmark_plan import Benchmark
from recbole_genrec.experiments.ensemble import make_ensemble
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.single import SingleRun
from recbole_genrec.experiments.trained import evaluate
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.interrupts import Interrupted
from recbole_genrec.storage.atomic import held_alone
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint
from recbole_genrec.training.held_runs import held_run

SASREC = {
    "hidden_size": 16,
    "inner_size": 16,
    "n_layers": 1,
    "epochs": 2,
    "topk": [5, 10],
    "show_progress": False,
    "gpu_id": "",
    "checkpoint_dir": "saved",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def run(folder, **changes):
    options = {"data_path": str(folder), **SASREC, **changes}
    return run_recbole_genrec("SASRec", "toy", config_dict=options)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("again", [{}, {"resume": True}, {"nproc": 1, "result_file": "x.json"}])
def test_the_second_is_refused_and_the_first_has_its_own_result(folder, monkeypatch, again):
    expected = run(folder, checkpoint_dir="alone")
    after_fit = SingleRun.after_fit
    refused = []

    def and_the_same_once_more(first) -> None:
        before = content(Path("saved"))
        with pytest.raises(HeldError, match="Another process runs these settings") as error:
            run(folder, **again)
        refused.append(str(error.value))
        assert content(Path("saved")) == before
        after_fit(first)

    monkeypatch.setattr(SingleRun, "after_fit", and_the_same_once_more)
    result = run(folder)
    assert len(refused) == 1
    assert f"{result['checkpoint']}. Wait" in refused[0] and "--checkpoint_dir" in refused[0]
    assert f"process {os.getpid()} on " in refused[0]
    assert result["test_result"] == expected["test_result"]
    assert not list(Path("saved").glob("*.lock")) and not list(Path("saved").glob("*.old"))

    monkeypatch.setattr(SingleRun, "after_fit", after_fit)
    assert run(folder, resume=True) == result


def test_an_error_and_an_interrupt_free_the_files(folder, monkeypatch):
    def stop(*_) -> None:
        raise Interrupted(2)

    with monkeypatch.context() as patch:
        patch.setattr(SingleRun, "after_fit", stop)
        with pytest.raises(Interrupted):
            run(folder)
    assert run(folder, resume=True)["epochs"][-1]["epoch"] == 1


def test_other_settings_and_reading_are_free(folder):
    first = run(folder)
    with held_alone(Path(first["checkpoint"]).with_suffix(""), "held"):
        assert run(folder, seed=1)["checkpoint"] != first["checkpoint"]
        assert evaluate(first["checkpoint"])["test_result"] == first["test_result"]


def test_two_runs_do_not_write_one_result_file(folder):
    with (
        held_alone("result.json", "held"),
        pytest.raises(HeldError, match=r"going to write result\.json too.*--result_file"),
    ):
        run(folder, result_file="result.json")
    assert not list(Path("saved").glob("*.pth"))


def test_a_run_that_another_process_goes_on_with_is_not_taken_over(folder, monkeypatch):
    with interrupted_in(1, monkeypatch):
        run(folder)
    (file,) = Path("saved").glob("*.resume.pth")
    with (
        held_alone(file.with_name(file.name.removesuffix(".resume.pth")), "held"),
        pytest.raises(HeldError, match="another process runs it at present"),
    ):
        run(folder, epochs=3, resume=True)
    assert len(run(folder, epochs=3, resume=True)["epochs"]) == 3


def test_a_file_system_without_locks_is_used_with_a_warning(folder, monkeypatch, caplog):
    def unsupported(*_, **__) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    with caplog.at_level(logging.WARNING):
        assert run(folder)["test_result"]
    assert "saved lies on a file system without locks" in caplog.text


def test_there_weights_of_another_training_are_not_tested(folder, monkeypatch):
    after_fit = SingleRun.after_fit

    def replace(first) -> None:
        file = first.trainer.saved_model_file
        save_checkpoint(file, {**load_checkpoint(file), "best_valid_score": 0.0})
        after_fit(first)

    monkeypatch.setattr(SingleRun, "after_fit", replace)
    with pytest.raises(ArtefactError, match="validation score 0, but the best score of this train"):
        run(folder)


def one_run_of_two_processes(folder) -> None:
    """Body of two processes: process 0 holds the run for both; another run stops both."""
    options = {"data_path": str(folder), **SASREC}
    config = GenRecConfig("SASRec", "toy", config_dict=options)
    with held_run(config, print):
        processes.wait_for_all()
        assert len(list(Path("saved").glob(".*.lock"))) == 1
        processes.wait_for_all()
    processes.wait_for_all()
    error, message = ProcessError, "Process 0 failed .* HeldError: Another process runs these"
    name = f"of rank {processes.rank()}"
    if processes.rank() == 0:
        error, message, name = HeldError, "^Another process runs these", config.run_name()
    with (
        held_alone(Path("saved", name), "held"),
        pytest.raises(error, match=message),
        held_run(config, print),
    ):
        pass


@pytest.mark.slow
def test_processes_of_one_run_hold_it_together(folder):
    together(one_run_of_two_processes, folder)


# --- benchmarks and searches ----------------------------------------------------------------------


def test_a_benchmark_in_the_same_folder_is_refused(tmp_path):
    plan = Benchmark(tmp_path / "output", None, 1, 1, (), ())
    with (
        held_alone(tmp_path / "output" / "runs.json", "held"),
        pytest.raises(HeldError, match=r"a benchmark in .*output: it writes .*runs\.json"),
    ):
        benchmark.run_benchmark(plan)
    assert not (tmp_path / "output" / "runs.json").exists()
    assert benchmark.run_benchmark(plan) == 0
    assert (tmp_path / "output" / "runs.json").exists()


@pytest.fixture
def search(folder, monkeypatch) -> list[str]:
    """Arguments of a search of one trial, without hyperopt."""
    find = tuning.importlib.util.find_spec
    monkeypatch.setattr(
        tuning.importlib.util, "find_spec", lambda name, *_: name == "hyperopt" or find(name)
    )
    monkeypatch.setattr(
        tuning, "_search", lambda trials, *_: trials.run({"learning_rate": 0.01}, None)
    )
    Path("space.test").write_text("learning_rate choice [0.01]\n")
    fixed = [f"--data_path={folder}", "--params_file=space.test", "--model=SASRec", "--dataset=toy"]
    return [*fixed, *(f"--{key}={value}" for key, value in SASREC.items())]


def test_two_searches_do_not_write_one_file(search):
    with (
        held_alone("tuning.json", "held"),
        pytest.raises(HeldError, match=r"going to write tuning\.json.*--output_file"),
    ):
        tuning.tune(search)


def test_a_trial_that_another_process_runs_is_no_bad_trial(folder, search):
    options = {"data_path": str(folder), **SASREC, "learning_rate": 0.01}
    name = GenRecConfig("SASRec", "toy", config_dict=options).run_name()
    with (
        held_alone(Path("saved", name), "held"),
        pytest.raises(HeldError, match="Another process runs these settings"),
    ):
        tuning.tune(search)
    assert not Path("tuning.json").exists()


# --- tests and ensembles --------------------------------------------------------------------------


def test_two_tests_do_not_write_one_result_file(folder):
    checkpoint = run(folder)["checkpoint"]
    with (
        held_alone("again.json", "held"),
        pytest.raises(HeldError, match=r"going to write again\.json too.*--result_file"),
    ):
        evaluate(checkpoint, result_file="again.json", data_path=str(folder))
    assert not Path("again.json").exists()
    assert evaluate(checkpoint, data_path=str(folder))["test_result"]
    assert evaluate(checkpoint, result_file="again.json", data_path=str(folder))["test_result"]
    assert Path("again.json").exists()


def test_two_ensembles_do_not_write_one_file(folder):
    checkpoint = run(folder)["checkpoint"]
    with (
        held_alone("both.json", "held"),
        pytest.raises(HeldError, match=r"going to write both\.json too.*--output"),
    ):
        make_ensemble([checkpoint, checkpoint], "both.json", data_path=str(folder))
    assert not list(Path().glob("both*"))
