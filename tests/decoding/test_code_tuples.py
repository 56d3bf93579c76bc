"""Code tuples under the level grammar, against a naive beam over dictionaries and hand-computed
draws.
"""

from __future__ import annotations

import pytest
import torch
from decoders import SIZES, ToyDecoder, random_codes
from test_grammar import naive_beam

from recbole_genrec.decoding import (
    AdjustedDecoder,
    ItemTrie,
    beam_search,
    grammar_tuples,
    sampled_tuples,
    tuple_scores,
)

CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.mark.parametrize("width", [1, 4, 15, 130])  # 130: more than the 120 tuples of the grammar
def test_beam_agrees_with_a_naive_one(width):
    decoder = ToyDecoder(5, SIZES)
    codes, scores = grammar_tuples(decoder, SIZES, width)
    assert codes.shape == (5, min(width, 120), 3)
    for user in range(5):
        expected = naive_beam(decoder, user, width)
        assert [tuple(row) for row in codes[user].tolist()] == list(expected)
        torch.testing.assert_close(scores[user], torch.tensor(list(expected.values())), **CLOSE)


def test_it_finds_codes_that_no_item_has_and_the_trie_does_not():
    table = random_codes(n=20)
    owned = {tuple(row) for row in table[1:].tolist()}
    decoder = ToyDecoder(5, SIZES)
    free = grammar_tuples(decoder, SIZES, 10)[0].flatten(0, 1).tolist()
    bound = table[beam_search(decoder, ItemTrie(table, SIZES), 10).items].flatten(0, 1).tolist()
    assert any(tuple(row) not in owned for row in free) and all(
        tuple(row) in owned for row in bound
    )


@pytest.mark.parametrize("penalty", [0.0, 30.0])
def test_groups_choose_in_turn_and_avoid_the_codes_of_the_groups_before(penalty):
    """Two groups of one beam: the second is a greedy path whose codes are cheaper by the penalty
    where the first did not go.
    """
    decoder, users = ToyDecoder(6, SIZES), 6
    codes, scores = grammar_tuples(decoder, SIZES, 2, groups=2, penalty=penalty)
    first = grammar_tuples(decoder, SIZES, 1)[0][:, 0]
    for user in range(users):
        one, path, total = decoder.select(torch.tensor([user])), [], 0.0
        for level in range(3):
            values = one.start()
            for code in path:
                values = one.step(torch.tensor([[code]]), torch.zeros(1, 1, dtype=torch.int64))
            reduced = values[0, 0].clone()
            reduced[first[user, level]] -= penalty
            path.append(int(reduced.argmax()))
            total += float(values[0, 0, path[-1]])
        found = {
            tuple(row): score
            for row, score in zip(codes[user].tolist(), scores[user].tolist(), strict=True)
            if score > -torch.inf
        }
        assert set(found) == {
            tuple(first[user].tolist()),
            tuple(path),
        }  # one row when both took the same way
        assert found[tuple(path)] == pytest.approx(total, abs=1e-5)
        assert (len(found) == 1) == (penalty == 0)


def test_samples_follow_the_model_at_a_temperature():
    decoder = ToyDecoder(1, (4, 3), scale=1.0)
    logits = decoder.start()[0, 0].double()
    first = []
    for seed in range(400):
        codes, scores = sampled_tuples(decoder, (4, 3), 1, 2.0, torch.Generator().manual_seed(seed))
        first.append(int(codes[0, 0, 0]))
        torch.testing.assert_close(scores[:, 0], tuple_scores(decoder, codes[:, 0]), **CLOSE)
    share = torch.bincount(torch.tensor(first), minlength=4) / 400
    torch.testing.assert_close(share.double(), (logits / 2).softmax(-1), atol=0.08, rtol=0)
    many = [
        sampled_tuples(decoder, (4, 3), 50, 1.0, torch.Generator().manual_seed(7)) for _ in range(2)
    ]
    assert torch.equal(many[0][0], many[1][0])
    live = many[0][1][0] > -torch.inf
    rows, scores = many[0][0][0][live], many[0][1][0][live]
    assert 1 < len(rows) == len(rows.unique(dim=0)) <= 12 and (scores.diff() <= 0).all()


def test_scores_of_given_tuples_are_those_of_the_beam():
    decoder = ToyDecoder(5, SIZES)
    codes, scores = grammar_tuples(decoder, SIZES, 120)
    for place in (0, 17, 119):
        torch.testing.assert_close(
            tuple_scores(decoder, codes[:, place]), scores[:, place], **CLOSE
        )


def test_addends_change_order_and_forbid():
    decoder = ToyDecoder(5, SIZES)
    only = torch.full((5, 1, 6), -torch.inf)
    only[torch.arange(5), 0, torch.arange(5)] = 0
    liked = torch.zeros(1, 1, 5)
    liked[..., 1:] = -50.0
    adjusted = AdjustedDecoder(decoder, [only, liked, torch.zeros(1, 1, 4)])
    codes, scores = grammar_tuples(adjusted, SIZES, 10)
    for user in range(5):
        live = codes[user][scores[user] > -torch.inf]
        assert (live[:, 0] == user).all() and (live[:4, 1] == 0).all() and len(live) == 10
    rows = torch.tensor([3, 1])
    part = grammar_tuples(adjusted.select(rows), SIZES, 10)
    assert torch.equal(part[0], codes[rows]) and torch.equal(part[1], scores[rows])
