"""The walk of a search through the tree of items, compared with the search and with the codes."""

from __future__ import annotations

import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.decoding import exact_scores
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.served import Served
from recbole_genrec.model.lists.beam_trace import trace_search
from recbole_genrec.model.lists.queries import Query
from recbole_genrec.serving.recommender import Recommender


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("TIGER", {"beam_width": 12}),
        ("TIGER", {"beam_width": "auto", "score_type": "renormalised"}),
        ("TimelineRec", {"score_mode": "exact"}),
    ],
)
def test_a_walk_shows_prefixes_of_real_items(folder, tmp_path, model, changes):
    trained, _, _ = toy_model(folder, model, cache_dir=str(tmp_path), **changes)
    query = Query(["i1", "i2", "i3"], 5)
    levels, rows = trace_search(trained, query, shown=4)
    assert rows == trained.recommend(query.history, query.k)
    codes, sizes = trained.trie_table()
    assert [level.alphabet for level in levels] == list(sizes)

    known = {0: ()}  # node above -> codes up to it
    table = [tuple(row) for row in codes[1:].tolist()]
    for depth, level in enumerate(levels, start=1):
        assert level.possible == len({row[:depth] for row in table})
        prefixes = {}
        for node in level.nodes:
            prefix = (*known[node["parent"]], node["code"])
            prefixes[node["node"]] = prefix
            assert node["items"] == sum(row[:depth] == prefix for row in table)
            for rank in node["ranks"]:
                item = trained.item_ids([rows[rank - 1]["item"]])[0]
                assert tuple(codes[item].tolist())[:depth] == prefix
        shown = sorted(rank for node in level.nodes for rank in node["ranks"])
        assert shown == list(range(1, len(rows) + 1))
        known = prefixes


@pytest.mark.parametrize(
    ("changes", "walks"),
    [
        ({}, True),
        ({"heads": ["tree", "flat"], "output_id": True}, False),
        ({"tokenizers": ["rkmeans", "rkmeans"], "tokenizer": "rkmeans"}, False),
        ({"output": "items", "output_id": True}, False),
    ],
)
def test_a_walk_is_shown_where_one_tree_makes_the_lists(folder, tmp_path, changes, walks):
    changes = {"depth": "none", "score_mode": "exact", **changes}
    model, config, _ = toy_model(folder, "TimelineRec", cache_dir=str(tmp_path), **changes)
    recommender = Recommender(Served(config, model, None))
    assert recommender.has_walk == walks
    query = Query(["i1", "i2", "i3"], 5)
    if walks:
        assert trace_search(model, query)[1] == model.recommend(query.history, query.k)
        return
    with pytest.raises(ConfigError, match="TimelineRec: no walk along one tree of codes"):
        trace_search(model, query)


def test_a_softmax_over_items_shows_no_codes(folder, tmp_path):
    """Its tokenizer gives items codes, which nothing reads."""
    changes = {"output": "items", "item_parts": ["id"], "score_mode": "exact"}
    model, config, _ = toy_model(folder, "TimelineRec", cache_dir=str(tmp_path), **changes)
    recommender = Recommender(Served(config, model, None))
    assert not recommender.has_codes
    assert recommender.code_sizes is None
    (rows,) = recommender.answer([Query(["i1", "i2", "i3"], 5)])
    assert [row["codes"] for row in rows] == [None] * 5
    assert model.list_code_words() is None


def test_the_kept_prefixes_are_the_most_probable_ones(folder, tmp_path):
    model, _, _ = toy_model(
        folder, "TIGER", cache_dir=str(tmp_path), beam_width=40, score_type="renormalised"
    )
    history = torch.tensor([model.item_ids(["i1", "i2", "i3"])])
    levels, _ = trace_search(model, Query(["i1", "i2", "i3"], 5), shown=100)
    with torch.no_grad():
        decoder = model.item_logits(history, torch.tensor([3]))
        scores = exact_scores(decoder, model.trie, score_type="renormalised")[0]
    first = model.trie_table()[0][:, 0]
    probability = scores.exp()
    for node in levels[0].nodes:
        if node["score"] is None:
            continue  # a prefix of one item, which was finished at once
        below = (first == node["code"]) & (torch.arange(len(first)) > 0)
        total = float(probability[below].sum().log())
        assert node["score"] == pytest.approx(total, abs=1e-3)
