"""Lists for many people at once are those that each of them gets alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.decoding.topk import ordered_topk
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.model.lists.queries import NumberedQuery, Query, QueryBatch, alike


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def _walk(start: int) -> list[str]:
    return [f"i{(start * 7 + step) % 40}" for step in range(1 + start)]


def queries() -> list[Query]:
    """Histories of several lengths, with and without each option."""
    histories = [_walk(start) for start in range(12)]
    chosen = tuple(f"i{number}" for number in range(3, 20))
    return [
        *[Query(history, 5) for history in histories],
        *[Query(history, 3, candidates=chosen) for history in histories[:4]],
        *[Query(history, 5, excluded=history) for history in histories[:4]],
        *[Query(history, 5, user=f"u{place}") for place, history in enumerate(histories[:4])],
        Query(histories[5], 60),
        Query(histories[6], 5, excluded=[]),
        Query(histories[7], 4, candidates=chosen, excluded=chosen[:15]),
    ]


def check_same(one: list[dict], other: list[dict]) -> None:
    assert [row["item"] for row in one] == [row["item"] for row in other]
    for row, twin in zip(one, other, strict=True):
        assert set(row) == set(twin)
        assert row["score"] == pytest.approx(twin["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("TIGER", {"beam_width": 20}),
        ("TIGER", {"beam_width": 20, "n_user_tokens": 7}),
        ("TIGER", {"beam_width": "auto", "beam_max": 40, "exclude_history": True}),
        ("TimelineRec", {}),
        ("TokenRec", {}),
        ("SETRec", {"exclude_history": True}),
    ],
)
def test_a_batch_gives_the_lists_of_single_queries(folder, tmp_path, model, changes):
    trained, _, _ = toy_model(folder, model, cache_dir=str(tmp_path), **changes)
    asked = queries()
    together = trained.recommend_batch(asked)
    assert len(together) == len(asked)
    for query, rows in zip(asked, together, strict=True):
        alone = trained.recommend(
            query.history, query.k, query.candidates, query.user, query.excluded
        )
        check_same(rows, alone)
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        items = {row["item"] for row in rows}
        assert query.candidates is None or items <= set(query.candidates)
        assert items.isdisjoint(query.excluded or [])
    assert len(together[-1]) == 2  # of 17 candidates 15 are excluded


def test_one_wrong_query_is_named(folder, tmp_path):
    model, _, _ = toy_model(folder, "TokenRec", cache_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="'i99'"):
        model.recommend_batch([Query(["i1"]), Query(["i1", "i99"])])
    with pytest.raises(ConfigError, match="history is empty"):
        model.recommend_batch([Query(["i1"]), Query([])])
    assert model.recommend_batch([]) == []
    model.user_known[:] = False
    model.entities.graph.item_degree[:] = 0
    with pytest.raises(DataError):
        model.recommend_batch([Query(["i1"])])


def test_a_text_is_no_list_of_ids(folder, tmp_path):
    model, _, _ = toy_model(folder, "TokenRec", cache_dir=str(tmp_path))
    model.histories = {"u1": ["i1"]}
    for wrong, what in [
        (Query("12"), "history must be a list of item ids, got '12'"),
        (Query(12), "history must be a list of item ids, got 12"),
        (Query(["i1"], candidates="12"), "candidates must be a list of item ids, got '12'"),
        (Query(["i1"], candidates=[]), "candidates is empty; give at least one item id"),
        (Query(["i1"], excluded="12"), "excluded must be a list of item ids, got '12'"),
    ]:
        with pytest.raises(ConfigError, match=what):
            model.recommend_batch([wrong])
    with pytest.raises(ConfigError, match="history must be a list of item ids, got '12'"):
        model.recommend("12", exclude_seen=True)
    for arguments, what in [
        ({"users": "u1"}, "users must be a list of user ids, got 'u1'"),
        ({"users": {"me": "12"}}, "The history of user 'me' must be a list of item ids, got '12'"),
        ({"users": {"me": ["i1"]}, "candidates": "12"}, "candidates must be a list of item ids"),
        ({"users": {"me": ["i1"]}, "candidates": []}, "candidates is empty; give at least one"),
    ]:
        with pytest.raises(ConfigError, match=what):
            model.recommend_all(**arguments)
    with pytest.raises(ConfigError, match="items must be a list of item ids, got '12'"):
        model.item_ids("12")
    with pytest.raises(ConfigError, match="tokens must be a list of item ids, got 'ab'"):
        model.catalogue.new_items(["one", "two"], tokens="ab")
    for ids in (("i1", "i2"), np.array(["i1", "i2"]), pd.Series(["i1", "i2"], index=[7, 9])):
        assert len(model.recommend(ids, k=2, candidates=ids, excluded=[])) == 2
        assert len(model.recommend_all({"me": ids}, k=2, candidates=ids)) == 2


def test_queries_that_differ_in_kind_are_not_ranked_together():
    asked = [
        NumberedQuery([1, 2], 5, None, 0, None),
        NumberedQuery([3], 5, None, 0, [3]),
        NumberedQuery([3], 5, None, 7, None),
        NumberedQuery([3], 4, None, 0, None),
        NumberedQuery([3], 5, (1, 2), 0, None),
    ]
    batches = alike(asked, 10)
    assert sorted(map(sorted, batches)) == [[0, 1], [2], [3], [4]]
    assert batches[0] == [1, 0]  # the shorter history first
    batch = QueryBatch.of([asked[1], asked[0]], 1, torch.device("cpu"))
    assert batch.history.tolist() == [[3], [2]]
    assert batch.length.tolist() == [1, 1]
    assert batch.excluded.tolist() == [[3], [0]]
    assert batch.user is None


def test_equal_scores_are_ordered_by_column():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (50, 30), generator=generator).float()
    values, columns = ordered_topk(scores, 7)
    for row in range(50):
        expected = sorted(range(30), key=lambda column: (-scores[row, column].item(), column))
        assert columns[row].tolist() == expected[:7]
    assert torch.equal(values, scores.gather(1, columns))
