"""Evaluations among samples: the same candidates each time, and nothing else depends on them."""

from __future__ import annotations

import numpy as np
import pytest
from toy import SMALL, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.rows.cold_users import seen_and_unseen
from recbole_genrec.experiments.evaluation import evaluate
from recbole_genrec.experiments.run import run_recbole_genrec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def loaders(folder, model="SASRec", mode="uni20", **changes):
    """The configuration, and the loaders of validation and test."""
    values = {**SMALL, "data_path": str(folder), "eval_args": {"mode": mode}, **changes}
    config = GenRecConfig(model, "toy", config_dict=values)
    return config, *make_loaders(config, create_dataset(config), False)[1:]


def candidates(loader):
    """Target and candidates of each user, by its number."""
    drawn = {}
    for rows, *_ in loader:
        users, items = rows["user_id"].numpy(), rows["item_id"].numpy()
        for user in np.unique(users):
            drawn[int(user)] = items[users == user].tolist()
    return drawn


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
def test_a_user_has_the_same_candidates_each_time(folder, mode):
    _, valid, test = loaders(folder, mode=mode)
    first = candidates(test)
    assert {len(items) for items in first.values()} == {21}
    before = np.random.get_state()[1].tolist()
    assert candidates(test) == first != candidates(valid)
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(7)
    _, _, small = loaders(folder, mode=mode, eval_batch_size=50)
    assert len(small) > len(test)
    assert candidates(small) == first


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
def test_candidates_follow_from_the_seed_and_not_from_the_model(folder, mode):
    of_models = []
    for model in ("SASRec", "BPR", "Pop"):
        _, _, test = loaders(folder, model, mode)
        of_models.append(candidates(test))
    assert of_models[0] == of_models[1] == of_models[2]
    _, _, test = loaders(folder, mode=mode, seed=3)
    assert candidates(test) != of_models[0]


def test_blocks_of_users_have_the_candidates_of_all(folder):
    config, _, test = loaders(folder, cold_users=0.3)
    whole = candidates(test)
    blocks = {}
    for block in (range(7), range(7, test.sample_size)):  # of two processes
        test.batch_sampler.sampler = block
        blocks |= candidates(test)
    assert blocks == whole
    by_kind = seen_and_unseen(config, test)
    assert candidates(by_kind["seen"]) | candidates(by_kind["unseen"]) == whole


def test_a_run_and_evaluate_give_the_same_figures(folder):
    values = {**SMALL, "data_path": str(folder), "eval_args": {"mode": "uni20"}, "eval_step": 1}
    run = run_recbole_genrec("SASRec", "toy", config_dict={**values, "learning_rate": 0.0})
    first, second = (epoch["valid"] for epoch in run["epochs"])
    assert first == second
    test = evaluate(run["checkpoint"], eval_batch_size=64)
    assert test["test_result"] == run["test_result"]
