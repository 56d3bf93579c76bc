"""Metrics of the catalogue: RecBole's figures, in which an empty place of a list is no item."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct
from toy import SMALL, toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.experiments.analysis_lists import _example
from recbole_genrec.report.contents import Item
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.training.catalogue_metrics import OF_FILLED, FilledEvaluator
from recbole_genrec.training.trainer import GenRecTrainer

METRICS = ["ItemCoverage", "ShannonEntropy", "GiniIndex", "AveragePopularity", "TailPercentage"]
COUNTS = {1: 5, 2: 3, 3: 1, 4: 9}
N_ITEMS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def figures(folder, evaluator, lists, **changes):
    """What an evaluator says of lists."""
    k = len(lists[0])
    values = {**SMALL, "data_path": str(folder), "metrics": METRICS, "metric_decimal_place": 9}
    values |= {"topk": list(range(1, k + 1)), "valid_metric": "ItemCoverage@1", **changes}
    data = DataStruct()
    data.set("rec.items", torch.tensor(lists))
    data.set("data.num_items", N_ITEMS)
    data.set("data.count_items", COUNTS)
    return evaluator(GenRecConfig("SASRec", "toy", config_dict=values)).evaluate(data)


@pytest.mark.parametrize("tail", [0.25, 0.8])
def test_full_lists_have_the_figures_of_recbole(folder, tail):
    draw = np.random.default_rng(0)
    lists = [draw.permutation(N_ITEMS)[:3] + 1 for _ in range(50)]
    expected = figures(folder, Evaluator, np.array(lists).tolist(), tail_ratio=tail)
    assert len(expected) == 3 * len(METRICS)
    assert figures(folder, FilledEvaluator, np.array(lists).tolist(), tail_ratio=tail) == expected


def test_an_empty_place_is_no_item(folder):
    lists = [[1, 2, 0], [2, 0, 3], [0, 0, 0]]
    found = figures(folder, FilledEvaluator, lists)
    shares = np.array([1, 2, 1]) / 4  # of the items 1, 2 and 3
    expected = {
        "itemcoverage@1": 2 / 4,
        "itemcoverage@3": 3 / 4,
        "shannonentropy@3": -(shares * np.log(shares)).sum() / 3,
        "giniindex@3": (-1 * 1 + 1 * 1 + 3 * 2) / 4 / 4,
        "averagepopularity@1": (5 + 3) / 2,
        "averagepopularity@2": (4 + 3) / 2,
        "averagepopularity@3": (4 + 2) / 2,
        "tailpercentage@2": 0,
        "tailpercentage@3": (0 + 1 / 2) / 2,  # item 3 is the tail
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-8)


def test_empty_lists_have_figures(folder):
    found = figures(folder, FilledEvaluator, [[0, 0], [0, 0]])
    assert set(found.values()) == {0}


def test_our_trainers_evaluate_so(folder):
    model, config, _ = toy_model(folder, metrics=["NDCG", *METRICS])
    classes = GenRecTrainer(config, model).evaluator.metric_class
    assert {type(classes[name]) for name in OF_FILLED} == set(OF_FILLED.values())


def test_an_example_of_a_report_shows_no_empty_place():
    table = SimpleNamespace(item=lambda number: Item(f"i{number}", f"item {number}"))
    ranks = UserRanks(np.array([2]), ("u",), 4, ("i5",))
    shown = _example(0, ranks, np.array([[3, 5, 0, 0]]), [["i1"]], table, {"i1": 1, "i5": 5})
    assert [listed.item.token for listed in shown.items] == ["i3", "i5"]
