"""Results as objects: dictionaries as before, and tables and figures of the same numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from toy import TINY_OF, write_dataset

import recbole_genrec
from recbole_genrec import Leaderboard, Result, Results
from recbole_genrec.errors import ArtefactError, ConfigError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(root):
    """The result of a run and the folder that it ran in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        values = {**TINY_OF["TimelineRec"], "data_path": str(root)}
        return recbole_genrec.run_recbole_genrec("TimelineRec", "toy", config_dict=values)


def shown_numbers(html):
    return [float(text) for text in re.findall(r"<td>([\d.]+)</td>", html)]


def test_a_result_is_a_dictionary_with_a_face(run):
    assert isinstance(run, dict) and isinstance(run, Result)
    assert json.loads(json.dumps(run))["test_result"] == run["test_result"]
    frame = run.to_frame()
    assert frame.loc["test"].to_dict() == run["test_result"]
    assert frame.loc["valid"].to_dict() == run["best_valid_result"]
    html = run._repr_html_()
    expected = [round(value, 4) for row in frame.to_numpy() for value in row]
    assert shown_numbers(html) == expected
    assert "TimelineRec on toy" in html
    epochs = run.epochs_frame()
    assert list(epochs["epoch"]) == [0, 1]
    assert list(epochs["loss 1"]) == [epoch["loss"][0] for epoch in run["epochs"]]
    curve = next(trace for trace in run.plot().data if trace.name == "validation ndcg@10")
    assert list(curve.y) == [epoch["valid"]["ndcg@10"] for epoch in run["epochs"]]


def test_an_evaluation_is_a_result_too(run, root):
    again = recbole_genrec.evaluate(str(root / run["checkpoint"]))
    assert isinstance(again, Result)
    assert again.metrics == run["test_result"]
    assert list(again.to_frame().index) == ["test"]
    (bars,) = again.plot().data
    assert list(bars.y) == list(run["test_result"].values())


def test_several_models(root):
    values = {"data_path": str(root), "topk": [5, 10], "show_progress": False, "epochs": 1}
    results = recbole_genrec.run_recbole_genrec("Pop,BPR", "toy", config_dict=values)
    assert isinstance(results, Results) and list(results) == ["Pop", "BPR"]
    assert isinstance(results["Pop"], Result)
    frame = results.to_frame()
    assert frame.loc["BPR", "recall@10"] == results["BPR"]["test_result"]["recall@10"]
    assert len(results.plot().data) == 2
    assert "BPR" in results._repr_html_()


def test_load_opens_what_a_path_holds(run, root, tmp_path):
    file = (root / run["checkpoint"]).with_suffix(".json")
    assert recbole_genrec.load(file) == json.loads(file.read_text())
    model = recbole_genrec.load(root / run["checkpoint"])
    assert [row["rank"] for row in model.recommend(["i1", "i2"], k=3)] == [1, 2, 3]
    with pytest.raises(ConfigError, match="for models only"):
        recbole_genrec.load(file, beam_width=50)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(ArtefactError, match="no result of a run"):
        recbole_genrec.load(other)


def test_benchmark_is_a_leaderboard(root, tmp_path):
    plan = {
        "data_path": str(root),
        "output": str(tmp_path / "board"),
        "datasets": ["toy"],
        "seeds": [1],
        "settings": {"topk": [5, 10]},
        "runs": [{"name": "pop", "model": "Pop"}],
    }
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    board = recbole_genrec.benchmark("plan.yaml")
    assert isinstance(board, Leaderboard)
    frame = board.to_frame()
    assert frame.index.names == ["dataset", "run"]
    result = json.loads(next((tmp_path / "board").glob("**/pop*.json")).read_text())
    assert frame.loc[("toy", "pop")].to_dict() == pytest.approx(result["test_result"])
    with pytest.raises(ConfigError, match="no run on 'toys' here, only on"):
        board.plot("toys")
    assert list(board.plot().data[0].y) == pytest.approx(list(result["test_result"].values()))
    assert "pop" in board._repr_html_()
    assert (tmp_path / "board" / "leaderboard.html").is_file()
    loaded = recbole_genrec.load(tmp_path / "board")
    pd.testing.assert_frame_equal(loaded.to_frame(), frame)


def test_lists_are_tables():
    for table in (recbole_genrec.list_models(), recbole_genrec.list_tokenizers()):
        assert {"name", "what"} <= set(table.columns)
    assert "ml-100k" in set(recbole_genrec.list_datasets()["name"])


def test_pandas_warnings_are_quiet_in_programs(root):
    """A notebook has no command line that could silence them."""
    program = (
        "import recbole_genrec\n"
        "values = {'data_path': %r, 'topk': [5, 10], 'show_progress': False, 'state': 'error'}\n"
        "recbole_genrec.run_recbole_genrec('Pop', 'toy', config_dict=values)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program % str(root)], capture_output=True, text=True, check=True
    )
    assert "FutureWarning" not in result.stderr


@pytest.mark.slow
def test_the_program_in_the_documentation_runs(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(Path("saved").glob("*.html"))
