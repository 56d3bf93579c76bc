"""A fit leaves the random numbers of the caller alone.

What is drawn after it is then the same in a run that fits and in one that finds stored codes.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from test_entity_codes import content as content_of_entities
from test_entity_codes import settings as settings_of_entities
from test_index_file import words, write_index
from toy import toy_config, toy_model, write_dataset

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.runtime.randomness import rng_state
from recbole_genrec.tokenizer import ItemCodes, ItemTokenizer, fit_or_load, make_tokenizer
from recbole_genrec.tokenizer.entity_mq import EntityMQTokenizer
from recbole_genrec.tokenizer.registry import TOKENIZERS

QUICK = {"tokenizer_epochs": 2, "tokenizer_batch_size": 16, "graph_epochs": 1, "cf_epochs": 1}
RECIPE = {"depth": "none", "positions": "relative", "norm": "post", "score_mode": "auto"}
PARALLEL = {"generator": "parallel", "collision": ["nearest_free"], "item_parts": ["code"]}
METHODS = {
    "store": ("STORE", {}),
    "lmindexer": ("LMIndexer", {}),
    "letter": ("LETTER", {}),
    "metapath": ("MetaID", {}),
    "opq": ("TimelineRec", {**RECIPE, **PARALLEL}),
    "clusters": ("TimelineRec", {"codebook_sizes": [8]}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def tokenizer_and_content(folder, name: str, **changes):
    """A tokenizer of the toy dataset, and all that it may look at."""
    method, settings = METHODS.get(name, ("TIGER", {}))
    values = {"cache_dir": str(folder / "cache"), **settings, **QUICK, **changes}
    config = toy_config(folder, method, tokenizer=name, **values)
    dataset = create_dataset(config)
    content = ItemContent.from_dataset(dataset, config)
    content.interactions = TrainingInteractions(config)
    content.users = [str(user) for user in dataset.field2id_token[dataset.uid_field]]
    return make_tokenizer(config, 3), content


def same(first: dict, second: dict) -> bool:
    """Whether two states of all random generators are equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_the_comparison_sees_each_source():
    for draw in (random.random, np.random.random, lambda: torch.rand(1)):
        before = rng_state()
        assert same(before, rng_state())
        draw()
        assert not same(before, rng_state())


@pytest.mark.parametrize("source", ["text", "cf", "graph"])
def test_item_vectors(folder, source):
    _, content = tokenizer_and_content(folder, "rkmeans", cache_dir=str(folder / source))
    make = {"text": content.embeddings, "cf": content.collaborative, "graph": content.graph}
    before = rng_state()
    make[source]()
    assert same(before, rng_state())


@pytest.mark.parametrize("name", [*TOKENIZERS, "index", "stored", "mq-entities"])
def test_a_fit_and_its_stored_state(folder, tmp_path, name):
    if name == "mq-entities":
        content = content_of_entities()
        made, again = (EntityMQTokenizer(settings_of_entities(), 3) for _ in range(2))
    else:
        place = {"index": index, "stored": stored}.get(name, lambda _: name)(tmp_path)
        made, content = tokenizer_and_content(folder, place)
        again, _ = tokenizer_and_content(folder, place)
    before = rng_state()
    made.fit(content)
    assert same(before, rng_state())
    again.set_state(*made.state())
    assert same(before, rng_state())


def index(folder) -> str:
    return write_index(folder, {f"i{n}": words(n) for n in range(40)})


def stored(folder) -> str:
    rows = [[n % 8, n // 8] for n in range(40)]
    tokens = ["[PAD]", *(f"i{n}" for n in range(40))]
    ItemCodes.build(torch.tensor(rows), (8, 5), tokens, "none").save(folder / "codes")
    return str(folder / "codes")


class Careless(ItemTokenizer):
    """A tokenizer from outside that draws from the global generators."""

    name = "careless"
    uses_text = False

    def fit(self, content):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        learned = torch.randperm(len(content.tokens) - 1).unsqueeze(1)
        return ItemCodes.build(learned, (len(learned),), content.tokens, "none")

    def encode(self, new):
        raise NotImplementedError


def test_the_store_keeps_them_for_any_tokenizer(folder, tmp_path):
    _, content = tokenizer_and_content(folder, "random")
    before = rng_state()
    for _ in ("fitted", "loaded"):
        fit_or_load(Careless({"device": "cpu"}, 3), content, tmp_path, 3, lambda _: None)
        assert same(before, rng_state())


def test_a_further_tokenizer_changes_no_weight_of_a_second_run(folder, tmp_path):
    names = {"tokenizer": "rkmeans", "tokenizers": ["rkmeans", "metapath"]}
    settings = {**RECIPE, "item_parts": ["id"], "text_stream": False, **names}
    first, second = (
        toy_model(folder, "TimelineRec", **settings, cache_dir=str(tmp_path))[0].state_dict()
        for _ in range(2)
    )
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
