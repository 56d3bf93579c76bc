"""Several runs on one page: each is compared with the baseline on its dataset, with its seed."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from test_leaderboard import result_file

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.report import make_entries, write_report
from recbole_genrec.report.baselines import baselines, references
from recbole_genrec.report.comparisons import paired_tests
from recbole_genrec.report.page import report_page
from recbole_genrec.report.runs import collect
from recbole_genrec.storage.artefacts import write_json

USERS = [f"u{number}" for number in range(50)]


def run_file(folder, dataset, model, seed, ndcg):
    """A result with ranks that its model, dataset and seed draw."""
    draw = np.random.default_rng([seed, len(model), len(dataset)])
    ranks = dict(zip(USERS, draw.integers(0, 11, len(USERS)), strict=True))
    file = result_file(folder, f"{dataset}-{model}-{seed}", model, seed, ndcg, ranks=ranks)
    report = {"search": {}} if model == "TIGER" else {}  # what a model of ours says
    write_json(file, {**json.loads(file.read_text()), "dataset": dataset, "report": report})
    return file


def entries_of(folder):
    return make_entries(collect([folder])[0], analysis=False)


def compared(entries, name=None):
    """The name of each run with that of the run that it is compared with."""
    found = references(entries, baselines(entries, name))
    return {entry.name: other and other.name for entry, other in zip(entries, found, strict=True)}


@pytest.fixture
def datasets(tmp_path):
    """SASRec is the better one on beauty and the worse one on ml-1m; only beauty has Pop."""
    for dataset, model, ndcg in (
        ("beauty", "SASRec", 0.30),
        ("beauty", "TIGER", 0.25),
        ("ml-1m", "SASRec", 0.10),
        ("ml-1m", "TIGER", 0.12),
        ("beauty", "Pop", 0.02),
    ):
        run_file(tmp_path, dataset, model, 1, ndcg)
    return tmp_path


def test_runs_are_compared_on_their_own_dataset(datasets):
    entries = entries_of(datasets)
    assert compared(entries, "SASRec") == {
        "Pop on beauty": "SASRec on beauty",
        "SASRec on beauty": None,
        "TIGER on beauty": "SASRec on beauty",
        "SASRec on ml-1m": None,
        "TIGER on ml-1m": "SASRec on ml-1m",
    }
    assert compared(entries, "SASRec on beauty") == compared(entries, "SASRec")
    by_default = compared(entries)
    assert by_default["TIGER on beauty"] == "Pop on beauty"
    assert by_default["TIGER on ml-1m"] == "SASRec on ml-1m"
    with pytest.raises(ConfigError, match="no run.* Did you mean SASRec"):
        baselines(entries, "SASrek")


def test_a_dataset_without_the_baseline_has_no_comparison(datasets):
    entries = entries_of(datasets)
    assert compared(entries, "Pop")["TIGER on ml-1m"] is None
    text = report_page(entries, "Pop")
    assert "Not tested against Pop: SASRec on ml-1m, TIGER on ml-1m." in text
    (of_tiger,) = re.findall(r'(?s)<article id="run-4".*?</table>', text)
    assert "0.1200" in of_tiger and '<th class="number">difference</th>' not in of_tiger


def test_the_best_value_and_the_figure_are_those_of_a_dataset(datasets):
    text = report_page(entries_of(datasets), "SASRec")
    assert re.findall(r'class="number best" data-value="(0.3|0.12)"', text) == ["0.3", "0.12"]
    assert "metrics on beauty" in text and "metrics on ml-1m" in text
    assert "<h3>Against SASRec</h3>" in text
    mixed = report_page(entries_of(datasets))
    assert "<h3>Against Pop on beauty, SASRec on ml-1m</h3>" in mixed


@pytest.fixture
def seeds(tmp_path):
    for model in ("SASRec", "TIGER"):
        for seed in (1, 2):
            run_file(tmp_path, "beauty", model, seed, 0.3)
    run_file(tmp_path, "beauty", "TIGER", 3, 0.3)
    return tmp_path


def test_each_seed_is_compared_with_the_same_seed_of_the_baseline(seeds):
    entries = entries_of(seeds)
    assert compared(entries, "SASRec") == {
        "SASRec, seed 1": None,
        "SASRec, seed 2": None,
        "TIGER, seed 1": "SASRec, seed 1",
        "TIGER, seed 2": "SASRec, seed 2",
        "TIGER, seed 3": None,
    }
    pairs = [(entries[2], entries[0]), (entries[3], entries[1])]
    tests = paired_tests(pairs, ["recall@10", "ndcg@10"])
    corrected = false_discovery_control([test.comparison.p for test in tests])
    assert len(tests) == 4
    assert [test.p_adjusted for test in tests] == pytest.approx(list(corrected))

    page = write_report([seeds], seeds / "report.html", "SASRec", analysis=False)
    text = page.read_text()
    assert "over all 4 comparisons of this table" in text
    assert "Not tested against SASRec: TIGER, seed 3." in text


def test_users_without_names_are_counted(seeds):
    (entry,) = make_entries(collect([seeds / "beauty-SASRec-1.json"])[0], analysis=False)
    entry.ranks.without_names().save(seeds / "beauty-SASRec-1.ranks")
    text = write_report([seeds / "beauty-SASRec-1.json"], analysis=False).read_text()
    assert "bootstrap over the 50 test users" in text
