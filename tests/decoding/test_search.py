"""Beam search, its certificate and the exact scores, against item-by-item scoring in plain
Python.
"""

from __future__ import annotations

import pytest
import torch
from decoders import SIZES, CountOperators, ToyDecoder, random_codes, reference_scores

from recbole_genrec.decoding import (
    SCORE_TYPES,
    ItemTrie,
    beam_search,
    beam_search_auto,
    exact_scores,
    exact_search,
    path_scores,
    trie_level,
)
from recbole_genrec.decoding.scores import child_log_probs
from recbole_genrec.errors import BackboneError, ConfigError

CLOSE = {"atol": 1e-5, "rtol": 0}


def everything(decoder, trie, width, score_type):
    return beam_search(decoder, trie, width, score_type=score_type, fill=True)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_all_modes_agree_with_item_by_item_scoring(score_type):
    codes = random_codes()
    items = list(range(1, len(codes)))
    decoder, trie = ToyDecoder(7, SIZES, score_type), ItemTrie(codes, SIZES)
    expected = reference_scores(decoder, codes, items, items).float()
    exact = exact_scores(decoder, trie, score_type=score_type, chunk_size=7)
    torch.testing.assert_close(exact[:, 1:], expected, **CLOSE)
    assert (exact[:, 0] < expected.amin(1)).all() and exact.isfinite().all()
    torch.testing.assert_close(
        path_scores(decoder, trie, torch.tensor(items).expand(7, -1), score_type=score_type),
        expected,
        **CLOSE,
    )

    result = everything(decoder, trie, len(items), score_type)
    order = expected.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(result.items, order + 1) and (result.bound == -torch.inf).all()
    torch.testing.assert_close(result.scores, expected.gather(1, order), **CLOSE)
    torch.testing.assert_close(result.full, exact, **CLOSE)
    searched = exact_search(decoder, trie, 5, score_type=score_type, fill=True)
    assert torch.equal(searched.items, result.items[:, :5]) and searched.certified(5).all()
    torch.testing.assert_close(searched.full, exact, **CLOSE)
    if score_type == "renormalised":
        torch.testing.assert_close(exact[:, 1:].logsumexp(1), torch.zeros(7), **CLOSE)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@pytest.mark.parametrize("subset", [False, True])
def test_layouts_give_identical_results(score_type, subset, monkeypatch):
    codes = random_codes(n=60, unique=False)
    decoder = ToyDecoder(5, SIZES, score_type)
    monkeypatch.setattr(trie_level, "NARROW", 10**6)
    results = []
    for budget in (256, 0):
        trie = ItemTrie(codes, SIZES, budget_mb=budget)
        trie = trie.subset(torch.arange(1, 61, 2)) if subset else trie
        beam = everything(decoder, trie, 8, score_type)
        results.append(
            (
                beam.items,
                beam.scores,
                beam.bound,
                beam.full,
                exact_scores(decoder, trie, score_type=score_type, chunk_size=9),
            )
        )
    assert torch.equal(results[0][0], results[1][0])
    for dense, window in zip(*results, strict=True):
        torch.testing.assert_close(dense, window, atol=1e-6, rtol=0)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_full_scores_order_unreached_items_by_bound(score_type):
    codes = random_codes(n=80)
    decoder, trie, width = ToyDecoder(6, SIZES, score_type), ItemTrie(codes, SIZES), 3
    exact = exact_scores(decoder, trie, score_type=score_type)
    result = everything(decoder, trie, width, score_type)
    assert result.full.shape == (6, 81) and result.full.isfinite().all()
    for user in range(6):
        bounds, reached = plain_beam(decoder, codes, exact, user, width, score_type)
        mine = result.full[user]
        torch.testing.assert_close(mine[reached], exact[user, reached], **CLOSE)
        others = sorted(set(range(1, 81)) - set(reached), key=lambda item: -bounds[item])
        assert mine[others].max() < mine[reached].min() and mine[0] < mine[1:].min()
        gaps = torch.tensor(
            [bounds[a] - bounds[b] for a, b in zip(others, others[1:], strict=False)]
        )
        torch.testing.assert_close(mine[others[:-1]] - mine[others[1:]], gaps, **CLOSE)
        best = sorted(reached, key=lambda item: -exact[user, item])[:width]
        assert result.items[user].tolist() == best
    assert torch.equal(result.full.topk(width).indices, result.items)


def plain_beam(decoder, codes, exact, user, width, score_type):
    """Beam search with dictionaries, without and with early finish: the bound of every item and
    the items reached.
    """
    rows, scores, finished = codes.tolist(), {(): 0.0}, set()
    one = decoder.select(torch.tensor([user]))
    bounds, items = {}, range(1, len(rows))
    for level in range(codes.shape[1]):
        candidates = {}
        for prefix, score in scores.items():
            values = one.start()
            for code in prefix:
                values = one.step(torch.tensor([[code]]), torch.zeros(1, 1, dtype=torch.int64))
            values = values[0, 0]
            legal = sorted(
                {rows[item][level] for item in items if tuple(rows[item][:level]) == prefix}
            )
            if score_type == "renormalised":
                values = values - values[legal].logsumexp(0)
            candidates.update({(*prefix, code): score + float(values[code]) for code in legal})
        for item in items:
            bounds[item] = candidates.get(tuple(rows[item][: level + 1]), bounds.get(item))
        alone = [
            prefix
            for prefix in candidates
            if sum(tuple(row[: level + 1]) == prefix for row in rows[1:]) == 1
        ]
        if score_type == "renormalised" or level + 1 == codes.shape[1]:
            finished |= {item for item in items if tuple(rows[item][: level + 1]) in alone}
            candidates = {
                prefix: score for prefix, score in candidates.items() if prefix not in alone
            }
        scores = dict(sorted(candidates.items(), key=lambda pair: -pair[1])[:width])
    return bounds, sorted(finished)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_subset_never_leaks_and_keeps_scores(score_type):
    codes = random_codes(n=60, unique=False)
    decoder, trie = ToyDecoder(5, SIZES, score_type), ItemTrie(codes, SIZES)
    full = exact_scores(decoder, trie, score_type=score_type)
    members = torch.tensor([3, 8, 9, 20, 21, 22, 45])
    outside = torch.tensor([item for item in range(61) if item not in members.tolist()])
    subset = trie.subset(members)
    for scores in (
        everything(decoder, subset, 7, score_type).full,
        exact_scores(decoder, subset, score_type=score_type, chunk_size=2),
    ):
        torch.testing.assert_close(scores[:, members], full[:, members], **CLOSE)
        assert (
            scores[:, outside].amax(1) < scores[:, members].amin(1)
        ).all() and scores.isfinite().all()
    result = beam_search(decoder, subset, 10, score_type=score_type)
    assert (
        result.items.sort(1).values == torch.cat([torch.zeros(3, dtype=torch.int64), members])
    ).all()
    assert (result.scores[:, 7:] == -torch.inf).all() and result.certified(10).all()
    narrow = beam_search(decoder, subset, 2, score_type=score_type, fill=True)
    assert torch.isin(narrow.items, members).all()
    assert (narrow.full[:, outside].amax(1) < narrow.full[:, members].amin(1)).all()
    path = path_scores(
        decoder, subset, torch.tensor([[3, 1, 0]]).expand(5, -1), score_type=score_type
    )
    torch.testing.assert_close(path[:, 0], full[:, 3], **CLOSE)
    assert (path[:, 1:] == lowest_score(decoder, subset, score_type)).all()


def lowest_score(decoder, trie, score_type):
    return exact_scores(decoder, trie, score_type=score_type)[:, :1]


def test_renormalising_within_a_subset():
    codes = random_codes()
    decoder, members = ToyDecoder(4, SIZES, "renormalised"), [2, 5, 11, 30]
    subset = ItemTrie(codes, SIZES).subset(torch.tensor(members), norm="subset")
    expected = reference_scores(decoder, codes, members, members).float()
    torch.testing.assert_close(
        exact_scores(decoder, subset, score_type="renormalised")[:, members], expected, **CLOSE
    )
    torch.testing.assert_close(
        everything(decoder, subset, 4, "renormalised").full[:, members], expected, **CLOSE
    )


@pytest.mark.parametrize("width", [1, 2, 3, 12])
def test_items_on_one_leaf_are_ranked_by_tie_order(width):
    codes = torch.tensor([[0, 0]] + [[1, 2]] * 4 + [[0, 1]] * 3)
    order = torch.tensor([0, 4, 3, 2, 1, 1, 2, 3])
    decoder, trie = ToyDecoder(3, (2, 3), scale=20.0), ItemTrie(codes, (2, 3), tie_order=order)
    path = path_scores(
        decoder, ItemTrie(codes[[0, 1, 5]], (2, 3)), torch.tensor([[1, 2]]).expand(3, -1)
    )
    result = everything(decoder, trie, width, "level")
    for user in range(3):
        groups = [[4, 3, 2, 1], [5, 6, 7]]
        expected = sum(groups if path[user, 0] > path[user, 1] else groups[::-1], [])
        found = result.items[user].tolist()
        assert found == (expected + [0] * 5)[:width]
        assert (
            result.scores[user, : min(width, 7)].diff() < 0
        ).all()  # strictly, however low the score
        assert (result.full[user, [4, 3, 2, 1]].diff() < 0).all() or width == 1
    torch.testing.assert_close(
        exact_scores(decoder, trie), everything(decoder, trie, 8, "level").full, **CLOSE
    )
    torch.testing.assert_close(
        path_scores(decoder, trie, torch.arange(1, 8).expand(3, -1)),
        exact_scores(decoder, trie)[:, 1:],
        atol=1e-6,
        rtol=0,
    )
    later = trie.subset(torch.tensor([1, 7]))
    torch.testing.assert_close(
        exact_scores(decoder, later)[:, [1, 7]],
        exact_scores(decoder, trie)[:, [1, 7]],
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@pytest.mark.parametrize(
    "codes, sizes",
    [
        ([[0, 0], [1, 3]], (2, 4)),  # one item
        ([[0], [4], [2], [0]], (5,)),  # one position
        ([[0, 0]] + [[1, 1]] * 5, (2, 2)),  # all items on one leaf
        (
            [[0, 0, 0], [1, 0, 7], [1, 0, 2], [0, 0, 7]],
            (2, 1, 9),
        ),  # unequal alphabets, fewer legal first codes than beams
        ([[0, 0, 0], [1, 0, 7], [-1, -1, -1], [0, 0, 7]], (2, 1, 9)),  # an item without codes
    ],
)
@pytest.mark.parametrize("width", [1, 2, 20])
def test_small_catalogues(codes, sizes, width, score_type):
    codes = torch.tensor(codes)
    items = [item for item in range(1, len(codes)) if codes[item, 0] >= 0]
    decoder, trie = ToyDecoder(3, sizes, score_type), ItemTrie(codes, sizes)
    result = everything(decoder, trie, width, score_type)
    assert result.items.shape == result.scores.shape == (3, width) and result.full.isfinite().all()
    assert torch.isin(result.items[result.items > 0], torch.tensor(items)).all()
    assert ((result.items > 0).sum(1) == min(width, len(items))).all()
    assert torch.equal(result.items == 0, result.scores == -torch.inf)
    expected = reference_scores(decoder, codes, items, items).float()
    torch.testing.assert_close(
        exact_scores(decoder, trie, score_type=score_type)[:, items], expected, **CLOSE
    )
    if width == 20:
        torch.testing.assert_close(result.full[:, items], expected, **CLOSE)
        assert result.certified(20).all()


def test_forced_codes_cost_nothing_and_skip_the_decoder():
    codes = torch.tensor([[0, 0, 0], [0, 2, 1], [1, 1, 3], [2, 0, 0]])
    trie = ItemTrie(codes, (3, 3, 4))
    for search in (
        lambda decoder, kind: beam_search(decoder, trie, 2, score_type=kind),
        lambda decoder, kind: exact_scores(decoder, trie, score_type=kind),
    ):
        forced, free = ToyDecoder(2, (3, 3, 4), "renormalised"), ToyDecoder(2, (3, 3, 4))
        search(forced, "renormalised")
        search(free, "level")
        assert (forced.calls, free.calls) == (1, 3)
    only_first = ItemTrie(codes[:, :1], (3,))
    decoder = ToyDecoder(2, (3, 3, 4), "renormalised")
    short, long = (
        beam_search(decoder, each, 3, score_type="renormalised") for each in (only_first, trie)
    )
    assert torch.equal(short.items, long.items) and torch.equal(short.scores, long.scores)
    branched = ItemTrie(
        torch.cat([codes, torch.tensor([[0, 2, 2]])]), (3, 3, 4)
    )  # the last level branches: every level is evaluated
    longer = exact_scores(decoder, branched, score_type="renormalised")
    assert torch.equal(
        longer[:, 2:4], exact_scores(decoder, trie, score_type="renormalised")[:, 2:4]
    )
    one = ItemTrie(codes[:2], (3, 3, 4))
    assert (beam_search(decoder, one, 1, score_type="renormalised").scores == 0).all()


@pytest.mark.parametrize("width", [1, 3, 10, 60])
def test_finished_prefixes_take_no_beam_and_do_not_change_the_exact_scores(width):
    sizes, codes = (16, 8, 8), random_codes((16, 8, 8), 120)
    counted, waiting = ToyDecoder(8, sizes, "renormalised"), ToyDecoder(8, sizes, "renormalised")
    trie = ItemTrie(codes, sizes)
    exact = exact_scores(counted, trie, score_type="renormalised")
    asked = []
    step = counted.step
    counted.step = lambda codes, parents: asked.append(codes.shape[1]) or step(codes, parents)
    result = everything(counted, trie, width, "renormalised")
    other = beam_search(waiting, trie, width, score_type="renormalised", fill=True, count=False)
    assert torch.equal(result.items, other.items) and torch.equal(result.bound, other.bound)
    torch.testing.assert_close(result.full, other.full, **CLOSE)
    torch.testing.assert_close(result.scores, exact.gather(1, result.items), **CLOSE)
    prefixes = codes[1:].unique(dim=0)[:, :2].unique(dim=0, return_counts=True)[1]
    assert (prefixes == 1).sum() > 20 and asked[-1] <= (prefixes > 1).sum()
    alone = ItemTrie(
        torch.tensor([[0, 0, 0], [0, 1, 2], [3, 1, 2], [5, 0, 0]]), sizes
    )  # every item has its own first code
    decoder = ToyDecoder(8, sizes, "renormalised")
    assert (
        beam_search(decoder, alone, 1, score_type="renormalised").certified(1).all()
        and decoder.calls == 1
    )


def test_equal_scores_prefer_smaller_codes_in_every_mode():
    codes = random_codes(n=50)
    decoder = ToyDecoder(4, SIZES, scale=0.0)
    trie, lexicographic = (
        ItemTrie(codes, SIZES),
        sorted(range(1, 51), key=lambda item: codes[item].tolist()),
    )
    for width in (1, 3, 10, 60):
        assert (
            beam_search(decoder, trie, width).items[:, :50] == torch.tensor(lexicographic[:width])
        ).all()
    assert (exact_search(decoder, trie, 10).items == torch.tensor(lexicographic[:10])).all()


def test_equal_sums_of_different_steps_are_ties_too():
    class Rounded(ToyDecoder):
        def _values(self):
            return super()._values().round()

    decoder, trie = Rounded(20, SIZES), ItemTrie(random_codes(n=50), SIZES)
    beam, exact = beam_search(decoder, trie, 50), exact_search(decoder, trie, 50)
    assert torch.equal(beam.items, exact.items) and (exact.scores.diff() == 0).any(1).all()


def test_a_subset_keeps_the_place_on_a_leaf_when_leaves_tie():
    trie = ItemTrie(torch.tensor([[0], [0], [0], [1]]), (2,)).subset(torch.tensor([2, 3]))
    assert (
        beam_search(ToyDecoder(2, (2,), scale=0.0), trie, 1).items == 3
    ).all()  # item 2 is the second on its leaf


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_results_do_not_depend_on_the_batch(score_type):
    codes = random_codes(n=60)
    decoder, trie = ToyDecoder(64, SIZES, score_type), ItemTrie(codes, SIZES)
    together = everything(decoder, trie, 6, score_type)
    for size in (1, 7):
        parts = [
            everything(decoder.select(rows), trie, 6, score_type)
            for rows in torch.arange(64).split(size)
        ]
        assert torch.equal(torch.cat([part.items for part in parts]), together.items)
        torch.testing.assert_close(torch.cat([part.full for part in parts]), together.full, **CLOSE)


def test_work_is_tensor_work():
    """The number of operators does not depend on users or beams, and none waits for a value on
    the host.
    """
    sizes, codes = (8, 8, 8), random_codes((8, 8, 8), 400)
    trie = ItemTrie(codes, sizes)
    for score_type in SCORE_TYPES:
        counts = []
        for users, width in ((2, 2), (9, 2), (9, 7), (3, 300)):
            decoder = ToyDecoder(users, sizes, score_type)
            with CountOperators() as operators:
                beam_search(decoder, trie, width, score_type=score_type, fill=True, count=False)
            counts.append(operators.seen)
            assert not [
                name
                for name in operators.seen
                if "local_scalar" in name or "nonzero" in name or "unique" in name
            ]
        assert counts[0] == counts[1] == counts[2]
        assert abs(counts[3].total() - counts[0].total()) <= 4 * len(
            sizes
        )  # nothing left to prune: one gather less per choice
    exact = []
    for users in (2, 9):
        with CountOperators() as operators:
            exact_scores(ToyDecoder(users, sizes), trie)
        exact.append(operators.seen)
    assert exact[0] == exact[1]


def test_errors():
    codes = random_codes()
    trie, decoder = ItemTrie(codes, SIZES), ToyDecoder(2, SIZES)
    with pytest.raises(ConfigError, match="score_type is 'free'"):
        beam_search(decoder, trie, 3, score_type="free")
    with pytest.raises(ConfigError, match="beam_width"):
        beam_search(decoder, trie, 0)
    with pytest.raises(ConfigError, match="beam_width"):
        beam_search_auto(decoder, trie, 3, beam_max=0)
    with pytest.raises(ConfigError, match="uncertified is 'drop'"):
        beam_search_auto(decoder, trie, 3, uncertified="drop")
    with pytest.raises(BackboneError, match="code level 0"):
        beam_search(ToyDecoder(2, (7, 5, 4)), trie, 3)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_a_batch_without_users(score_type):
    trie, decoder = ItemTrie(random_codes(), SIZES), ToyDecoder(0, SIZES, score_type)
    assert everything(decoder, trie, 3, score_type).items.shape == (0, 3)
    assert beam_search_auto(decoder, trie, 3, score_type=score_type).items.shape == (0, 3)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_scores_are_finite_where_a_decoder_forbids_all_codes(score_type):
    class Forbidding(ToyDecoder):
        def _values(self):
            return super()._values() - (torch.inf if self.level == 1 else 0)

    codes = random_codes()
    trie, decoder = ItemTrie(codes, SIZES), Forbidding(3, SIZES, score_type)
    exact = exact_scores(decoder, trie, score_type=score_type)
    assert exact.isfinite().all()
    result = everything(decoder, trie, 40, score_type)
    torch.testing.assert_close(result.full, exact, atol=1e-2, rtol=0)
    torch.testing.assert_close(
        path_scores(decoder, trie, result.items, score_type=score_type),
        result.scores,
        atol=1e-2,
        rtol=0,
    )


def test_legal_codes_keep_their_order_however_low_their_values_are():
    """A very small ``infer_temperature`` puts all legal codes far below the best illegal one."""
    trie = ItemTrie(torch.tensor([[0], [1], [2], [3]]), (5,))
    children = trie.children(0, torch.zeros(1, 1, dtype=torch.long))
    values = torch.tensor([[[-9e9, -40_003.0, -40_001.0, -40_002.0, 0.0]]])
    found = child_log_probs(children, values, "renormalised")[0, 0]
    expected = torch.tensor([-3.0, -1.0, -2.0]).log_softmax(0)
    torch.testing.assert_close(found[1:4], expected, atol=5e-3, rtol=0)  # of float32 at 40,000
    nothing = torch.full_like(values, -torch.inf)
    nothing = child_log_probs(children, nothing, "renormalised")[0, 0]
    torch.testing.assert_close(nothing[1:4], torch.full((3,), 1 / 3).log(), atol=1e-3, rtol=0)


def test_items_on_one_leaf_stay_near_its_score():
    codes = torch.tensor([[0, 0], *[[1, 2]] * 9, [0, 1]])
    decoder, trie = ToyDecoder(3, (2, 3), scale=1.0), ItemTrie(codes, (2, 3))
    full = exact_scores(decoder, trie)
    one = exact_scores(decoder, ItemTrie(codes[[0, 1, 10]], (2, 3)))[:, 1:2]
    torch.testing.assert_close(full[:, 1:10], one.expand(-1, 9), **CLOSE)
    assert (full[:, 1:10].diff() < 0).all()


def test_codes_of_any_integer_type_and_candidates_in_a_list():
    codes, decoder = random_codes(), ToyDecoder(2, SIZES)
    best = everything(decoder, ItemTrie(codes, SIZES).subset([3, 5]), 2, "level")
    for kind in (torch.uint8, torch.int16):
        assert torch.equal(
            everything(decoder, ItemTrie(codes.to(kind), SIZES).subset([3, 5]), 2, "level").full,
            best.full,
        )
