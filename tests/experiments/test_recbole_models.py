"""RecBole's own models through our entry point: one protocol, the numbers they should have,
resume, safe files.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, load_data_and_model
from recbole_genrec.model.baselines.lightgcn import LightGCN
from recbole_genrec.model.registry import get_model_class
from recbole_genrec.report.outcome import outcome
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.trainer import GenRecTrainer
from recbole_genrec.training.trainer_class import get_trainer_class

MODELS = ("SASRec", "BERT4Rec", "GRU4Rec", "Pop", "LightGCN")
SLICE = {
    "user_inter_num_interval": "[20,26]",
    "MAX_ITEM_LIST_LENGTH": 10,
    "gpu_id": "",
    "show_progress": False,
    "epochs": 2,
}
DIVERSITY = ["ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage", "ShannonEntropy"]
TINY = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}
WIDTHS = {
    **{f"{name}.{key}": value for name in ("SASRec", "BERT4Rec") for key, value in TINY.items()},
    "GRU4Rec.hidden_size": 8,
    "GRU4Rec.embedding_size": 8,
    "LightGCN.embedding_size": 8,
    "LightGCN.learning_rate": 0.05,
}


def train(model, **changes):
    return run_recbole_genrec(model, "ml-100k", config_dict={**SLICE, **WIDTHS, **changes})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train(
            ",".join(MODELS),
            checkpoint_dir=str(folder / "saved"),
            metrics=["Recall", "NDCG", *DIVERSITY],
        )


@pytest.fixture(scope="module")
def restored(runs):
    """``name -> (config, model, dataset, train, valid, test)`` from the checkpoints."""
    return {name: load_data_and_model(runs[name]["checkpoint"]) for name in MODELS}


def trainer_of(restored):
    """A trainer that tests a restored model; RecBole counts the training items (for the
    diversity metrics) in ``fit`` only.
    """
    config, model, _, train, *_ = restored
    trainer = get_trainer_class(type(model), config["model"])(config, model)
    trainer.eval_collector.data_collect(train)
    return trainer


@pytest.mark.parametrize("name", ["SASRec", "LightGCN"])
def test_a_checkpoint_is_tested_again_by_metrics_of_popularity(runs, name):
    assert (
        evaluate(runs[name]["checkpoint"], show_progress=False)["test_result"]
        == runs[name]["test_result"]
    )


def scores_and_targets(restored, which=-1):
    """Full-sort scores float64 ``[users, items]`` without the padding item, targets, and (user,
    target) pairs of raw ids.
    """
    config, model, dataset, *loaders = restored
    scores, targets, pairs = [], [], []
    for batch, history, row, target in loaders[which]:
        assert history is None or len(history[0]) == 0  # nothing is masked
        with torch.no_grad():
            scores.append(
                model.full_sort_predict(batch).view(-1, dataset.item_num).double().numpy()[row]
            )
        targets.append(target.numpy())
        users = dataset.id2token("user_id", batch["user_id"][row].numpy())
        pairs += zip(users, dataset.id2token("item_id", target.numpy()), strict=True)
    scores = np.concatenate(scores)
    scores[:, 0] = -np.inf
    return scores, np.concatenate(targets), pairs


# --- the run --------------------------------------------------------------------------------------


def test_several_models_in_one_call_give_one_table(runs):
    assert tuple(runs) == MODELS
    table = outcome(runs).markdown().partition("\n\n")[0]
    header, _, *rows = table.splitlines()
    headings = [cell.strip() for cell in header.split("|")]
    assert headings[1:6] == ["model", "recall@5", "recall@10", "recall@20", "ndcg@5"]
    assert [row.split("|")[1].strip() for row in rows] == list(MODELS)
    assert [float(row.split("|")[2].strip("* ")) for row in rows] == [
        round(runs[name]["test_result"]["recall@5"], 4) for name in MODELS
    ]


def test_folders_are_there_before_recbole_looks(monkeypatch, tmp_path):
    """RecBole's look-and-make fails when two runs that start together look at the same time."""
    monkeypatch.chdir(tmp_path)
    looked = []
    for module in ("recbole.utils.logger", "recbole.trainer.trainer"):
        monkeypatch.setattr(
            f"{module}.ensure_dir",
            lambda folder: (
                looked.append(Path(folder)) or Path(folder).is_dir() or pytest.fail(folder)
            ),
        )
    train("Pop")
    assert {Path("saved"), Path("log/Pop")} <= set(looked)


def test_all_settings_are_checked_before_the_first_training():
    with pytest.raises(ConfigError, match="Unknown key 'hiden_size' for SASRec"):
        train("Pop,SASRec", **{"SASRec.hiden_size": 8})
    assert not Path("saved").exists()


@pytest.mark.parametrize("name", MODELS)
def test_train_save_load_test(runs, restored, name):
    result = runs[name]
    checkpoint = torch.load(result["checkpoint"], weights_only=True)
    validated = [epoch for epoch in result["epochs"] if "valid" in epoch]
    best = max(validated, key=lambda epoch: (epoch["valid"]["ndcg@10"], epoch["epoch"]))
    assert checkpoint["epoch"] == best["epoch"] and result["best_valid_result"] == best["valid"]
    assert len(result["epochs"]) == (1 if name == "Pop" else 2)
    trainer = trainer_of(restored[name])
    assert trainer.evaluate(restored[name][-1], load_best_model=False) == result["test_result"]
    assert Path(trainer.saved_model_file) == Path(
        result["checkpoint"]
    )  # the rebuilt configuration names the same run


def test_all_models_see_the_same_held_out_pairs(restored):
    for which in (-1, -2):
        pairs = {name: sorted(scores_and_targets(restored[name], which)[2]) for name in MODELS}
        assert len(pairs["Pop"]) == 156 and all(found == pairs["Pop"] for found in pairs.values())


@pytest.mark.parametrize("name", ["SASRec", "BERT4Rec", "GRU4Rec", "LightGCN"])
def test_recall_and_ndcg_equal_their_definitions(runs, restored, name):
    scores, targets, _ = scores_and_targets(restored[name])
    rank = 1 + (scores > scores[np.arange(len(targets)), targets][:, None]).sum(1)
    for k in (5, 10, 20):
        hit = rank <= k
        assert runs[name]["test_result"][f"recall@{k}"] == pytest.approx(hit.mean(), abs=1e-6)
        assert runs[name]["test_result"][f"ndcg@{k}"] == pytest.approx(
            (hit / np.log2(rank + 1)).mean(), abs=1e-6
        )


@pytest.mark.parametrize("name", ["SASRec", "LightGCN"])
def test_diversity_metrics_equal_their_definitions(runs, restored, name):
    *_, dataset, _, _, _ = restored[name]
    scores, _, _ = scores_and_targets(restored[name])
    # A general model's rows are all training interactions; they count for every model.
    of_all_rows = restored["LightGCN"][3]._dataset
    tokens = of_all_rows.id2token("item_id", of_all_rows.inter_feat["item_id"].numpy())
    counts = Counter(dataset.token2id("item_id", tokens).tolist())
    n_items = dataset.item_num - 1  # without the padding item
    result = runs[name]["test_result"]
    for k in (5, 10, 20):
        top = np.argsort(-scores, axis=1)[:, :k]
        shown = np.bincount(top.ravel(), minlength=dataset.item_num)
        assert result[f"itemcoverage@{k}"] == pytest.approx((shown > 0).sum() / n_items, abs=1e-6)
        assert result[f"averagepopularity@{k}"] == pytest.approx(
            np.mean([[counts[i] for i in row] for row in top]), abs=1e-6
        )
        ordered = np.sort(
            shown[shown > 0]
        )  # RecBole leaves out zero counts and numbers from the end
        place = np.arange(n_items - len(ordered) + 1, n_items + 1)
        gini = ((2 * place - n_items - 1) * ordered).sum() / n_items / top.size
        assert result[f"giniindex@{k}"] == pytest.approx(gini, abs=1e-6)
        assert 0 <= result[f"tailpercentage@{k}"] <= 1 and result[f"shannonentropy@{k}"] > 0


def test_pop_counts_training_interactions_only(restored):
    _, model, dataset, train, *_ = restored["Pop"]
    expected = torch.bincount(train._dataset.inter_feat["item_id"], minlength=dataset.item_num)
    assert torch.equal(model.item_cnt.flatten(), expected)


def test_the_same_seed_gives_the_same_numbers(runs):
    again, other = train("SASRec"), train("SASRec", seed=1)
    assert again["test_result"].items() <= runs["SASRec"]["test_result"].items()
    assert [epoch["loss"] for epoch in again["epochs"]] == [
        epoch["loss"] for epoch in runs["SASRec"]["epochs"]
    ]
    assert [epoch["loss"] for epoch in other["epochs"]] != [
        epoch["loss"] for epoch in runs["SASRec"]["epochs"]
    ]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("model", "place", "call"),
    [
        ("SASRec", "_optimiser_step", 9),
        ("GRU4Rec", "_valid_epoch", 2),
        ("LightGCN", "_optimiser_step", 4),
    ],
)
def test_an_interrupted_run_continues_exactly(monkeypatch, model, place, call):
    whole = train(model, checkpoint_dir="whole", epochs=3, valid_users=100)
    stock, calls = getattr(GenRecTrainer, place), []

    def killed(self, *args, **kwargs):
        calls.append(0)
        if len(calls) == call:  # within the second or third epoch
            raise Killed
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(GenRecTrainer, place, killed)
    with pytest.raises(Killed):
        train(model, checkpoint_dir="cut", epochs=3, valid_users=100)
    monkeypatch.undo()
    assert 0 < load_checkpoint(next(Path("cut").glob("*.resume.pth")))["epoch"] < 3
    resumed = train(model, checkpoint_dir="cut", epochs=3, valid_users=100, resume=True)
    assert resumed["test_result"] == whole["test_result"] and resumed["epochs"] == whole["epochs"]
    assert resumed["best_valid_score"] == whole["best_valid_score"]


def test_a_loss_that_is_no_number_stops_the_run(monkeypatch):
    network = get_model_class("SASRec")
    monkeypatch.setattr(
        network, "calculate_loss", lambda self, _: self.item_embedding.weight.sum() * float("nan")
    )
    with pytest.raises(
        GenRecError, match=r"training loss is nan in epoch 0, batch 0, at learning rate 0\.001"
    ):
        train("SASRec")


# --- LightGCN -------------------------------------------------------------------------------------


def test_lightgcn_normalises_the_graph_as_published():
    draw = np.random.default_rng(0)
    users, items = (
        draw.integers(1, 7, 60),
        draw.integers(1, 9, 60),
    )  # with repeated pairs; user 0 and item 0 are padding
    stub = SimpleNamespace(
        interaction_matrix=sp.coo_matrix((np.ones(60, np.float32), (users, items)), shape=(8, 10)),
        n_users=8,
        n_items=10,
    )
    found = LightGCN.get_norm_adj_mat(stub)
    dense = np.zeros((18, 18))
    dense[users, items + 8] = dense[items + 8, users] = 1
    scale = (dense.sum(1) + 1e-7) ** -0.5
    expected = np.diag(scale) @ dense @ np.diag(scale)
    assert (
        found.dtype == torch.float32
        and found.is_coalesced()
        and len(set(zip(users, items, strict=True))) < 60
    )
    assert np.abs(found.to_dense().numpy() - expected.astype(np.float32)).max() <= 1e-8


def test_lightgcn_is_tested_with_the_embeddings_of_its_best_epoch(runs, restored):
    _, model, *_, test = restored["LightGCN"]
    model.restore_user_e = torch.zeros_like(model.restore_user_e)  # as another epoch left them
    assert (
        trainer_of(restored["LightGCN"]).evaluate(test, model_file=runs["LightGCN"]["checkpoint"])
        == runs["LightGCN"]["test_result"]
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_scores_stay_float32(precision, monkeypatch):
    seen = []
    monkeypatch.setattr(
        GenRecTrainer, "_full_sort_batch_eval", spy(GenRecTrainer._full_sort_batch_eval, seen)
    )
    for name in ("SASRec", "LightGCN", "LightGCNDot"):
        result = train(name, precision=precision, epochs=1, graph_epochs=1)
        assert 0 <= result["test_result"]["ndcg@10"] <= 1
    assert set(seen) == {torch.float32}


def spy(call, seen):
    def wrapped(self, batch):
        found = call(self, batch)
        seen.append(found[1].dtype)
        return found

    return wrapped
