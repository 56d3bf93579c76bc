"""The benchmark files of the repository: every run of them is ready to start."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from toy import write_dataset

from recbole_genrec.experiments.benchmark import run_benchmark
from recbole_genrec.experiments.benchmark_file import read_benchmark
from recbole_genrec.model.names import MODELS
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.storage.artefacts import read_json

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
FILES = sorted(file.name for file in FOLDER.glob("*.yaml"))
TEXT = {"item_text_fields": ["title", "brand"]}
SMALL = {
    **TEXT,
    "MAX_ITEM_LIST_LENGTH": 8,
    "gpu_id": "",
    "epochs": 9,
    "TimelineRec.codebook_sizes": [8, 8],
    "max_cpu_minutes": 0.001,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def cut(file, folder, tmp_path, **changes):
    """A copy of a file for toy data."""
    plan = yaml.safe_load((FOLDER / file).read_text(encoding="utf-8"))
    plan |= {"data_path": str(folder), "datasets": ["toy"], "output": str(tmp_path / "out")}
    plan |= changes
    copy = tmp_path / file
    copy.write_text(yaml.safe_dump(plan), encoding="utf-8")
    return copy


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("limit", [{}, {"exclude_history": True, "max_cpu_minutes": 30}], ids=str)
def test_every_run_can_start(file, folder, tmp_path, limit):
    plan = read_benchmark(cut(file, folder, tmp_path, settings={**TEXT, **limit}, seeds=[1]))
    assert len({run.run_name for run in plan.runs}) == len(plan.runs)
    assert plan.baseline in {run.name for run in plan.runs}


def test_the_leaderboard_holds_every_method(folder, tmp_path):
    plan = read_benchmark(cut("leaderboard.yaml", folder, tmp_path, settings=TEXT, seeds=[1]))
    ours = set(MODELS) - {"LightGCNDot", "LightGCNCosine"}
    assert ours <= {run.model for run in plan.runs}
    assert {"SASRec", "FEARec", "BERT4Rec", "GRU4Rec"} <= {run.model for run in plan.runs}


@pytest.mark.slow
def test_a_cut_copy_runs_and_a_later_seed_joins(folder, tmp_path):
    only = ["SASRec", "SASRec-prefixes", "tree", "flat-T", "parallel"]
    settings = {**SMALL, "exclude_history": True}
    file = cut("leaderboard.yaml", folder, tmp_path, settings=settings, seeds=[1])
    parallel = {"opq_rounds": 2, "codebook_sizes": [8] * 4}
    plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    for run in plan["runs"]:
        if run["name"] == "parallel":
            run["settings"] |= parallel
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    assert run_benchmark(read_benchmark(file, only=only)) == 0
    for name in only:
        result = read_json(tmp_path / "out" / "results" / f"{name}-toy-1.json")
        assert 1 <= len(result["epochs"]) < 9 and result["config"]["exclude_history"]

    assert run_benchmark(read_benchmark(file, only=["SASRec", "tree"], seeds=[1, 2])) == 0
    table = make_leaderboard([tmp_path / "out"])
    assert "p adjusted" in table and "history masked: yes" in table
