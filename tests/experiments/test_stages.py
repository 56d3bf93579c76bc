"""What a run says before it starts."""

from __future__ import annotations

import pytest
from toy import toy_config, write_dataset

from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.experiments.stages import start_summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"epochs": 7, "eval_step": 2, "valid_users": 30, "stopping_step": 4},
            "NDCG@10, 4 times, after every 2 epochs and the last one, 30 users; ends after more "
            "than 4 without progress",
        ),
        (
            {"epochs": 3, "eval_step": 1, "valid_users": 0, "stopping_step": 9},
            "NDCG@10, 3 times, after every epoch; ends after more than 9 without progress",
        ),
        ({"eval_step": 0}, "none, the last epoch counts"),
        ({"eval_args": {"split": {"LS": "test_only"}}}, "none, the last epoch counts"),
        ({"hold_out": False}, "none, the last epoch counts"),
    ],
)
def test_how_the_best_epoch_is_chosen(folder, changes, words):
    config = toy_config(folder, valid_metric="NDCG@10", **changes)
    lines = start_summary(config, create_dataset(config)).splitlines()
    assert f"  validation          {words}" in lines
