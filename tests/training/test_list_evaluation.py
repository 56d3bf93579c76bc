"""Evaluations on ranked lists: the metrics of RecBole's scores of all items, without these."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from toy import SMALL, TINY_OF, toy_config, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.model import base
from recbole_genrec.model.registry import build_model, is_generative
from recbole_genrec.model.search.code_search import CodeSearch
from recbole_genrec.report.ranks import ranks_from_hits
from recbole_genrec.training import list_evaluation
from recbole_genrec.training.collector import TensorCollector
from recbole_genrec.training.list_evaluation import hits_in, ranked_lists
from recbole_genrec.training.trainer_class import get_trainer_class

METRICS = ["Recall", "NDCG", "MRR", "MAP", "Hit", "Precision"]
OF_THE_CATALOGUE = ["ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage"]
RECBOLE = {
    "SASRec": {"hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_heads": 1},
    "BPR": {"embedding_size": 8},
    "LightGCN": {"embedding_size": 8},
}
SHORT = {"tokenizer_epochs": 1, "graph_epochs": 1, "epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


class Evaluations:
    """Evaluations of one untrained model with and without scores of all items."""

    def __init__(self, folder, place, model, **changes):
        values = {**TINY_OF.get(model, {**SMALL, **RECBOLE.get(model, {})}), **SHORT, **changes}
        values |= {"data_path": str(folder), "checkpoint_dir": str(place), "cache_dir": str(place)}
        values.setdefault("metrics", METRICS + OF_THE_CATALOGUE)
        self.config = GenRecConfig(model, "toy", config_dict=values)
        dataset = create_dataset(self.config)
        ours = is_generative(self.config.model_class)
        self.train, self.valid, self.test = make_loaders(self.config, dataset, ours)
        torch.manual_seed(0)
        self.model = build_model(self.config, self.train._dataset)
        trainer_class = get_trainer_class(self.config.model_class, model)
        self.trainer = trainer_class(self.config, self.model)
        self.trainer.eval_collector.data_collect(self.train)

    def metrics(self, dense, loader=None):
        self.config["dense_scores"] = dense
        loader = self.test if loader is None else loader
        return self.trainer.evaluate(loader, load_best_model=False)

    def both(self, loader=None):
        """Metrics, hits and search statistics of both ways."""
        ways = []
        for dense in (True, False):
            metrics = self.metrics(dense, loader)
            log = str(getattr(self.model, "search_log", ""))
            collector = self.trainer.eval_collector
            ways.append((metrics, collector.hits, collector.lists, log))
        return ways


def check_equal(ways):
    (dense, hits, lists, log), (of_lists, hits_of_lists, lists_of_lists, log_of_lists) = ways
    assert of_lists == dense
    assert torch.equal(hits_of_lists, hits)
    assert hits_of_lists.dtype == hits.dtype
    assert torch.equal(lists_of_lists, lists)
    assert log_of_lists == log
    assert np.array_equal(ranks_from_hits(hits), ranks_from_hits(hits_of_lists))


@pytest.mark.parametrize("model", [*TINY_OF, *RECBOLE])
def test_lists_give_the_metrics_of_all_scores(folder, tmp_path, model):
    check_equal(Evaluations(folder, tmp_path, model).both())


@pytest.mark.parametrize("model", ["TIGER", "TimelineRec", "TokenRec", *RECBOLE])
def test_lists_without_the_history(folder, tmp_path, model):
    evaluations = Evaluations(folder, tmp_path, model, exclude_history=True)
    check_equal(evaluations.both())
    check_equal(evaluations.both(evaluations.valid))


SEARCHES = {
    "exact": {"score_mode": "exact"},
    "auto beam": {"beam_width": "auto", "beam_max": 16},
    "renormalised": {"score_type": "renormalised"},
    "any code": {"constraint": "level", "score_type": "level"},
    "stateless tree": {"depth": "none", "score_mode": "auto", "score_type": "renormalised"},
    "stateless beam": {"depth": "none", "score_mode": "beam", "score_type": "renormalised"},
    "flat": {"output": "items", "depth": "none", "score_mode": "auto", "item_parts": ["id"]},
    "one level": {"codebook_sizes": [4], "collision": ["none"]},
}


@pytest.mark.parametrize("name", SEARCHES)
def test_lists_of_every_search(folder, tmp_path, name):
    check_equal(Evaluations(folder, tmp_path, "TimelineRec", **SEARCHES[name]).both())


@pytest.mark.parametrize("exclude_history", [False, True])
def test_lists_among_candidates_hold_no_other_items(folder, tmp_path, exclude_history):
    file = tmp_path / "candidates.txt"
    file.write_text("\n".join(f"i{item}" for item in range(11)) + "\n")
    changes = {"candidate_file": str(file), "exclude_history": exclude_history}
    evaluations = Evaluations(folder, tmp_path, "TIGER", **changes)
    ways = evaluations.both()
    check_equal(ways)
    lists = ways[0][2]
    candidates = evaluations.model.item_ids([f"i{item}" for item in range(11)])
    assert set(lists.flatten().tolist()) <= {0, *candidates}
    if exclude_history:
        assert evaluations.model.search_log.shares()["unfilled"] > 0


@pytest.mark.parametrize("constraint", ["level", "slice"])
def test_items_that_no_beam_reached_are_no_hits(folder, tmp_path, constraint):
    """An independent count: the targets in the lists of the search."""
    settings = {"constraint": constraint, "score_type": "level", "beam_width": 10}
    evaluations = Evaluations(folder, tmp_path, "STORE", **settings)
    ways = evaluations.both()
    check_equal(ways)
    metrics, _, lists, _ = ways[0]
    assert (lists == 0).any()  # beams left the catalogue
    hits, users = 0, 0
    model = evaluations.model
    for batch, _, _, targets in evaluations.test:
        found = model.search(batch["item_id_list"], batch["item_length"], k=10).items[:, :10]
        hits += int((found == targets.unsqueeze(1)).any(1).sum())
        users += len(targets)
    assert metrics["recall@10"] == pytest.approx(hits / users, abs=1e-6)


def test_auto_takes_lists_of_large_catalogues_alone(folder, tmp_path, monkeypatch):
    evaluations = Evaluations(folder, tmp_path, "TIGER")
    calls = []
    monkeypatch.setattr(
        type(evaluations.model),
        "best_items",
        lambda self, *arguments: calls.append(1) or base.GenRecModel.best_items(self, *arguments),
    )
    small = evaluations.metrics("auto")
    assert not calls
    monkeypatch.setattr(list_evaluation, "LARGE_CATALOGUE", 10)
    assert evaluations.metrics("auto") == small
    assert calls


def test_metrics_of_the_whole_ranking_need_all_scores(folder, tmp_path, monkeypatch):
    evaluations = Evaluations(folder, tmp_path, "SASRec", metrics=["Recall", "NDCG", "GAUC"])
    monkeypatch.setattr(list_evaluation, "LARGE_CATALOGUE", 10)
    assert "gauc" in evaluations.metrics("auto")
    with pytest.raises(ConfigError, match="dense_scores: False"):
        evaluations.metrics(False)


@pytest.mark.parametrize("model", ["TokenRec", "TimelineRec"])
def test_few_users_are_scored_at_once_where_all_items_are(folder, tmp_path, monkeypatch, model):
    changes = {"score_mode": "exact"} if model == "TimelineRec" else {}
    evaluations = Evaluations(folder, tmp_path, model, **changes)
    expected = evaluations.metrics(True)
    monkeypatch.setattr(base, "MOST_SCORES", 3 * evaluations.model.n_items)
    rows = []
    scores = type(evaluations.model).scores
    monkeypatch.setattr(
        type(evaluations.model),
        "scores",
        lambda self, history, length, **user: (
            rows.append(len(length)) or scores(self, history, length, **user)
        ),
    )
    assert evaluations.metrics(False) == pytest.approx(expected)
    assert max(rows) == 3
    assert evaluations.model.list_options().batch_size == 3


def test_models_of_recbole_are_scored_in_pieces(folder, tmp_path, monkeypatch):
    for exclude_history in (False, True):
        evaluations = Evaluations(folder, tmp_path, "SASRec", exclude_history=exclude_history)
        expected = evaluations.metrics(True)
        monkeypatch.setattr(list_evaluation, "MOST_SCORES", 100)
        assert evaluations.metrics(False) == pytest.approx(expected)


class PairsOnly:
    """A model of RecBole that scores given pairs alone."""

    def full_sort_predict(self, interaction):
        raise NotImplementedError


def test_models_that_score_pairs_alone_are_left_to_recbole():
    batch = Interaction({"user_id": torch.arange(3)})
    with pytest.raises(NotImplementedError):
        ranked_lists(PairsOnly(), batch, None, 2, 5)


def test_hits_equal_those_of_a_matrix():
    """RecBole's way, recbole/evaluator/collector.py: a matrix of users and items."""
    generator = torch.Generator().manual_seed(0)
    n_users, n_items, k = 30, 25, 6
    lists = torch.stack([torch.randperm(n_items, generator=generator)[:k] for _ in range(n_users)])
    rows = torch.randint(n_users, (80,), generator=generator)
    targets = torch.randint(n_items, (80,), generator=generator)
    matrix = torch.zeros(n_users, n_items, dtype=torch.int)
    matrix[rows, targets] = 1
    expected = torch.cat([matrix.gather(1, lists), matrix.sum(1, keepdim=True)], dim=1)
    assert torch.equal(hits_in(lists, rows, targets, n_items), expected)


@pytest.mark.parametrize("metrics", [["Recall"], ["Recall", "GAUC"]])
def test_equal_scores_are_ranked_by_their_ids(folder, metrics):
    options = {"data_path": str(folder), "metrics": metrics, "topk": [10]}
    options["valid_metric"] = "Recall@10"
    config = GenRecConfig("SASRec", "toy", config_dict=options)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(4, (20, 41), generator=generator).float()
    scores[:, 0] = -torch.inf
    scores[3, 6:] = -torch.inf  # five items are left
    users, targets = torch.arange(20), torch.randint(1, 41, (20,), generator=generator)
    collector = TensorCollector(config)
    collector.eval_batch_collect(scores.clone(), None, users, targets)
    collector.get_data_struct()
    for user, row in enumerate(scores.tolist()):
        best = sorted(range(1, 41), key=lambda item: (-row[item], item))[:10]
        hits = [row[item] > -torch.inf and item == targets[user] for item in best]
        assert collector.hits[user].tolist() == [*hits, 1]


def test_the_collector_holds_nothing_that_grows_with_items(folder, tmp_path):
    evaluations = Evaluations(folder, tmp_path, "TIGER")
    sizes = []
    collector = evaluations.trainer.eval_collector
    update = collector.data_struct.update_tensor
    collector.data_struct.update_tensor = lambda name, value: (
        sizes.append(value.shape[1]) or update(name, value)
    )
    evaluations.metrics(False)
    assert max(sizes) == max(evaluations.config["topk"]) + 1


def test_the_key_leaves_the_names_of_runs(folder):
    plain = toy_config(folder, "TIGER")
    assert toy_config(folder, "TIGER", dense_scores=False).run_name() == plain.run_name()


# --- lists that too few items are left for --------------------------------------------------------


class Given:
    """A model that ranks by given scores ``[B, n_items]``."""

    def __init__(self, scores):
        self.scores = scores

    def full_sort_predict(self, interaction):
        return self.scores.clone()


class GivenLists(Given):
    """The same by lists; the items of the history have the lowest finite scores."""

    def best_items(self, interaction, k):
        scores = self.scores.clone()
        scores[:, 0] = -torch.inf
        best, items = scores.topk(k)
        return items, best


@pytest.mark.parametrize("way", ["dense", Given, GivenLists])
def test_an_item_of_the_history_is_never_a_hit(folder, tmp_path, way):
    """Five items; the lists of four have three, two and four items left."""
    changes = {"exclude_history": True, "topk": [2, 4], "valid_metric": "Recall@4"}
    changes["metrics"] = ["Recall", "ItemCoverage"]
    evaluations = Evaluations(folder, tmp_path, "SASRec", **changes)
    collector = evaluations.trainer.eval_collector
    scores = -torch.arange(18.0).view(3, 6)
    seen = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([1, 5, 2, 3, 4, 5])
    batch = Interaction({"user_id": torch.arange(3)})
    rows, targets = torch.arange(3), torch.tensor([5, 4, 3])
    if way == "dense":
        collected = scores.clone()
        collected[:, 0] = -torch.inf
        collected[seen] = -torch.inf
    else:
        if way is GivenLists:
            scores[seen] = -100.0
        collected = ranked_lists(way(scores), batch, seen, 4, 6)
    collector.eval_batch_collect(collected, batch, rows, targets)
    data = collector.get_data_struct()
    assert data.get("rec.items").tolist() == [[2, 3, 4, 0], [1, 5, 0, 0], [1, 2, 3, 4]]
    hits = [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 1, 0, 1]]
    assert data.get("rec.topk").tolist() == hits


@pytest.mark.parametrize("mode", ["full", "uni20"])
def test_scores_that_are_not_numbers_are_refused(folder, tmp_path, mode):
    evaluations = Evaluations(folder, tmp_path, "BPR", eval_args={"mode": mode})
    with torch.no_grad():
        evaluations.model.item_embedding.weight[1::3] = torch.nan
    with pytest.raises(GenRecError, match="scores that are not numbers"):
        evaluations.metrics(True)


class Shared(base.GenRecModel):
    """A model whose scores share their memory, so that nothing can be written into them."""

    def __init__(self, n_items):
        torch.nn.Module.__init__(self)
        self.n_items = n_items

    def scores(self, history, length, **user):
        return torch.zeros(1, 1).expand(len(history), self.n_items)


@pytest.mark.parametrize("excluded", [None, torch.tensor([[3], [0]])])
def test_what_scores_returns_is_not_written_into(excluded):
    model = Shared(6)
    history, length = torch.ones(2, 1, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    items, scores = model._best_of(4, history, length, excluded)
    assert (items > 0).all() and (scores == 0).all()
    assert (model.scores(history, length) == 0).all()


def test_the_statistics_of_the_search_come_back_after_an_error():
    search = CodeSearch(SimpleNamespace(topk=[5]))
    counted = search.log
    with pytest.raises(ZeroDivisionError), search.uncounted():
        assert search.log is not counted
        raise ZeroDivisionError
    assert search.log is counted
