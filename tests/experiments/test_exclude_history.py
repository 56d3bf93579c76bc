"""exclude_history for every model: metrics, lists, recommendations and tables."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
import torch
from toy import TINY_OF, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, load_data_and_model, recommend
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.storage.artefacts import write_json

SASREC = {"hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_heads": 1}
PLAIN = {
    "epochs": 1,
    "MAX_ITEM_LIST_LENGTH": 3,
    "topk": [5, 10],
    "show_progress": False,
    "gpu_id": "",
    "metrics": ["Recall", "NDCG", "GAUC"],
}
MODELS = {
    "SASRec": SASREC,
    "Pop": {},
    "BPR": {"embedding_size": 8},
    "LightGCN": {"embedding_size": 8},
    "TimelineRec": {**TINY_OF["TimelineRec"], "score_mode": "exact"},
    "TokenRec": TINY_OF["TokenRec"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=40)


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """A run of each model, trained and validated with all items."""
    results = {}

    def run(model):
        if model not in results:
            place = tmp_path_factory.mktemp("runs")
            results[model] = run_recbole_genrec(
                model, "toy", config_dict=settings(folder, place, model)
            )
        return results[model]

    return run


def settings(folder, place, model, **changes):
    return {
        **MODELS[model],
        **PLAIN,
        "data_path": str(folder),
        "checkpoint_dir": str(place),
        "cache_dir": str(place),
        "result_file": str(place / f"{model}.json"),
        **changes,
    }


def sequences(folder) -> dict[str, list[str]]:
    items = defaultdict(list)
    for line in (folder / "toy" / "toy.inter").read_text().splitlines()[1:]:
        user, item, _ = line.split("\t")
        items[user].append(item)
    return items


def ranks_without_history(checkpoint, folder, ties=0) -> tuple[list[float], list[float]]:
    """Rank of each user's last item (inf = in the history), and the number of items left over.

    Equal scores stand behind the item, or before it with ``ties=1``.
    """
    config, model, dataset, *_, test = load_data_and_model(checkpoint)
    known = sequences(folder)
    ranks, counts = [], []
    for interaction, _, rows, targets in test:
        with torch.no_grad():
            scores = model.full_sort_predict(interaction).view(-1, dataset.item_num)
        users = dataset.id2token("user_id", interaction["user_id"].numpy())
        for row, target in zip(rows.tolist(), targets.tolist(), strict=True):
            history = set(dataset.token2id("item_id", known[users[row]][:-1]).tolist())
            left = [item for item in range(1, dataset.item_num) if item not in history]
            counts.append(len(left))
            if target in history:
                ranks.append(math.inf)
            else:
                better = sum(bool(scores[row, item] > scores[row, target]) for item in left)
                equal = sum(bool(scores[row, item] == scores[row, target]) for item in left) - 1
                ranks.append(better + ties * equal + 1)
    return ranks, counts


def test_the_list_of_popular_items_is_without_the_history(runs, folder):
    """Many scores are equal, so the hits lie between those of two orders."""
    checkpoint = runs("Pop")["checkpoint"]
    best, _ = ranks_without_history(checkpoint, folder)
    worst, _ = ranks_without_history(checkpoint, folder, ties=1)
    again = evaluate(checkpoint, exclude_history=True, show_progress=False)
    assert again["unreachable_targets"]["test"] == best.count(math.inf) > 0
    for k in (5, 10):
        most, least = (sum(rank <= k for rank in ranks) / len(ranks) for ranks in (best, worst))
        assert least - 1e-6 <= again["test_result"][f"recall@{k}"] <= most + 1e-6
    assert worst != best


@pytest.mark.parametrize("model", [name for name in MODELS if name != "Pop"])
def test_metrics_are_those_of_lists_without_the_history(runs, folder, model):
    result = runs(model)
    assert result["history_masked"] is False and result["unreachable_targets"] is None
    ranks, counts = ranks_without_history(result["checkpoint"], folder)
    again = evaluate(result["checkpoint"], exclude_history=True, show_progress=False)
    assert again["history_masked"] is True
    assert again["unreachable_targets"]["test"] == ranks.count(math.inf) > 0
    for k in (5, 10):
        hits = [rank <= k for rank in ranks]
        gains = [1 / math.log2(rank + 1) if rank <= k else 0.0 for rank in ranks]
        metrics = again["test_result"]
        assert metrics[f"recall@{k}"] == pytest.approx(sum(hits) / len(hits), abs=2e-6)
        assert metrics[f"ndcg@{k}"] == pytest.approx(sum(gains) / len(gains), abs=2e-6)
    pairs = zip(ranks, counts, strict=True)
    areas = [0.0 if rank == math.inf else (n - rank) / (n - 1) for rank, n in pairs]
    assert again["test_result"]["gauc"] == pytest.approx(sum(areas) / len(areas), abs=1e-5)
    assert evaluate(result["checkpoint"], show_progress=False)["test_result"] == (
        pytest.approx(result["test_result"])
    )


@pytest.mark.parametrize("model", ["TimelineRec", "TokenRec"])
def test_recommendations_hold_no_item_of_the_whole_history(runs, folder, model):
    checkpoint = runs(model)["checkpoint"]
    user, items = max(sequences(folder).items(), key=lambda pair: len(set(pair[1])))
    assert len(set(items)) > PLAIN["MAX_ITEM_LIST_LENGTH"] + 1
    everything = recommend(checkpoint, user=user, k=40)
    expected = [row for row in everything if row["item"] not in items]
    for arguments in ({"user": user}, {"history": items}):
        if model == "TokenRec" and "history" in arguments:
            everything = recommend(checkpoint, history=items, k=40)
            expected = [row for row in everything if row["item"] not in items]
        rows = recommend(checkpoint, k=40, exclude_history=True, **arguments)
        assert [row["item"] for row in rows] == [row["item"] for row in expected]
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected])
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))


def test_beams_and_the_exact_search_agree_on_full_lists(runs, folder):
    checkpoint = runs("TimelineRec")["checkpoint"]
    exact = evaluate(checkpoint, exclude_history=True, metrics=["Recall"], show_progress=False)
    for changes in ({"beam_width": 40}, {"beam_width": "auto", "uncertified": "exact"}):
        beams = evaluate(
            checkpoint,
            exclude_history=True,
            score_mode="beam",
            metrics=["Recall"],
            show_progress=False,
            **changes,
        )
        assert beams["test_result"] == exact["test_result"]
        assert beams["report"]["search"]["certified@10"] == 1
        assert beams["report"]["search"]["unfilled"] == 0


def test_validation_is_without_the_history_too(folder, tmp_path):
    result = run_recbole_genrec(
        "SASRec", "toy", config_dict=settings(folder, tmp_path, "SASRec", exclude_history=True)
    )
    assert result["history_masked"] is True
    _, model, dataset, _, valid, _ = load_data_and_model(result["checkpoint"])
    interaction, (rows, items), *_ = next(iter(valid))
    known = sequences(folder)
    users = dataset.id2token("user_id", interaction["user_id"].numpy())
    for row, user in enumerate(users):
        left_out = set(dataset.id2token("item_id", items[rows == row].numpy()))
        assert left_out == set(known[user][:-2])
    assert result["best_valid_result"]["gauc"] > 0


def test_a_table_never_mixes_the_two(runs, folder, tmp_path):
    with pytest.raises(ConfigError, match="masked for SASRec alone.*exclude_history for all"):
        run_recbole_genrec(
            "SASRec,Pop", "toy", config_dict={"SASRec.exclude_history": True, **PLAIN}
        )
    masked = run_recbole_genrec(
        "Pop", "toy", config_dict=settings(folder, tmp_path, "Pop", exclude_history=True)
    )
    plain = {**runs("SASRec"), "config": {**runs("SASRec")["config"]}}
    del plain["config"]["exclude_history"]  # a result of an earlier version
    for name, result in (("a", plain), ("b", masked)):
        write_json(tmp_path / "table" / f"{name}.json", result)
    with pytest.raises(ConfigError, match=r"differ in exclude_history \(False and True\)"):
        make_leaderboard([tmp_path / "table"])
    (tmp_path / "table" / "b.json").unlink()
    assert "history masked: no" in make_leaderboard([tmp_path / "table"])
    assert "history masked: yes" in make_leaderboard([tmp_path / "Pop.json"])


def test_ratio_splits_do_not_mix_sequential_and_general_models():
    args = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"}
    with pytest.raises(ConfigError, match="SASRec is tested on each of them.*Pop once"):
        run_recbole_genrec("SASRec,Pop", "ml-100k", config_dict={"eval_args": args})


def test_sampled_evaluation_is_refused(folder, tmp_path):
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni20"}
    changes = {"exclude_history": True, "eval_args": args}
    with pytest.raises(ConfigError, match="needs eval_args with mode: full"):
        run_recbole_genrec("Pop", "toy", config_dict=settings(folder, tmp_path, "Pop", **changes))


def test_the_older_name_of_the_key(runs):
    checkpoint = runs("TokenRec")["checkpoint"]
    one = evaluate(checkpoint, exclude_history=True, show_progress=False)
    other = evaluate(checkpoint, mask_history=True, show_progress=False)
    assert one["test_result"] == other["test_result"] and other["history_masked"] is True
    with pytest.raises(ConfigError, match="contradict"):
        evaluate(checkpoint, mask_history=True, exclude_history=False)


def test_metrics_of_whole_rankings_need_the_exact_search(folder, tmp_path):
    for changes in ({"score_mode": "beam"}, {"score_mode": "beam", "beam_width": "auto"}):
        with pytest.raises(ConfigError, match="GAUC judges the whole ranking.*score_mode: exact"):
            run_recbole_genrec(
                "TimelineRec",
                "toy",
                config_dict=settings(folder, tmp_path, "TimelineRec", **changes),
            )


def test_without_validation(runs, folder, tmp_path):
    """With eval_step: 0 nothing is validated; the test leaves the histories out all the same."""
    for split in ("valid_and_test", "test_only"):
        args = {"split": {"LS": split}, "order": "TO", "mode": "full"}
        changes = {"exclude_history": True, "eval_step": 0, "eval_args": args}
        place = tmp_path / split
        result = run_recbole_genrec(
            "SASRec", "toy", config_dict=settings(folder, place, "SASRec", **changes)
        )
        assert result["history_masked"] is True and result["best_valid_result"] is None
        expected = {"test"} | ({"valid"} if split == "valid_and_test" else set())
        assert set(result["unreachable_targets"]) == expected
        ranks, _ = ranks_without_history(result["checkpoint"], folder)
        hits = sum(rank <= 10 for rank in ranks) / len(ranks)
        assert result["test_result"]["recall@10"] == pytest.approx(hits, abs=2e-6)
        again = evaluate(result["checkpoint"], exclude_history=False, show_progress=False)
        assert again["history_masked"] is False and again["unreachable_targets"] is None


def test_training_on_everything_stands_in_no_table(folder, tmp_path):
    alone = run_recbole_genrec(
        "Pop", "toy", config_dict=settings(folder, tmp_path, "Pop", hold_out=False)
    )
    assert alone["test_result"] == {} and alone["unreachable_targets"] is None
    with pytest.raises(ConfigError, match="hold_out: False trains Pop on every interaction"):
        make_leaderboard([tmp_path / "Pop.json"])
    with pytest.raises(ConfigError, match="hold_out: False trains SASRec, Pop on every"):
        run_recbole_genrec("SASRec,Pop", "toy", config_dict={"hold_out": False, **PLAIN})
