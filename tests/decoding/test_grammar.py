"""Beam search under the level grammar, against a naive beam over dictionaries."""

from __future__ import annotations

import pytest
import torch
from decoders import SIZES, CountOperators, ToyDecoder, random_codes
from test_search import CLOSE
from test_trie import items_by_path

from recbole_genrec.decoding import ItemTrie, beam_search, exact_scores, grammar_search, trie_level
from recbole_genrec.errors import BackboneError, ConfigError


def naive_beam(decoder: ToyDecoder, user: int, width: int) -> dict[tuple[int, ...], float]:
    """The ``width`` finished tuples of one user with their scores, best first; equal scores by
    smaller codes.
    """
    one, beams = decoder.select(torch.tensor([user])), {(): 0.0}
    for _ in decoder.sizes:
        candidates = {}
        for prefix, score in beams.items():
            values = one.start()
            for code in prefix:
                values = one.step(torch.tensor([[code]]), torch.zeros(1, 1, dtype=torch.int64))
            candidates.update(
                {(*prefix, code): score + value for code, value in enumerate(values[0, 0].tolist())}
            )
        beams = dict(sorted(candidates.items(), key=lambda pair: (-pair[1], pair[0]))[:width])
    return beams


def assert_naive(decoder, codes, members, width, score_type, trie):
    """Compare every field of the result with the naive beam; returns the invalid shares."""
    result = grammar_search(decoder, trie, width, score_type=score_type, fill=True)
    assert result.items.shape == result.scores.shape == (decoder.batch_size, width)
    assert (
        (result.bound == torch.inf).all()
        and not result.certified(1).any()
        and result.full.isfinite().all()
    )
    outside = torch.tensor([item for item in range(len(codes)) if item not in members])
    owners = items_by_path(codes, members)
    for user in range(decoder.batch_size):
        beams = naive_beam(decoder, user, width)
        expected = {item: score for path, score in beams.items() for item in owners.get(path, [])}
        reached = list(expected)
        found, best = (reached + [0] * width)[:width], torch.full((width,), -torch.inf)
        best[: len(reached)] = torch.tensor(list(expected.values())[:width])
        assert result.items[user].tolist() == found
        torch.testing.assert_close(result.scores[user], best, **CLOSE)
        assert result.invalid[user].item() == pytest.approx(
            sum(path not in owners for path in beams) / len(beams)
        )
        full = result.full[user]
        torch.testing.assert_close(full[reached], torch.tensor(list(expected.values())), **CLOSE)
        others = full[[item for item in members if item not in expected]]
        assert (others.diff() == 0).all() and (full[reached].unsqueeze(1) > others).all()
        assert (full[outside].unsqueeze(1) < full[members]).all()
    assert torch.equal(
        result.full[:, outside], exact_scores(decoder, trie, score_type=score_type)[:, outside]
    )
    plain = grammar_search(decoder, trie, width, score_type=score_type)
    assert (
        plain.full is None
        and torch.equal(plain.items, result.items)
        and torch.equal(plain.scores, result.scores)
    )
    return result.invalid


@pytest.mark.parametrize("score_type", ["joint", "level"])
@pytest.mark.parametrize("width", [1, 4, 15, 130])  # 130: more than the 120 tuples of the grammar
@pytest.mark.parametrize("budget", [0, 256])  # windows or dense tables
def test_agrees_with_a_naive_beam(width, score_type, budget, monkeypatch):
    monkeypatch.setattr(trie_level, "NARROW", 10**6)
    codes = random_codes(n=40)
    codes[7] = -1  # an item without a tuple
    members = [item for item in range(1, 41) if item != 7]
    decoder, trie = ToyDecoder(5, SIZES, score_type), ItemTrie(codes, SIZES, budget_mb=budget)
    invalid = assert_naive(decoder, codes, members, width, score_type, trie)
    if width == 130:
        torch.testing.assert_close(invalid, torch.full((5,), 81 / 120))
        best = beam_search(decoder, trie, width, score_type=score_type)
        assert torch.equal(
            best.items, grammar_search(decoder, trie, width, score_type=score_type).items
        )


@pytest.mark.parametrize("width", [1, 4, 15])
def test_subset_drops_tuples_of_other_items(width):
    codes, members = random_codes(n=60), list(range(2, 61, 3))
    trie = ItemTrie(codes, SIZES)
    decoder = ToyDecoder(5, SIZES)
    subset = assert_naive(
        decoder, codes, members, width, "level", trie.subset(torch.tensor(members))
    )
    everything = grammar_search(decoder, trie, width).invalid
    assert (subset >= everything).all() and subset.sum() > everything.sum()


@pytest.mark.parametrize("score_type", ["joint", "level"])
@pytest.mark.parametrize("scale", [2.0, 0.0])  # 0: only the order of codes decides
def test_equals_the_trie_search_when_every_tuple_is_owned(score_type, scale):
    grid = torch.cartesian_prod(*(torch.arange(size) for size in SIZES))
    codes = torch.cat(
        [
            torch.zeros(1, 3, dtype=torch.int64),
            grid[torch.randperm(120, generator=torch.Generator().manual_seed(0))],
        ]
    )
    decoder, trie = ToyDecoder(6, SIZES, score_type, scale), ItemTrie(codes, SIZES)
    for width in (1, 3, 20, 120, 125):
        constrained = beam_search(decoder, trie, width, score_type=score_type)
        free = grammar_search(decoder, trie, width, score_type=score_type)
        assert torch.equal(free.items, constrained.items) and torch.equal(
            free.scores, constrained.scores
        )
        assert (free.invalid == 0).all() and constrained.invalid is None


class Rounded(ToyDecoder):
    """Whole numbers: equal sums of different steps are common."""

    def _values(self):
        return super()._values().round()

    def select(self, rows):
        chosen = Rounded(len(rows), self.sizes)
        vars(chosen).update(vars(super().select(rows)))
        return chosen


@pytest.mark.parametrize("decoder", [ToyDecoder(2, SIZES, scale=0.0), Rounded(6, SIZES)])
@pytest.mark.parametrize("width", [1, 7, 50])
def test_equal_scores_keep_smaller_codes(decoder, width):
    codes = random_codes(n=40)
    assert_naive(decoder, codes, list(range(1, 41)), width, "level", ItemTrie(codes, SIZES))


@pytest.mark.parametrize("width", [1, 2, 3, 12])
def test_items_on_one_leaf_are_ranked_by_tie_order(width):
    codes = torch.tensor([[0, 0]] + [[1, 2]] * 4 + [[0, 1]] * 3)
    trie = ItemTrie(codes, (2, 3), tie_order=torch.tensor([0, 4, 3, 2, 1, 1, 2, 3]))
    decoder, groups = ToyDecoder(8, (2, 3), scale=20.0), {(1, 2): [4, 3, 2, 1], (0, 1): [5, 6, 7]}
    result, exact = grammar_search(decoder, trie, width, fill=True), exact_scores(decoder, trie)
    for user in range(8):
        beams = naive_beam(decoder, user, width)
        expected = sum((groups.get(path, []) for path in beams), [])
        assert result.items[user].tolist() == (expected + [0] * width)[:width]
        assert (result.scores[user, : min(width, len(expected))].diff() < 0).all()
        torch.testing.assert_close(
            result.full[user, expected], exact[user, expected], atol=1e-6, rtol=0
        )
        assert result.invalid[user].item() == pytest.approx(
            sum(path not in groups for path in beams) / len(beams)
        )


def test_a_search_that_reaches_nothing_is_empty_and_finite():
    decoder = ToyDecoder(4, SIZES)
    used = {tuple(path) for user in range(4) for path in naive_beam(decoder, user, 3)}
    missed = next(
        path
        for path in torch.cartesian_prod(*(torch.arange(size) for size in SIZES)).tolist()
        if tuple(path) not in used
    )
    result = grammar_search(
        decoder, ItemTrie(torch.tensor([[0, 0, 0], missed, missed]), SIZES), 3, fill=True
    )
    assert (
        (result.items == 0).all()
        and (result.scores == -torch.inf).all()
        and (result.invalid == 1).all()
    )
    assert (
        result.full.isfinite().all()
        and (result.full[:, 1] == result.full[:, 2]).all()
        and (result.full[:, 0] < result.full[:, 1]).all()
    )


def test_work_is_tensor_work():
    """The number of operators does not depend on users or beams, and none waits for a value on
    the host.
    """
    trie, counts = ItemTrie(random_codes((8, 8, 8), 100), (8, 8, 8)), []
    for users, width in ((2, 2), (9, 2), (9, 7)):
        with CountOperators() as operators:
            grammar_search(ToyDecoder(users, (8, 8, 8)), trie, width, fill=True)
        counts.append(operators.seen)
        assert not [
            name
            for name in operators.seen
            if "local_scalar" in name or "nonzero" in name or "unique" in name
        ]
    assert counts[0] == counts[1] == counts[2]


def test_errors():
    trie, decoder = ItemTrie(random_codes(), SIZES), ToyDecoder(2, SIZES)
    with pytest.raises(ConfigError, match="'renormalised' sums over the trie's children"):
        grammar_search(decoder, trie, 3, score_type="renormalised")
    with pytest.raises(ConfigError, match="score_type is 'free'"):
        grammar_search(decoder, trie, 3, score_type="free")
    with pytest.raises(ConfigError, match="beam_width"):
        grammar_search(decoder, trie, 0)
    with pytest.raises(BackboneError, match="code level 0"):
        grammar_search(ToyDecoder(2, (7, 5, 4)), trie, 3)
