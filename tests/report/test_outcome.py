"""The table at the end of a run: values, marks, epochs, and the paired test."""

from __future__ import annotations

import numpy as np
import pytest
from toy import SMALL, write_dataset

from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.report.best import best_epoch
from recbole_genrec.report.contents import ReportEntry
from recbole_genrec.report.outcome import minutes_of, outcome, shown_epoch
from recbole_genrec.report.page import RunView
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.report.runs import Run
from recbole_genrec.report.significance import sign_flip_p
from recbole_genrec.report.templating import Figures
from recbole_genrec.storage.checkpoints import load_checkpoint

USERS = tuple(f"u{number}" for number in range(40))


def result(name: str, ranks: np.ndarray, folder, report: dict, scores: list[float]) -> dict:
    """A result file's content, with its ranks stored beside it."""
    stored = UserRanks(ranks, USERS, 10, USERS)
    stored.save(folder / f"{name}.ranks")
    return {
        "model": name,
        "test_result": {
            "recall@10": float(stored.recall(10).mean()),
            "ndcg@10": float(stored.ndcg(10).mean()),
        },
        "report": report,
        "seconds": {"data": 6.0, "fit": 54.0, "cpu": 90.0},
        "epochs": [{"epoch": at, "valid": {"ndcg@10": score}} for at, score in enumerate(scores)],
        "valid_score_bigger": True,
        "config": {"valid_metric": "NDCG@10"},
        "checkpoint": str(folder / f"{name}.pth"),
        "ranks": f"{name}.ranks",
    }


@pytest.fixture
def results(tmp_path) -> dict[str, dict]:
    draw = np.random.default_rng(3)
    good, fair, bad = draw.integers(0, 4, 40), draw.integers(0, 11, 40), np.zeros(40, np.int64)
    return {
        "Pop": result("Pop", bad, tmp_path, {}, [0.1]),
        "Ours": result("Ours", good, tmp_path, {"search": {}}, [0.1, 0.3, 0.2]),
        "SASRec": result("SASRec", fair, tmp_path, {}, [0.1, 0.2]),
    }


def test_the_best_values_are_marked_and_the_baseline_is_the_best_of_recbole(results):
    table = outcome(results)
    assert table.columns[:3] == ["model", "recall@10", "ndcg@10"]
    assert table.columns[3:5] == ["ndcg@10 - SASRec", "p"]
    for column, metric in ((1, "recall@10"), (2, "ndcg@10")):
        values = [entry["test_result"][metric] for entry in results.values()]
        (row,) = [row for row, place in table.best if place == column]
        assert values[row] == max(values)


def test_the_distance_is_that_of_the_stored_ranks(results, tmp_path):
    table = outcome(results)
    ours = UserRanks.load(tmp_path / "Ours.ranks").ndcg(10)
    baseline = UserRanks.load(tmp_path / "SASRec.ranks").ndcg(10)
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert row["ndcg@10 - SASRec"] == f"{(ours - baseline).mean():+.4f}"
    p = sign_flip_p(ours - baseline)
    assert row["p"] == (f"{p:.3f}" if p >= 0.001 else "< 0.001")
    assert table.rows[2][3:5] == ["", ""]


def test_metrics_that_not_all_runs_have_are_left_out_and_named(results):
    del results["Pop"]["test_result"]["ndcg@10"]
    results["Ours"]["test_result"]["ndcg@5"] = 0.1
    table = outcome(results)
    assert table.columns[:3] == ["model", "recall@10", "recall@10 - SASRec"]
    assert "not every run has it: ndcg@10, ndcg@5." in table.markdown()


def test_epochs_and_costs(results):
    row = dict(zip(outcome(results).columns, outcome(results).rows[1], strict=True))
    assert (row["best epoch"], row["CPU min"], row["minutes"]) == ("2 of 3", "1.5", "1.0")
    assert shown_epoch({"epochs": [], "config": {}}) == ""
    lower = {**results["Ours"], "valid_score_bigger": False}
    assert shown_epoch(lower) == "1 of 3"


def test_of_equal_epochs_the_last_is_the_best():
    epochs = [{"epoch": at, "valid": {"ndcg@10": score}} for at, score in enumerate([1, 2, 2, 0])]
    assert best_epoch({"epochs": epochs, "valid_score_bigger": True}) == 3
    losses = [{"epoch": at, "valid": {"loss": loss}} for at, loss in enumerate([2, 1, 1, 3])]
    config = {"valid_metric": "loss"}
    assert best_epoch({"epochs": losses, "valid_score_bigger": False, "config": config}) == 3


def test_the_best_epoch_is_the_one_that_is_stored(tmp_path):
    values = {**SMALL, "data_path": str(write_dataset(tmp_path)), "checkpoint_dir": str(tmp_path)}
    values.pop("item_text_fields")
    values |= {"epochs": 3, "learning_rate": 0.0, "hidden_size": 16, "inner_size": 16}
    result = run_recbole_genrec("SASRec", "toy", config_dict=values)
    assert len({epoch["valid"]["ndcg@10"] for epoch in result["epochs"]}) == 1
    assert best_epoch(result) == load_checkpoint(result["checkpoint"])["epoch"] + 1 == 3
    assert shown_epoch(result) == "3 of 3"


def test_minutes_are_those_of_all_stages():
    stages = {"data": 60.0, "model_and_tokenizer": 60.0, "fit": 120.0, "after_fit": 30.0}
    stages |= {"test": 60.0, "test_by_user": 30.0}
    inside = {"train": 80.0, "valid": 40.0, "cpu": 700.0}
    assert minutes_of({**stages, **inside}) == pytest.approx(sum(stages.values()) / 60)
    assert minutes_of({"data": 6.0, "weights": 18.0, "test": 6.0}) == pytest.approx(0.5)


def test_the_report_shows_every_stage():
    seconds = {"data": 1.0, "model_and_tokenizer": 2.0, "fit": 3.0, "after_fit": 4.0}
    seconds |= {"weights": 5.0, "test": 6.0, "test_by_user": 7.0}
    inside = {"train": 2.0, "valid": 1.0, "cpu": 99.0}
    content = {"test_result": {}, "seconds": {**seconds, **inside}}
    run = Run("a", "toy", 1, "SETRec", result=content)
    view = RunView("run-0", ReportEntry("a", run), None, Figures(), "ndcg@10")
    assert [wall for _, wall, _, _ in view.times] == list(seconds.values())


def test_without_ranks_there_is_a_distance_and_no_p(results):
    results["Ours"]["ranks"] = None
    row = outcome(results).rows[1]
    assert row[3].startswith(("+", "-")) and row[4] == "?"


def test_ranks_of_another_test_are_not_compared(results, tmp_path):
    folder = tmp_path / "Ours.ranks"
    stored = UserRanks.load(folder)
    UserRanks(stored.ranks, USERS, 10, USERS, test_digest="another").save(folder)
    assert outcome(results).rows[1][4] == "?"


def test_one_result_has_neither_marks_nor_a_baseline(results):
    table = outcome({"Pop": results["Pop"]})
    assert table.best == set() and table.note == "" and "p" not in table.columns


def test_the_best_of_a_metric_that_should_be_low_is_the_lowest(results):
    for number, values in enumerate(results.values()):
        values["test_result"]["averagepopularity@10"] = 5.0 - number
    assert (2, 3) in outcome(results).best
    assert (0, 3) not in outcome(results).best


def test_the_markdown_is_aligned(results):
    lines = outcome(results).markdown().splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5] == "" and lines[6].startswith("Distance from SASRec")
