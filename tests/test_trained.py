"""``evaluate``: a checkpoint tested again, under the settings of the run and under others."""

from __future__ import annotations

import json

import pytest
from toy import TINY_OF, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ConfigError
from recbole_genrec.quick_start import run_recbole_genrec
from recbole_genrec.trained import evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """``(result, folder)`` of a TIGER and a SASRec on the toy data."""
    folder = write_dataset(tmp_path_factory.mktemp("data"))
    shared = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "cache_dir": str(folder / "cache"), "epochs": 2}
    tiger = {**TINY_OF["TIGER"], **shared, "score_type": "level", "beam_width": 20}
    return {
        "TIGER": run_recbole_genrec("TIGER", "toy", config_dict=tiger),
        "SASRec": run_recbole_genrec("SASRec", "toy", config_dict={**shared, "train_batch_size": 64}),
    }


@pytest.mark.parametrize("model", ["TIGER", "SASRec"])
def test_the_same_settings_give_the_metrics_of_the_run(run, model):
    again = evaluate(run[model]["checkpoint"], show_progress=False)
    assert again["test_result"] == run[model]["test_result"] and again["model"] == model
    assert again["report"].get("search") == run[model]["report"].get("search")


def test_another_search(run):
    exact = evaluate(run["TIGER"]["checkpoint"], score_mode="exact", show_progress=False)
    wide = evaluate(run["TIGER"]["checkpoint"], beam_width=40, show_progress=False)  # all items
    assert exact["test_result"] == pytest.approx(wide["test_result"])
    loose = evaluate(run["TIGER"]["checkpoint"], constraint="level", show_progress=False)
    assert loose["report"]["search"]["invalid_beams"] > 0 and wide["report"]["search"]["invalid_beams"] == 0


def test_what_the_weights_depend_on_cannot_change(run):
    with pytest.raises(ConfigError, match="learning_rate cannot be changed for a trained model"):
        evaluate(run["TIGER"]["checkpoint"], learning_rate=0.1)
    with pytest.raises(ConfigError, match="beam_width"):
        evaluate(run["TIGER"]["checkpoint"], beam_width=5)


def test_the_command(run, tmp_path, capsys):
    checkpoint = run["TIGER"]["checkpoint"]
    assert (
        main(["evaluate", f"--checkpoint={checkpoint}", "--topk=[5,10]", "--show_progress=False", f"--result_file={tmp_path / 'r.json'}"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "| TIGER |" in printed and "certified@5" in printed
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["changes"]["topk"] == [5, 10] and set(stored["test_result"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    assert main(["evaluate", "--beam_width=20"]) == 2 and "--checkpoint=F" in capsys.readouterr().err
    assert main(["evaluate", f"--checkpoint={tmp_path / 'none.pth'}"]) == 2
