"""``evaluate``: a checkpoint tested again, under the settings of the run and under others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy import TINY_OF, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.ids import check_same_ids
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ArtefactError, ConfigError, GenRecError
from recbole_genrec.experiments.analysis import analyse
from recbole_genrec.experiments.ensemble import make_ensemble
from recbole_genrec.experiments.opening import load_result
from recbole_genrec.experiments.report import make_entries, write_report
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, load_data_and_model
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.report.ranks import UserRanks, ranks_folder
from recbole_genrec.report.runs import collect
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint
from recbole_genrec.training.collector import TensorCollector


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Results of our models and of RecBole's on the toy data."""
    folder = write_dataset(tmp_path_factory.mktemp("data"))
    shared = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "cache_dir": str(folder / "cache"),
        "epochs": 2,
    }
    tiger = {**TINY_OF["TIGER"], **shared, "score_type": "level", "beam_width": 20}
    timeline = {**TINY_OF["TimelineRec"], **shared, "learning_rate": 0.01}
    return {
        "TIGER": run_recbole_genrec("TIGER", "toy", config_dict=tiger),
        "with users": run_recbole_genrec("TIGER", "toy", config_dict={**tiger, "n_user_tokens": 7}),
        "TimelineRec": run_recbole_genrec("TimelineRec", "toy", config_dict=timeline),
        "SASRec": run_recbole_genrec(
            "SASRec", "toy", config_dict={**shared, "train_batch_size": 64}
        ),
        "LightGCN": run_recbole_genrec(
            "LightGCN", "toy", config_dict={**shared, "train_batch_size": 64}
        ),
        "folder": folder,
    }


@pytest.mark.parametrize("model", ["TIGER", "SASRec"])
def test_the_same_settings_give_the_metrics_of_the_run(run, model):
    again = evaluate(run[model]["checkpoint"], show_progress=False)
    assert again["test_result"] == run[model]["test_result"] and again["model"] == model
    assert again["report"].get("search") == run[model]["report"].get("search")


def test_metrics_of_popularity_count_all_training_rows(run, tmp_path):
    metrics = {"metrics": ["NDCG", "AveragePopularity", "TailPercentage"], "show_progress": False}
    again = evaluate(run["TimelineRec"]["checkpoint"], **metrics)["test_result"]
    shared = {
        **TINY_OF["TimelineRec"],
        "data_path": str(run["folder"]),
        "cache_dir": str(tmp_path),
        "learning_rate": 0.01,
        "epochs": 2,
    }
    fresh = run_recbole_genrec(
        "TimelineRec", "toy", config_dict={**shared, "checkpoint_dir": str(tmp_path), **metrics}
    )["test_result"]
    assert again == pytest.approx(fresh)
    config, _, _, train, *_ = load_data_and_model(run["TimelineRec"]["checkpoint"])
    collector = TensorCollector({**config.final_config_dict, **metrics})
    collector.data_collect(train)
    counts = collector.data_struct.get("data.count_items")
    # a general model sees every training interaction as a row
    plain = GenRecConfig("Pop", "toy", config_dict={"data_path": str(run["folder"])})
    rows = make_loaders(plain, create_dataset(plain), False)[0].dataset
    assert (
        config["train_rows"] == "longest"
        and len(train._dataset) < len(rows)
        and counts == rows.item_counter
    )


def test_lists_longer_than_the_catalogue_and_misspelt_keys(run):
    with pytest.raises(ConfigError, match="asks for more items than the 40"):
        evaluate(run["TIGER"]["checkpoint"], topk=[41], beam_width=50, show_progress=False)
    with pytest.raises(ConfigError, match="beamwidth cannot be changed .*Did you mean beam_width"):
        evaluate(run["TIGER"]["checkpoint"], beamwidth=50)


def test_another_search(run):
    exact = evaluate(run["TIGER"]["checkpoint"], score_mode="exact", show_progress=False)
    wide = evaluate(run["TIGER"]["checkpoint"], beam_width=40, show_progress=False)  # all items
    assert exact["test_result"] == pytest.approx(wide["test_result"])
    loose = evaluate(run["TIGER"]["checkpoint"], constraint="level", show_progress=False)
    assert (
        loose["report"]["search"]["invalid_beams"] > 0
        and wide["report"]["search"]["invalid_beams"] == 0
    )


@pytest.fixture(scope="module")
def reordered(run, tmp_path_factory):
    """The same interactions in other lines: RecBole numbers users and items otherwise."""
    folder = write_dataset(tmp_path_factory.mktemp("reordered"))
    file = folder / "toy" / "toy.inter"
    header, *rows = file.read_text().splitlines()
    file.write_text(
        "\n".join([header, *(rows[n] for n in np.random.default_rng(1).permutation(len(rows)))])
        + "\n"
    )
    return folder


def numbers(folder):
    """Raw ids by the numbers that RecBole gives them on its own."""
    config = GenRecConfig("SASRec", "toy", config_dict={"data_path": str(folder)})
    return create_dataset(config).field2id_token


@pytest.mark.parametrize("model", ["TIGER", "with users", "TimelineRec"])
def test_a_checkpoint_follows_raw_ids(run, reordered, model):
    checkpoint = run[model]["checkpoint"]
    ids = [numbers(folder) for folder in (run["folder"], reordered)]
    assert any(list(ids[0][field]) != list(ids[1][field]) for field in ("user_id", "item_id"))
    again = evaluate(checkpoint, data_path=str(reordered), show_progress=False)["test_result"]
    assert again == pytest.approx(run[model]["test_result"], abs=1e-5)
    mine, other = [
        load_data_and_model(checkpoint, data_path=str(folder))[1]
        for folder in (run["folder"], reordered)
    ]
    for user in ("u3", "u17", "u40"):
        best = {row["item"]: row["score"] for row in other.recommend(["i3", "i9"], k=40, user=user)}
        assert best == pytest.approx(
            {row["item"]: row["score"] for row in mine.recommend(["i3", "i9"], k=40, user=user)},
            abs=1e-5,
        )


@pytest.mark.parametrize("model", ["SASRec", "LightGCN"])
def test_vectors_of_recboles_numbers_follow_raw_ids_too(run, reordered, model):
    again = evaluate(run[model]["checkpoint"], data_path=str(reordered), show_progress=False)
    assert again["test_result"] == pytest.approx(run[model]["test_result"], abs=1e-5)


@pytest.mark.parametrize("model", ["SASRec", "LightGCN"])
def test_models_of_recbole_have_no_vectors_of_new_items(run, tmp_path, model):
    folder = write_dataset(tmp_path)
    with (folder / "toy" / "toy.inter").open("a") as file:
        file.write("u1\tbrand-new\t99\n")
    with pytest.raises(ArtefactError, match="The items of toy are others than .*train the model"):
        evaluate(run[model]["checkpoint"], data_path=str(folder), show_progress=False)


def test_users_count_where_a_model_has_vectors_of_them():
    tokens = {"i": ["[PAD]", "i1"], "u": ["[PAD]", "u1", "u2"]}
    data = SimpleNamespace(iid_field="i", uid_field="u", field2id_token=tokens, dataset_name="toy")
    stored = {"items": ["[PAD]", "i1"], "users": ["[PAD]", "u1"]}
    check_same_ids(stored, data, ["items"])
    with pytest.raises(ArtefactError, match="The users of toy are others than those of the data"):
        check_same_ids(stored, data, ["items", "users"])


def test_other_figures_than_the_one_that_was_validated(run):
    assert set(
        evaluate(run["TIGER"]["checkpoint"], topk=[3], metrics=["MRR"], show_progress=False)[
            "test_result"
        ]
    ) == {"mrr@3"}


def test_a_key_of_the_model_alone_is_a_change_like_any_other(run):
    changes = {"SASRec.topk": [3], "SASRec.metrics": ["MRR"]}
    assert set(evaluate(run["SASRec"]["checkpoint"], **changes)["test_result"]) == {"mrr@3"}


def test_a_test_of_other_metrics_has_its_report(run, tmp_path):
    for number, name in enumerate(("metrics", "SASRec.metrics")):
        file = tmp_path / f"{number}.json"
        evaluate(run["SASRec"]["checkpoint"], result_file=file, **{name: ["MRR"]})
        lists = make_entries(collect([str(file)])[0])[0].analysis.lists
        assert {"mrr@10", "recall@10"} <= lists.metrics.keys()


def test_a_test_needs_neither_the_optimiser_nor_the_folder_of_the_training(run, tmp_path):
    (tmp_path / "file").touch()
    state = load_checkpoint(run["SASRec"]["checkpoint"])
    del state["format"]
    state["config"] |= {"learner": "adamw8bit", "checkpoint_dir": str(tmp_path / "file" / "saved")}
    save_checkpoint("moved.pth", state)
    assert evaluate("moved.pth")["test_result"] == run["SASRec"]["test_result"]
    shutil.rmtree("log_tensorboard")
    Path("log_tensorboard").touch()
    with pytest.raises(GenRecError, match="log_tensorboard.* cannot be read or written"):
        evaluate("moved.pth")


def test_data_with_an_item_that_the_model_cannot_take_in(run, tmp_path):
    shutil.copytree(run["folder"] / "toy", tmp_path / "data" / "toy")
    with (tmp_path / "data" / "toy" / "toy.inter").open("a") as rows:
        rows.write("u1\twithout-text\t9999999999\n")
    checkpoint = run["TIGER"]["checkpoint"]
    changes = {"data_path": str(tmp_path / "data")}
    for use in (
        lambda: evaluate(checkpoint, **changes),
        lambda: analyse(checkpoint, **changes),
        lambda: make_ensemble([checkpoint] * 2, tmp_path / "both.json", **changes),
    ):
        with pytest.raises(ArtefactError, match="1 items that .* could not add without training"):
            use()


def test_a_checkpoint_with_added_items_is_not_tested(run, tmp_path):
    model = load_data_and_model(run["TimelineRec"]["checkpoint"])[1]
    model.add_items(["soft new soap"])
    model.save(tmp_path / "more.pth")
    assert len(load_data_and_model(tmp_path / "more.pth")[1].codes) == len(model.codes)
    with pytest.raises(ArtefactError, match=r"holds items that add_items added \(1\)"):
        evaluate(tmp_path / "more.pth", show_progress=False)
    for texts in ("red soap", [5], {"n1": "red soap"}, (text for text in ["red soap"])):
        with pytest.raises(ConfigError, match="texts must be a list with one text an item"):
            model.add_items(texts)
    with pytest.raises(ConfigError, match="history must be a list of item ids, got 'i1'"):
        model.recommend("i1")
    with pytest.raises(ConfigError, match="candidates is empty"):
        model.recommend(["i1"], candidates=[])


@pytest.mark.parametrize("model", ["TIGER", "SASRec", "LightGCN"])
def test_a_later_test_keeps_ranks_and_stands_in_a_table_with_its_run(run, tmp_path, model):
    checkpoint = Path(run[model]["checkpoint"])
    results = {}
    for masked in (False, True):
        file = tmp_path / f"{masked}.json"
        results[masked] = evaluate(
            str(checkpoint), result_file=file, exclude_history=masked, show_progress=False
        )
        assert load_result(file) == json.loads(json.dumps(results[masked]))
        ranks = UserRanks.load(ranks_folder(file))
        for metric, value in results[masked]["test_result"].items():
            mean = np.mean(list(ranks.by_case(metric).values()))
            assert mean == pytest.approx(value, abs=1e-6)
    of_run = UserRanks.load(ranks_folder(checkpoint.with_suffix(".json")))
    of_test = UserRanks.load(tmp_path / "False.ranks")
    assert of_test.by_case("ndcg@10") == of_run.by_case("ndcg@10")

    lines = make_leaderboard([str(tmp_path / "True.json")]).splitlines()
    ndcg = f"{results[True]['test_result']['ndcg@10']:.4f}"
    assert any(ndcg in line for line in lines)
    page = write_report([tmp_path / "True.json"]).read_text()
    assert ndcg in page and "exclude_history=True" in page
    assert "This is a test after the training" in page
    shown = make_entries(collect([str(tmp_path / "True.json")])[0])[0]
    assert shown.analysis.ranks.by_case("ndcg@10") == shown.ranks.by_case("ndcg@10")


def test_ranks_need_a_result_file_and_ranked_lists(run, tmp_path):
    checkpoint = run["TIGER"]["checkpoint"]
    with pytest.raises(ConfigError, match="save_ranks stores ranks beside a result file"):
        evaluate(checkpoint, save_ranks=True)
    file = tmp_path / "none.json"
    result = evaluate(checkpoint, result_file=file, save_ranks=False, show_progress=False)
    assert result["ranks"] is None and not ranks_folder(file).exists()


def test_what_the_weights_depend_on_cannot_change(run):
    with pytest.raises(ConfigError, match="learning_rate cannot be changed for a trained model"):
        evaluate(run["TIGER"]["checkpoint"], learning_rate=0.1)
    with pytest.raises(ConfigError, match="beam_width"):
        evaluate(run["TIGER"]["checkpoint"], beam_width=5)


def test_the_command(run, tmp_path, capsys):
    checkpoint = run["TIGER"]["checkpoint"]
    assert (
        main(
            [
                "evaluate",
                f"--checkpoint={checkpoint}",
                "--topk=[5,10]",
                "--show_progress=False",
                f"--result_file={tmp_path / 'r.json'}",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "| TIGER |" in printed and "certified@5" in printed
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["changes"]["topk"] == [5, 10] and set(stored["test_result"]) == {
        "recall@5",
        "recall@10",
        "ndcg@5",
        "ndcg@10",
    }
    assert (
        main(["evaluate", "--beam_width=20"]) == 2 and "--checkpoint=F" in capsys.readouterr().err
    )
    assert main(["evaluate", f"--checkpoint={tmp_path / 'none.pth'}"]) == 2
