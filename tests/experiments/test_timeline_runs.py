"""Whole runs of TimelineRec's recipe: its checkpoint, a later day, a run that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from toy import SMALL, write_dataset

from recbole_genrec.experiments.benchmark_file import read_benchmark
from recbole_genrec.experiments.loading import load_model
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate
from recbole_genrec.report.leaderboard import make_leaderboard

FLAT = {"output": "items", "item_parts": ["id"]}
KINDS = {
    "recipe": {},
    "hybrid": {"heads": ["tree", "flat"], "tokenizers": ["clusters", "clusters"]},
    "flat": {"output": "items", "item_parts": ["text"], "text_mlp": 8},
}


def settings(folder, kind, **changes):
    """The defaults of TimelineRec, small."""
    small = {key: value for key, value in SMALL.items() if key != "train_batch_size"}
    return {
        **small,
        "codebook_sizes": [8, 8],
        "d_model": 16,
        "batch_targets": 64,
        "data_path": str(folder),
        "cache_dir": "cache",
        "checkpoint_dir": "saved",
        **KINDS[kind],
        **changes,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_serves_a_later_day_and_starts_another_run(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_dataset(tmp_path / "first")
    first = run_recbole_genrec("TimelineRec", "toy", config_dict=settings(folder, kind))
    checkpoint = first["checkpoint"]
    losses = [epoch["loss"] for epoch in first["epochs"]]
    assert sum(losses[-1]) < sum(losses[0])
    assert evaluate(checkpoint)["test_result"] == pytest.approx(first["test_result"], abs=1e-6)
    assert first["report"]["search"]["score_mode"] == "exact"
    assert first["report"]["search"]["certified@10"] == 1

    later = write_dataset(tmp_path / "later", n_items=44)
    model = load_model(checkpoint, data_path=str(later)).model
    assert model.n_items == 45
    assert {row["item"] for row in model.recommend(["i1", "i42"], k=44)} >= {"i40", "i43"}
    changes = {"init_from": checkpoint, "epochs": 1, "checkpoint_dir": "again"}
    again = run_recbole_genrec("TimelineRec", "toy", config_dict=settings(later, kind, **changes))
    assert evaluate(again["checkpoint"])["test_result"] == pytest.approx(
        again["test_result"], abs=1e-6
    )


def test_codes_that_are_not_read_stand_in_no_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_dataset(tmp_path / "data")
    for kind in ("recipe", "flat"):
        values = settings(folder, kind, epochs=1)
        run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    text = make_leaderboard(["saved"])
    codes = text.partition("### Codes")[2].partition("###")[0].strip().splitlines()[2:]
    assert len(codes) == text.count("| clusters |") == 1

    names = {"tree": {}, "flat": FLAT}
    runs = [
        {"name": name, "model": "TimelineRec", "settings": chosen} for name, chosen in names.items()
    ]
    plan = {
        "data_path": str(folder),
        "output": "results",
        "baseline": "tree",
        "datasets": ["toy"],
        "seeds": [1],
        "settings": {"item_text_fields": ["title"]},
        "runs": runs,
    }
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    assert [run.tokenizer for run in read_benchmark("plan.yaml").runs] == ["clusters", None]
