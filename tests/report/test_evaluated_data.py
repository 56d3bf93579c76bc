"""Runs on other users or items get tables of their own; the same data in other words do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_leaderboard import result_file
from toy import SMALL, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.report.comparable import check_comparable, check_one_table
from recbole_genrec.report.evaluated_data import data_text, evaluated_data
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.report.leaderboard_page import leaderboard_page
from recbole_genrec.report.rows import make_rows
from recbole_genrec.report.runs import collect

SHARED = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
INTER = ["user_id", "item_id", "timestamp"]
OTHER_DATA = {
    "user_inter_num_interval": "[13,inf)",
    "item_inter_num_interval": "[5,inf)",
    "val_interval": {"timestamp": "[0,1708000000)"},
    "rm_dup_inter": "first",
    "benchmark_filename": ["train", "valid", "test"],
    "catalogue": "item_file",
    "cold_users": 0.1,
    "alias_of_item_id": ["bundle"],
    "ITEM_ID_FIELD": "artist_id",
    "TIME_FIELD": "rated_at",
}
NOTHING = {
    "user_inter_num_interval": "[0, inf)",
    "item_inter_num_interval": "[0,inf)",
    "val_interval": {},
    "rm_dup_inter": None,
    "benchmark_filename": None,
    "catalogue": "interactions",
    "cold_users": 0.0,
    "alias_of_item_id": [],
    "USER_ID_FIELD": "user_id",
    "filter_inter_by_user_or_item": True,
    "load_col": {"inter": INTER},
}


@pytest.mark.parametrize("key", OTHER_DATA)
def test_other_users_or_items_are_no_rows_of_one_table(tmp_path, key):
    changes = {key: OTHER_DATA[key]}
    result_file(tmp_path, "a", "SASRec", 1, 0.01, ranks={"x": 1})
    result_file(tmp_path, "b", "GRU4Rec", 1, 0.01, ranks={"x": 1}, **changes)
    with pytest.raises(ConfigError, match=f"cannot be rows of one table: they differ in {key} "):
        make_leaderboard([tmp_path], "SASRec")
    with pytest.raises(ConfigError, match=f"A and B cannot stand in one table: .* in {key} "):
        check_one_table({"A": {}, "B": changes})
    assert make_leaderboard([tmp_path / "b.json"])


@pytest.mark.parametrize("key", NOTHING)
def test_a_value_that_changes_nothing_is_as_if_it_was_not_given(tmp_path, key):
    result_file(tmp_path, "a", "SASRec", 1, 0.01, ranks={"x": 1})
    result_file(tmp_path, "b", "GRU4Rec", 1, 0.01, ranks={"x": 1}, **{key: NOTHING[key]})
    assert "| GRU4Rec |" in make_leaderboard([tmp_path], "SASRec")


def test_one_filter_in_two_spellings_is_one_filter():
    spaced = {"val_interval": {"rating": "[3, inf)"}, "user_inter_num_interval": "[5, inf)"}
    dense = {"val_interval": {"rating": "[3,inf)"}, "user_inter_num_interval": "[5,inf)"}
    assert evaluated_data(spaced) == evaluated_data(dense)
    files = {"benchmark_filename": ["train", "valid", "test"]}
    assert evaluated_data({**files, **dense}) == evaluated_data(files)  # idle beside them


def test_files_filter_where_they_are_loaded_for_that_alone():
    asked = {"load_col": {"inter": INTER, "item": ["item_id"]}}
    features = {"load_col": {"inter": INTER, "item": ["item_id", "class"]}}
    plain = {"load_col": {"inter": INTER}}
    check_one_table({"SASRec": plain, "FDSA": features})
    check_one_table({"A": plain, "B": {**asked, "filter_inter_by_user_or_item": False}})
    message = r"in filter_inter_by_user_or_item \(False and True\)"
    with pytest.raises(ConfigError, match=message):
        check_one_table({"A": plain, "B": asked})


def test_a_table_says_what_was_filtered(tmp_path):
    changes = {"user_inter_num_interval": "[13,inf)", "catalogue": "item_file"}
    words = "user_inter_num_interval: [13,inf), catalogue: item_file"
    for model in ("SASRec", "GRU4Rec"):
        result_file(tmp_path, model, model, 1, 0.01, **changes)
    assert data_text(changes) == words and data_text(NOTHING) == ""
    text = make_leaderboard([tmp_path])
    (line,) = [line for line in text.splitlines() if line.startswith("Test split under")]
    assert line.endswith(f"history masked: no, {words}.") and text.count(words) == 1
    page = leaderboard_page(make_rows(collect([tmp_path])[0]), "ndcg@10")
    assert f"history masked: no, {words}.</p>" in page


def test_models_on_other_data_are_refused_before_the_training(tmp_path):
    values = {**SMALL, "data_path": str(write_dataset(tmp_path / "data"))}
    values.pop("item_text_fields")
    values |= {"checkpoint_dir": str(tmp_path / "saved"), "Pop.user_inter_num_interval": "[9,inf)"}
    with pytest.raises(ConfigError, match=r"SASRec and Pop .* user_inter_num_interval .*\[9,inf\)"):
        run_recbole_genrec("SASRec,Pop", "toy", config_dict=values)
    assert not (tmp_path / "saved").exists()


def with_entry(file: Path, name: str, value: dict | None) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))


def with_pairs(file: Path, pairs: dict | None) -> None:
    with_entry(file, "tested_pairs", pairs)


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])  # a seed, or another row
def test_data_that_changed_under_the_same_settings_makes_no_table(tmp_path, model):
    pairs = [
        {"pairs": 60, "lists": 60, "digest": "a"},
        None,
        {"pairs": 61, "lists": 61, "digest": "b"},
    ]
    for seed, (name, value) in enumerate(zip("abc", pairs, strict=True)):
        result_file(tmp_path, name, model if name == "c" else "SASRec", seed, 0.01)
        with_pairs(tmp_path / f"{name}.json", value)
    with pytest.raises(
        ConfigError, match=r"a\.json and .*c\.json .*60 and 61 pairs.*of toy changed"
    ):
        make_leaderboard([tmp_path])

    with_pairs(tmp_path / "c.json", {**pairs[0], "lists": 50})
    with pytest.raises(ConfigError, match="60 and 50 lists are judged by 60 pairs"):
        make_leaderboard([tmp_path])

    with_pairs(tmp_path / "c.json", pairs[0])
    assert make_leaderboard([tmp_path])


def test_files_of_candidates_are_compared_by_what_they_hold(tmp_path):
    fresh, other = {"items": 40, "digest": "a"}, {"items": 40, "digest": "b"}
    result_file(tmp_path, "shared", "TIGER", 1, 0.01, "rkmeans", candidate_file="fresh.txt")
    result_file(tmp_path, "own", "STORE", 1, 0.01, "store", candidate_file="/data/fresh.txt")
    with pytest.raises(ConfigError, match=r"differ in candidate_file \(/data/fresh.txt and fresh"):
        make_leaderboard([tmp_path])  # results of earlier versions: the paths alone are known
    with_entry(tmp_path / "shared.json", "candidates", fresh)
    with_entry(tmp_path / "own.json", "candidates", fresh)
    assert "| STORE-store |" in make_leaderboard([tmp_path])
    with_entry(tmp_path / "own.json", "candidates", other)
    with pytest.raises(ConfigError, match="cannot be rows of one table: they differ in candidate_"):
        make_leaderboard([tmp_path])


def test_files_where_each_user_has_one_test_row_make_one_table(tmp_path):
    files = {"benchmark_filename": ["train", "valid", "test"]}
    result_file(tmp_path, "a", "SASRec", 1, 0.01, MODEL_TYPE="SEQUENTIAL", **files)
    result_file(tmp_path, "b", "Pop", 1, 0.01, MODEL_TYPE="GENERAL", **files)
    refusal = "SASRec is tested on each of them, Pop once on all"
    with pytest.raises(ConfigError, match=refusal):
        make_leaderboard([tmp_path])  # results of earlier versions do not say it
    for name in "ab":
        with_pairs(tmp_path / f"{name}.json", {"pairs": 60, "lists": 60, "digest": "a"})
    assert "| Pop |" in make_leaderboard([tmp_path])

    result_file(tmp_path, "c", "Pop", 2, 0.01, MODEL_TYPE="GENERAL", **files)
    with pytest.raises(ConfigError, match=refusal):
        make_leaderboard([tmp_path])  # one of the seeds does not say it
    with_pairs(tmp_path / "c.json", {"pairs": 60, "lists": 50, "digest": "a"})
    with pytest.raises(ConfigError, match="60 and 50 lists are judged by 60 pairs"):
        make_leaderboard([tmp_path])


def test_each_seed_of_a_random_order_has_pairs_of_its_own(tmp_path):
    for seed, name in enumerate("ab"):
        result_file(tmp_path, name, "SASRec", seed, 0.01, eval_args={"order": "RO"})
        with_pairs(tmp_path / f"{name}.json", {"pairs": 60, "lists": 60, "digest": name})
    assert make_leaderboard([tmp_path])


@pytest.mark.parametrize("folder", ["leaderboard", "leaderboard-masked", "codes"])
def test_the_shared_results_make_one_table_of_each_dataset(folder):
    runs = collect([SHARED / folder])[0]
    check_comparable(runs)
    rows = make_rows(runs)
    assert {row["dataset"] for row in rows} == {run.dataset for run in runs}
