"""Results that may be passed on, and the tables that are made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_leaderboard import result_file

import recbole_genrec
from recbole_genrec.cli import main
from recbole_genrec.errors import ArtefactError, ConfigError, HeldError
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.report.ranks import UserRanks, in_one_form
from recbole_genrec.report.rows import make_rows
from recbole_genrec.report.runs import collect
from recbole_genrec.report.shared import share_results, without_paths
from recbole_genrec.storage.atomic import held_alone

USERS = tuple(f"A{number * 7919:013X}" for number in range(2000))
TARGETS = tuple(f"B{number % 900:09d}" for number in range(2000))


def drawn(seed, order=None):
    """Ranks of all users, in an order of their own."""
    ranks = np.random.default_rng(seed).integers(0, 21, len(USERS))
    order = np.arange(len(USERS)) if order is None else order
    users = tuple(USERS[i] for i in order)
    return UserRanks(ranks[order], users, 20, tuple(TARGETS[i] for i in order))


@pytest.fixture
def folder(tmp_path):
    """Two seeds of two models; each stores its users in another order."""
    folder = tmp_path / "own"
    for number, (stem, model, seed) in enumerate(
        [("a1", "SASRec", 1), ("a2", "SASRec", 2), ("b1", "STORE", 1), ("b2", "STORE", 2)]
    ):
        tokenizer = "store" if model == "STORE" else None
        result_file(folder, stem, model, seed, 0.04 + number / 100, tokenizer, ranks={"x": 1})
        order = np.random.default_rng(number).permutation(len(USERS))
        drawn(number, order).save(folder / f"{stem}.ranks")
    return folder


def check_same(rows, others):
    """Check that tables of both show the same, but for paths, and p and interval up to chance.

    The signs and users that a test draws belong to other users where these have no names.
    """
    assert [row["run"] for row in rows] == [row["run"] for row in others]
    for row, other in zip(rows, others, strict=True):
        for key in row.keys() - {"details", "against_baseline"}:
            assert row[key] == other[key]
        tested, same = row["against_baseline"], other["against_baseline"]
        assert (tested is None) == (same is None)
        if tested:
            assert tested["difference"] == pytest.approx(same["difference"], abs=1e-12)
            assert (tested["users"], tested["seeds"]) == (same["users"], same["seeds"])
            for name in ("low", "high", "p"):
                assert tested[name] == pytest.approx(same[name], abs=0.02)


# --- ranks ----------------------------------------------------------------------------------------


def test_ranks_without_names_are_the_same_in_whatever_order_they_were(tmp_path):
    one = drawn(0).without_names()
    other = drawn(0, np.random.default_rng(1).permutation(len(USERS))).without_names()
    assert one.users == other.users == one.targets == ()
    assert (one.ranks == other.ranks).all() and one.cases_digest == other.cases_digest
    assert one.without_names() is one
    assert one.ndcg(10).sum() == pytest.approx(drawn(0).ndcg(10).sum())
    one.save(tmp_path / "x.ranks")
    loaded = UserRanks.load(tmp_path / "x.ranks")
    assert (loaded.ranks == one.ranks).all() and loaded.cases_digest == one.cases_digest
    assert loaded.depth == 20


def test_their_file_is_small_and_names_nobody(tmp_path):
    drawn(0).without_names().save(tmp_path / "x.ranks")
    stored = b"".join(file.read_bytes() for file in (tmp_path / "x.ranks").iterdir())
    assert len(stored) < 2 * len(USERS)
    assert USERS[1].encode() not in stored and TARGETS[1].encode() not in stored


def test_other_users_or_items_are_not_the_same_cases():
    one, other = drawn(0).without_names(), drawn(0)
    moved = UserRanks(other.ranks, USERS, 20, TARGETS[1:] + TARGETS[:1]).without_names()
    assert not one.by_case("ndcg@10").keys() & moved.by_case("ndcg@10").keys()


def test_ranks_of_both_forms_are_compared_without_names():
    named, bare = drawn(0), drawn(1).without_names()
    assert in_one_form([named, drawn(1)])[0] is named
    both = in_one_form([named, bare])
    keys = [ranks.by_case("recall@10").keys() for ranks in both]
    assert keys[0] == keys[1] and len(keys[0]) == len(USERS)


def test_damaged_ranks_without_names_are_refused(tmp_path):
    drawn(0).without_names().save(tmp_path / "x.ranks")
    file = tmp_path / "x.ranks" / "meta.json"
    file.write_text(file.read_text().replace("cases_digest", "cases"))
    with pytest.raises(ArtefactError):
        UserRanks.load(tmp_path / "x.ranks")


# --- folders --------------------------------------------------------------------------------------


def test_damaged_results_are_to_be_written_again(folder, tmp_path):
    file = folder / "a1.json"
    whole = file.read_text()
    content = json.loads(whole)
    for text, reason in {
        whole[:-30]: "is damaged",
        json.dumps({**content, "config": None}): "'config' is not an object",
        json.dumps({**content, "test_result": []}): "'test_result' is not an object",
    }.items():
        file.write_text(text)
        for read in (make_leaderboard, share):
            with pytest.raises(ArtefactError, match=f"{reason}.* Run the model again, or") as error:
                read([folder])
            assert "Delete" not in str(error.value)
        with pytest.raises(ArtefactError, match="is damaged"):
            recbole_genrec.load(file)


def share(paths):
    return share_results(paths, paths[0] / "shared")


@pytest.mark.parametrize("text", ["{", "{}", '{"runs": null}', '{"runs": [3]}', '{"runs": [{}]}'])
def test_a_damaged_list_of_runs_is_named(folder, tmp_path, text):
    shared = tmp_path / "shared"
    share_results([folder], shared)
    (shared / "runs.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"runs\.json .* or name the folder of its results"):
        make_leaderboard([shared])
    assert make_leaderboard([shared / "results"])  # as the error says


def test_a_shared_folder_gives_the_rows_of_the_results(folder, tmp_path):
    files = share_results([folder], tmp_path / "shared")
    assert len(files) == 4 and all(file.is_file() for file in files)
    rows = make_rows(collect([folder])[0], "SASRec")
    assert rows[0]["against_baseline"]["users"] == len(USERS)
    check_same(make_rows(collect([tmp_path / "shared"])[0], "SASRec"), rows)


def test_it_names_no_path_and_no_user(folder, tmp_path):
    content = json.loads((folder / "a1.json").read_text())
    content["command"] += " --init_from=/home/me/x.pth '--item_vectors=/home/me/my vectors.npy'"
    content["checkpoint"] = "/home/me/saved/SASRec.pth"
    content["changes"] = {"data_path": "/home/me/data"}  # what `evaluate` was told
    content["test_by_user"] = {USERS[0]: {"ndcg@10": 1.0}}
    (folder / "a1.json").write_text(json.dumps(content))
    share_results([folder], tmp_path / "shared")
    for file in (tmp_path / "shared").rglob("*"):
        if file.is_file():
            assert b"/home" not in file.read_bytes() and USERS[0].encode() not in file.read_bytes()
    (shared,) = [run for run in collect([tmp_path / "shared"])[0] if run.key[0::2] == ("SASRec", 1)]
    assert "--init_from=x.pth '--item_vectors=my vectors.npy'" in shared.result["command"]


def test_seeds_and_rows_join_later_and_a_seed_is_replaced(folder, tmp_path):
    shared = tmp_path / "shared"
    share_results([folder / "a1.json", folder / "b1.json"], shared)
    share_results([folder / "a2.json", folder / "b2.json"], shared)
    rows = make_rows(collect([folder])[0], "SASRec")
    check_same(make_rows(collect([shared])[0], "SASRec"), rows)
    before = sorted(file.name for file in shared.rglob("*.json"))
    content = json.loads((folder / "a2.json").read_text())
    content["test_result"]["ndcg@10"] = 0.5
    (folder / "a2.json").write_text(json.dumps(content))
    share_results([folder / "a2.json"], shared)
    assert sorted(file.name for file in shared.rglob("*.json")) == before
    (row,) = [row for row in make_rows(collect([shared])[0]) if row["run"] == "SASRec"]
    assert row["test"]["ndcg@10"]["mean"] == pytest.approx((0.5 + 0.04) / 2)


def test_a_run_of_ones_own_is_compared_with_a_shared_one(folder, tmp_path):
    share_results([folder / "a1.json", folder / "a2.json"], tmp_path / "shared")
    paths = [tmp_path / "shared", folder / "b1.json", folder / "b2.json"]
    own = make_rows(collect([folder])[0], "SASRec")
    check_same(make_rows(collect(paths)[0], "SASRec"), own)


def test_other_settings_under_one_name_are_refused_and_lose_nothing(folder, tmp_path):
    shared = tmp_path / "shared"
    share_results([folder], shared)
    result_file(tmp_path / "more", "a1", "SASRec", 1, 0.9, learning_rate=0.1)
    table = make_leaderboard([shared])
    with pytest.raises(ConfigError, match="cannot be seeds of one run: they differ in learning"):
        share_results([tmp_path / "more"], shared)
    assert make_leaderboard([shared]) == table
    share_results([tmp_path / "more"], shared, name="SASRec, rate .1")
    assert "SASRec, rate .1" in make_leaderboard([shared])
    with pytest.raises(ConfigError, match="same run, dataset and seed"):
        share_results([folder], shared, name="both")


def test_the_only_seed_is_replaced_also_after_a_change_of_settings(tmp_path):
    shared = tmp_path / "shared"
    for score, rate in ((0.1, 0.1), (0.2, 0.2)):
        result_file(tmp_path / str(rate), "a1", "SASRec", 1, score, learning_rate=rate)
        share_results([tmp_path / str(rate)], shared, name="SASRec")
    (row,) = make_rows(collect([shared])[0])
    assert row["test"]["ndcg@10"]["mean"] == pytest.approx(0.2)


def test_further_seeds_may_lie_on_other_machines(folder, tmp_path):
    shared = tmp_path / "shared"
    for number, seed in enumerate((1, 2)):
        place = tmp_path / f"machine{number}"
        vectors = str(place / "v.npy")
        result_file(place, "a", "SASRec", seed, 0.04, item_vectors=vectors, field_separator="/")
        share_results([place], shared)
    runs, _ = collect([shared])
    assert [run.result["config"]["item_vectors"] for run in runs] == ["v.npy", "v.npy"]
    assert runs[0].result["config"]["field_separator"] == "/"
    result_file(tmp_path / "more", "a", "SASRec", 3, 0.04, item_vectors="/models/w.npy")
    with pytest.raises(ConfigError, match=r"differ in item_vectors \(v.npy and w.npy\)"):
        share_results([tmp_path / "more"], shared)


def test_one_row_has_no_two_files_of_one_name(folder, tmp_path):
    for name in ("a", "b"):
        result_file(tmp_path / name, name, "SASRec", ord(name), 0.04, item_vectors=f"/{name}/v.npy")
    with pytest.raises(ConfigError, match="cannot be seeds of one run: they differ in item_vec"):
        share_results([tmp_path / "a", tmp_path / "b"], tmp_path / "shared", name="SASRec")
    assert not (tmp_path / "shared").exists()


def test_rows_are_not_named_after_places_of_a_machine(folder, tmp_path):
    for number, file in enumerate(("v.npy", "w.npy")):
        vectors = f"/home/me/{file}"
        result_file(tmp_path / "two", file, "SASRec", number, 0.04, item_vectors=vectors)
    share_results([tmp_path / "two"], tmp_path / "shared")
    names = [run.name for run in collect([tmp_path / "shared"])[0]]
    assert names == ["SASRec item_vectors=v.npy", "SASRec item_vectors=w.npy"]


def test_a_tokenizer_at_a_path_leaves_no_path(tmp_path):
    for number, (place, codes) in enumerate((("/home/me", "codes"), ("/home/me/own work", "v 2"))):
        result_file(tmp_path / "own", str(number), "TIGER", 1, 0.04, f"{place}/{codes}")
    shared = tmp_path / "shared"
    share_results([tmp_path / "own"], shared)
    runs = collect([shared])[0]
    assert [(run.name, run.tokenizer) for run in runs] == [
        ("TIGER-codes", "codes"),
        ("TIGER-v 2", "v 2"),
    ]
    stored = "".join(file.read_text() for file in shared.rglob("*.json"))
    assert "/home" not in stored and "own work" not in stored


def test_rows_whose_names_become_one_are_compared_as_seeds(tmp_path):
    for seed in (1, 2):
        vectors = f"/home/{seed}/v.npy"
        result_file(tmp_path / "own", str(seed), "SASRec", seed, 0.04, item_vectors=vectors)
    with pytest.raises(ConfigError, match="cannot be seeds of one run: they differ in item_vec"):
        share_results([tmp_path / "own"], tmp_path / "shared")


def test_two_runs_are_not_written_to_one_file(tmp_path):
    shared = tmp_path / "shared"
    for name, dataset in (("SASRec-ml", "100k"), ("SASRec", "ml-100k")):
        file = result_file(tmp_path, name, "SASRec", 1, 0.04)
        file.write_text(file.read_text().replace('"dataset": "toy"', f'"dataset": "{dataset}"'))
    share_results([tmp_path / "SASRec-ml.json"], shared, name="SASRec-ml")
    before = {file: file.read_bytes() for file in shared.rglob("*.json")}
    words = r"SASRec-ml on 100k and SASRec on ml-100k would both be written to .*--name"
    with pytest.raises(ConfigError, match=words):
        share_results([tmp_path / "SASRec.json"], shared, name="SASRec")
    assert {file: file.read_bytes() for file in shared.rglob("*.json")} == before


@pytest.mark.parametrize(("key", "value"), [("dataset", "x"), ("seed", 9)])
def test_a_result_of_another_run_than_its_entry_is_refused(folder, tmp_path, key, value):
    shared = tmp_path / "shared"
    (file, *_) = share_results([folder / "a1.json"], shared)
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    words = r"is a result on .*, but .*runs\.json lists it as one on toy with seed 1\."
    with pytest.raises(ArtefactError, match=words):
        make_leaderboard([shared])


@pytest.mark.parametrize("model", ["shop.models:SASRec", "LETTER"])
def test_a_result_may_call_its_model_otherwise(folder, tmp_path, model):
    shared = tmp_path / "shared"
    share_results([folder / "a1.json"], shared)
    state = json.loads((shared / "runs.json").read_text())
    state["runs"][0]["model"] = model
    (shared / "runs.json").write_text(json.dumps(state))
    assert make_leaderboard([shared])


def test_one_process_at_a_time_adds_to_a_folder(folder, tmp_path):
    shared = tmp_path / "shared"
    share_results([folder / "a1.json"], shared)
    with (
        held_alone(shared / "runs.json", "as another process does"),
        pytest.raises(HeldError, match="Another process adds results to .*shared. Give the com"),
    ):
        share_results([folder / "b1.json"], shared)
    assert len(collect([shared])[0]) == 1
    share_results([folder / "b1.json"], shared)
    assert len(collect([shared])[0]) == 2


def test_the_command_prints_the_table_of_the_folder(folder, tmp_path, capsys):
    shared = str(tmp_path / "shared")
    assert main(["leaderboard", str(folder / "a1.json"), f"--share={shared}"]) == 0
    assert "SASRec" in capsys.readouterr().out
    own = str(folder / "b1.json")
    assert main(["leaderboard", own, f"--share={shared}", "--baseline=SASRec"]) == 0
    assert "STORE-store" in capsys.readouterr().out
    assert main(["leaderboard", own, "--name=x"]) == 2
    assert "--share=FOLDER" in capsys.readouterr().err


def test_paths_lose_their_folders():
    settings = {"a": "/x/y", "b": ["--k=/x/z", "l=saved/x", "{a: 1}"], "c": 3, "d": None}
    settings["e"] = "--checkpoints=/x/a.pth,saved/b.pth,/y/c.pth"
    expected = {"a": "y", "b": ["--k=z", "l=saved/x", "{a: 1}"], "c": 3, "d": None}
    expected["e"] = "--checkpoints=a.pth,saved/b.pth,c.pth"
    assert without_paths(settings) == expected


@pytest.mark.parametrize("separator", ["/", "//", "/|", "--field_separator=/"])
def test_separators_are_no_paths(separator):
    assert without_paths(separator) == separator
