"""The digest of a test: the same for every model and order of rows, another for other data."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from toy import SMALL, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.rows.tested_pairs import pairs_of_test
from recbole_genrec.model.registry import is_generative


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path)


def pairs_of(folder, model: str, **changes) -> dict:
    options = {"data_path": str(folder), "topk": [10], **changes}
    config = GenRecConfig(model, "toy", config_dict=options)
    loaders = make_loaders(config, create_dataset(config), is_generative(config.model_class))
    return pairs_of_test(loaders[2])


def last_items(folder) -> list[list[str]]:
    """Independent of RecBole: the last item of each user."""
    lines = (folder / "toy" / "toy.inter").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    rows.sort(key=lambda row: float(row[2]))
    return sorted([user, item] for user, item in {row[0]: row[1] for row in rows}.items())


def test_it_follows_from_the_last_items_alone(folder):
    expected = last_items(folder)
    text = json.dumps([expected]).encode()
    assert pairs_of(folder, "SASRec") == {
        "pairs": 60,
        "lists": 60,
        "digest": hashlib.sha256(text).hexdigest()[:16],
    }


@pytest.mark.parametrize("model", ["SASRec", "Pop", "TIGER"])
def test_models_and_orders_of_rows_have_the_same(folder, model):
    before = pairs_of(folder, "SASRec", exclude_history=True)
    file = folder / "toy" / "toy.inter"
    header, *rows = file.read_text().splitlines()
    random.Random(1).shuffle(rows)
    file.write_text("\n".join([header, *rows]) + "\n")
    texts = {"item_text_fields": SMALL["item_text_fields"]} if model == "TIGER" else {}
    assert pairs_of(folder, model, **texts) == before


def test_another_purchase_gives_another(folder):
    before = pairs_of(folder, "Pop")
    with (folder / "toy" / "toy.inter").open("a") as file:
        file.write("u0\ti1\t99\n")
    after = pairs_of(folder, "Pop")
    assert after["pairs"] == before["pairs"]
    assert after["digest"] != before["digest"]


def test_lists_of_users_with_several_held_out_items(folder):
    ratio = {"split": {"RS": [0.6, 0.1, 0.3]}, "order": "TO", "group_by": "user", "mode": "full"}
    joined = pairs_of(folder, "Pop", eval_args=ratio)
    apart = pairs_of(folder, "Pop", eval_args=ratio, ratio_rows="interactions")
    assert joined["lists"] == 60 < joined["pairs"]
    assert apart["lists"] == apart["pairs"]
    assert apart == pairs_of(folder, "SASRec", eval_args=ratio)


def test_without_a_test_there_is_none(folder):
    assert pairs_of_test(None) is None
