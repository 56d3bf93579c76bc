"""Tables say how their rows were tested, and no table mixes two ways to measure."""

from __future__ import annotations

import csv
import io
import json

import pytest
from test_leaderboard import result_file

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.report import write_report
from recbole_genrec.report.comparable import check_one_table
from recbole_genrec.report.leaderboard import Leaderboard
from recbole_genrec.report.protocol import protocol_text
from recbole_genrec.report.tables import csv_text
from recbole_genrec.storage.artefacts import write_json

LAST = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
RANKED = "7 items of a file are ranked"


def with_candidates(file):
    content = json.loads(file.read_text())
    write_json(file, {**content, "candidates": {"items": 7, "digest": "ab"}})


def test_a_table_of_candidates_says_so_in_every_form(tmp_path):
    settings = {"eval_args": LAST, "candidate_file": "/home/me/seven.txt"}
    for model in ("SASRec", "GRU4Rec"):
        with_candidates(result_file(tmp_path, model, model, 1, 0.01, **settings))
    board = Leaderboard.of([tmp_path])
    page = board.to_html()
    texts = [str(board), page, board.to_latex(), csv_text(board.rows)]
    texts.append(write_report([tmp_path / "SASRec.json"], analysis=False).read_text())
    for text in texts:
        assert RANKED in text and "all items are ranked" not in text
    assert "candidate_file seven.txt" in str(board)
    assert "<td>candidate_file</td><td><code>seven.txt</code></td>" in page


def test_results_of_earlier_versions_do_not_count_their_candidates():
    words = protocol_text({"config": {"eval_args": LAST, "candidate_file": "seven.txt"}})
    assert words == "leave one out (valid_and_test), the items of a file are ranked, order TO"


def test_a_split_by_ratio_and_samples_are_named():
    mode = {"valid": "uni20", "test": "uni100"}
    args = {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": mode}
    words = protocol_text({"config": {"eval_args": args, "MAX_ITEM_LIST_LENGTH": 50}})
    assert words == (
        "RS: [0.8, 0.1, 0.1], grouped by user, mode uni100, validation in mode uni20, order RO, "
        "histories of up to 50 items"
    )


def test_runs_of_several_protocols_are_named_alike_in_every_form(tmp_path):
    for model, length in (("SASRec", 50), ("TIGER", 20), ("GRU4Rec", 20)):
        settings = {"eval_args": LAST, "MAX_ITEM_LIST_LENGTH": length}
        result_file(tmp_path, model, model, 1, 0.01, **settings)
    board = Leaderboard.of([tmp_path])
    split = "leave one out (valid_and_test), all items are ranked, order TO"
    sentences = [
        f"Test split of GRU4Rec, TIGER under {split}, histories of up to 20 items, "
        "history masked: no.",
        f"Test split of SASRec under {split}, histories of up to 50 items, history masked: no.",
    ]
    for sentence in sentences:
        assert sentence in str(board).splitlines()
        assert f">{sentence}</p>" in board.to_html()
        assert sentence.replace("_", r"\_") in board.to_latex()
    rows = csv.DictReader(io.StringIO(csv_text(board.rows)))
    assert {row["run"]: "up to 50" in row["protocol"] for row in rows}["SASRec"]


def test_tails_of_two_sizes_stand_in_no_table(tmp_path):
    metrics = {"metrics": ["NDCG", "TailPercentage"]}
    result_file(tmp_path, "a", "Pop", 1, 0.01, metrics=["NDCG"], tail_ratio=0.9)
    result_file(tmp_path, "b", "SASRec", 1, 0.01, **metrics, tail_ratio=0.1)
    result_file(tmp_path, "c", "GRU4Rec", 1, 0.01, **metrics)  # RecBole's usual share
    assert "; tail_ratio 0.1" in str(Leaderboard.of([tmp_path]))
    assert "; tail_ratio 0.9" not in str(Leaderboard.of([tmp_path]))  # nothing is measured by it

    result_file(tmp_path, "d", "TIGER", 1, 0.01, **metrics, tail_ratio=0.5)
    refusal = r"tail_ratio 0.1 of SASRec and 0.5 of TIGER, .* Set tail_ratio for all models"
    with pytest.raises(ConfigError, match=refusal):
        Leaderboard.of([tmp_path])
    with pytest.raises(ConfigError, match="tail_ratio 0.1 of A and 0.5 of B"):
        check_one_table({"A": metrics, "B": {**metrics, "tail_ratio": 0.5}})
