"""Searches with items left out, against exhaustive scoring from which the items are removed."""

from __future__ import annotations

import pytest
import torch
from decoders import CountOperators, SparingDecoder, ToyDecoder, random_codes, reference_scores
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_genrec.decoding import (
    SCORE_TYPES,
    ItemTrie,
    beam_search,
    beam_search_auto,
    exact_scores,
    exact_search,
    grammar_search,
)
from recbole_genrec.decoding.exclusion import Exclusion

CLOSE = {"atol": 1e-4, "rtol": 0}


def remaining(scores, excluded, members, k):
    """The k best items of each user and their scores, in plain Python."""
    lists = []
    for row, left_out in zip(scores.tolist(), excluded.tolist(), strict=True):
        items = [item for item in members if item not in left_out]
        items.sort(key=lambda item: (-row[item], item))
        lists.append([(item, row[item]) for item in items[:k]])
    return lists


def assert_lists(result, expected, rows):
    """The lists of some users are the expected ones, with padding where these are shorter."""
    for row in rows:
        n = len(expected[row])
        items = [item for item, _ in expected[row]]
        values = torch.tensor([value for _, value in expected[row]])
        assert result.items[row, :n].tolist() == items
        assert (result.items[row, n:] == 0).all()
        torch.testing.assert_close(result.scores[row, :n], values, **CLOSE)


@st.composite
def problems(draw):
    """A trie, a decoder and excluded items, many of which share prefixes or leaves."""
    seed = draw(st.integers(0, 10_000))
    sizes = draw(st.sampled_from([(3, 2, 2), (4, 3), (6,), (2, 5, 2), (16, 3, 3)]))
    n = draw(st.integers(1, 30))
    codes = random_codes(sizes, n, seed, unique=draw(st.booleans()))
    n = len(codes) - 1
    budget = draw(st.sampled_from([0.0, 256.0]))
    trie = ItemTrie(codes, sizes, budget_mb=budget)
    members = list(range(1, n + 1))
    if draw(st.booleans()):
        members = sorted(draw(st.sets(st.sampled_from(members), min_size=1)))
        norm = draw(st.sampled_from(["full", "subset"]))
        trie = trie.subset(torch.tensor(members), norm)
    users = draw(st.integers(1, 4))
    width = draw(st.integers(0, n + 2))
    generator = torch.Generator().manual_seed(seed)
    excluded = torch.randint(0, n + 1, (users, width), generator=generator)
    kind = draw(st.sampled_from(SCORE_TYPES))
    maker = draw(st.sampled_from([ToyDecoder, SparingDecoder]))
    scale = draw(st.sampled_from([0.5, 2.0, 5.0]))
    return trie, members, maker(users, sizes, kind, scale, seed), excluded, kind


@settings(max_examples=300)
@given(problems(), st.integers(1, 12))
def test_every_search_gives_the_best_of_the_items_that_are_left(problem, k):
    trie, members, decoder, excluded, kind = problem
    scores = exact_scores(decoder, trie, score_type=kind)
    expected = remaining(scores, excluded, members, k)
    everybody = range(len(excluded))
    options = {"score_type": kind, "fill": True, "excluded": excluded}

    assert_lists(exact_search(decoder, trie, k, **options), expected, everybody)
    widest = beam_search(decoder, trie, max(k, 100), **options)
    widest.items, widest.scores = widest.items[:, :k], widest.scores[:, :k]
    assert_lists(widest, expected, everybody)
    complete = beam_search_auto(decoder, trie, k, uncertified="exact", beam_max=2, **options)
    assert_lists(complete, expected, everybody)
    assert complete.certified(k).all()

    for result in (
        beam_search(decoder, trie, k, **options),
        beam_search_auto(decoder, trie, k, beam_max=3, **options),
        beam_search_auto(decoder, trie, k, beam_max=100, **options),
    ):
        proven = result.certified(k).nonzero().flatten().tolist()
        assert_lists(result, expected, proven)
        assert_full(result, scores, excluded, k)
    assert len(proven) == len(excluded)


def assert_full(result, scores, excluded, k):
    """Full rows: excluded items last, reached ones with their scores and before all others."""
    n_items = result.full.shape[1]
    left_out = torch.zeros(len(excluded), n_items + 1, dtype=torch.bool)
    left_out = left_out.scatter(1, excluded, True)[:, :-1]
    left_out[:, 0] = True
    assert result.full.isfinite().all()
    for row in range(len(excluded)):
        items = result.items[row][result.items[row] > 0]
        assert not set(items.tolist()) & set(excluded[row].tolist())
        torch.testing.assert_close(result.full[row, items], scores[row, items], **CLOSE)
        others = result.full[row][~left_out[row]]
        if len(others) and left_out[row, 1:].any():
            hidden = left_out[row].clone()
            hidden[0] = False
            assert result.full[row][hidden].max() < others.min()
        order = result.full[row].argsort(descending=True, stable=True)[: len(items)]
        torch.testing.assert_close(result.full[row, order], result.scores[row, : len(items)])


@pytest.mark.parametrize("kind", SCORE_TYPES)
def test_scores_are_those_of_the_whole_catalogue(kind):
    sizes, codes = (5, 4, 3), random_codes((5, 4, 3), 30)
    decoder, trie = ToyDecoder(3, sizes, kind), ItemTrie(codes, sizes)
    excluded = torch.tensor([[1, 2, 3, 4], [5, 5, 0, 0], [0, 0, 0, 0]])
    everything = list(range(1, 31))
    expected = reference_scores(decoder, codes, everything, everything)
    result = beam_search(decoder, trie, 30, score_type=kind, excluded=excluded)
    for row, n in enumerate((26, 29, 30)):
        items = result.items[row, :n]
        assert set(items.tolist()) == set(everything) - set(excluded[row].tolist())
        assert (result.items[row, n:] == 0).all()
        torch.testing.assert_close(
            result.scores[row, :n].double(), expected[row, items - 1], **CLOSE
        )


def test_inner_nodes_close_only_where_nothing_is_left():
    codes = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [2, 1]])
    trie = ItemTrie(codes, (3, 2))
    exclusion = Exclusion(trie, torch.tensor([[1, 2, 3], [1, 2, 4], [5, 0, 5]]))
    nodes = torch.arange(3).expand(3, 3)
    expected = [[True, False, False], [False, True, False], [False, False, True]]
    assert exclusion.is_closed(1, nodes).tolist() == expected
    leaves = torch.arange(4).expand(3, 4)
    assert exclusion.is_closed(2, leaves).tolist() == [
        [True, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


@settings(max_examples=100)
@given(problems(), st.integers(1, 8))
def test_beams_under_the_level_grammar_leave_the_items_out(problem, k):
    trie, members, decoder, excluded, kind = problem
    if kind == "renormalised":
        return
    result = grammar_search(decoder, trie, k, score_type=kind, fill=True, excluded=excluded)
    for items, left_out in zip(result.items.tolist(), excluded.tolist(), strict=True):
        assert not set(items) & (set(left_out) - {0})
        assert set(items) - {0} <= set(members)
    n_tuples = 1
    for size in trie.sizes:
        n_tuples *= size
    scores = exact_scores(decoder, trie, score_type=kind)
    widest = grammar_search(decoder, trie, n_tuples, score_type=kind, excluded=excluded)
    n = min(k, n_tuples)
    widest.items, widest.scores = widest.items[:, :n], widest.scores[:, :n]
    assert_lists(widest, remaining(scores, excluded, members, n), range(len(excluded)))


def test_no_loop_over_users_or_excluded_items():
    sizes, codes = (16, 8, 8), random_codes((16, 8, 8), 200)
    trie = ItemTrie(codes, sizes)
    counts = []
    for users, width in ((2, 3), (20, 60)):
        decoder = ToyDecoder(users, sizes)
        excluded = torch.randint(1, 200, (users, width))
        with CountOperators() as operators:
            beam_search(decoder, trie, 10, fill=True, count=False, excluded=excluded)
        counts.append(sum(operators.seen.values()))
    assert counts[0] == counts[1]
