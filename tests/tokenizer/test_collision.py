"""Collision policies against naive references and the published Sinkhorn numbers."""

import math
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.collision import (
    codes_for_new_items,
    collision_stats,
    item_groups,
    parse_policies,
    repair_collisions,
    resolve_collisions,
    sinkhorn_round,
)
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn, sinkhorn_codes

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def random_codes(n, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(size, (n,), generator=generator) for size in sizes], dim=1)
    return codes, [torch.rand(n, size, generator=generator) for size in sizes]


def of_rows(levels):
    """Distances as the policies take them."""
    return lambda rows: [level[rows] for level in levels]


def naive_nearest_free(codes, sizes, distances):
    """The rule in words, every id tried one after another."""
    rows = [tuple(row) for row in codes.tolist()]
    members = {}
    for row, name in enumerate(rows):
        members.setdefault(name, []).append(row)
    taken = set(rows)
    last = len(sizes) - 1
    for name, group in members.items():  # in order of first appearance
        for row in sorted(group, key=lambda r: (float(distances[last][r, name[last]]), r))[1:]:
            near = [
                sorted(range(size), key=lambda k, level=level: float(distances[level][row, k]))
                for level, size in enumerate(sizes)
            ]
            for depth in range(last, -1, -1):
                free = [
                    name[:depth] + tail
                    for tail in product(*near[depth:])
                    if name[:depth] + tail not in taken
                ]
                if free:
                    rows[row] = free[0]
                    taken.add(free[0])
                    break
            else:
                raise AssertionError("no id left")
    return torch.tensor(rows)


catalogues = st.tuples(
    st.integers(1, 30), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 10**6)
)


@settings(max_examples=60, deadline=None)
@given(catalogues)
def test_statistics_equal_counting_by_hand(catalogue):
    n, sizes, seed = catalogue
    codes, _ = random_codes(n, sizes, seed)
    count = Counter(map(tuple, codes.tolist()))
    stats = collision_stats(codes)
    assert stats["unique_ids"] == len(count)
    assert stats["largest_group"] == max(count.values())
    assert stats["colliding_items"] == sum(k for k in count.values() if k > 1)
    assert stats["collision_rate"] == stats["colliding_items"] / n
    assert (stats["levels"], stats["items"]) == (len(sizes), n)
    group, members = item_groups(codes)
    names = sorted(count)
    assert [names[g] for g in group.tolist()] == list(map(tuple, codes.tolist()))
    assert members.tolist() == [count[name] for name in names]


@settings(max_examples=60, deadline=None)
@given(catalogues, st.integers(0, 3))
def test_extra_token_counts_equal_codes_in_item_order(catalogue, spare):
    n, sizes, seed = catalogue
    codes, _ = random_codes(n, sizes, seed)
    seen = Counter()
    expected = []
    for row in map(tuple, codes.tolist()):
        expected.append([*row, seen[row]])
        seen[row] += 1
    result, new_sizes = resolve_collisions(codes, sizes, ["extra_token"], spare=spare)
    assert result.tolist() == expected
    assert new_sizes == (*sizes, max(seen.values()) + spare)


@settings(max_examples=100, deadline=None)
@given(catalogues)
def test_nearest_free_equals_the_rule_in_words(catalogue):
    n, sizes, seed = catalogue
    n = min(n, int(np.prod(sizes)))
    codes, distances = random_codes(n, sizes, seed)
    result, new_sizes = resolve_collisions(
        codes, sizes, "nearest_free", distances=of_rows(distances)
    )
    assert new_sizes == tuple(sizes)
    assert result.tolist() == naive_nearest_free(codes, sizes, distances).tolist()
    assert len({tuple(row) for row in result.tolist()}) == n


def test_nearest_free_by_hand():
    # items 0, 1, 3 share (0, 0); item 1 is nearest to its last centroid and stays; item 3 goes
    # before item 0
    codes = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 0]])
    last = torch.tensor([[0.9, 1.0, 2.0], [0.1, 5.0, 5.0], [9.0, 0.0, 9.0], [0.5, 0.6, 0.7]])
    first = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    # item 3: last code 1 is taken by item 2, so 2; item 0: nothing is free under first code 0, so
    # first code 1 and its nearest last code 0
    expected = [[1, 0], [0, 0], [0, 1], [0, 2]]
    result, _ = resolve_collisions(
        codes, (3, 3), ["nearest_free"], distances=of_rows([first, last])
    )
    assert result.tolist() == expected
    assert codes[0].tolist() == [0, 0], "the input must not change"


def test_nearest_free_fills_a_full_table():
    codes = torch.zeros(6, 2, dtype=torch.long)
    _, distances = random_codes(6, (2, 3), 0)
    result, _ = resolve_collisions(codes, (2, 3), "nearest_free", distances=of_rows(distances))
    assert sorted(map(tuple, result.tolist())) == list(product(range(2), range(3)))


def test_none_and_chains():
    codes, distances = random_codes(40, (2, 16), 3)
    assert resolve_collisions(codes, (2, 16), "none")[0] is codes
    distances = of_rows(distances)
    chained, sizes = resolve_collisions(codes, (2, 16), "both", distances=distances, epsilon=0.05)
    assert collision_stats(chained)["unique_ids"] == 40 and len(sizes) == 3
    assert torch.equal(chained[:, 0], codes[:, 0]), "Sinkhorn repair touches the last level only"
    free = torch.tensor([[0, 0], [0, 1], [1, 0]])
    assert resolve_collisions(free, (2, 2), "both", distances=distances)[1] == (2, 2), (
        "no extra level when none is needed"
    )
    assert resolve_collisions(free, (2, 2), "dedup_token")[1] == (2, 2, 1), (
        "alone it is always there"
    )


def test_policy_names():
    assert parse_policies("dedup_token") == ["extra_token"]
    assert parse_policies("reassign") == ["nearest_free"]
    assert (
        parse_policies("both")
        == parse_policies(["sinkhorn", "dedup_token"])
        == ["sinkhorn", "extra_token"]
    )
    assert parse_policies(["sinkhorn", "nearest_free"]) == ["sinkhorn", "nearest_free"]
    with pytest.raises(ConfigError, match="unknown policy 'sinkhorm'; did you mean 'sinkhorn'"):
        parse_policies(["sinkhorm"])
    with pytest.raises(ConfigError, match="did you mean 'extra_token'"):
        parse_policies("extra-tokens")
    with pytest.raises(ConfigError, match="'none' must stand alone"):
        parse_policies(["sinkhorn", "none"])
    with pytest.raises(ConfigError, match="'extra_token' must come last"):
        parse_policies(["extra_token", "sinkhorn"])
    with pytest.raises(ConfigError, match="list is empty"):
        parse_policies([])


def test_impossible_requests_are_errors():
    codes, distances = random_codes(7, (2, 3), 0)
    for policy in ("nearest_free", "sinkhorn"):
        with pytest.raises(ConfigError, match=f"{policy}' needs distances"):
            resolve_collisions(codes[:5], (2, 3), policy)
    with pytest.raises(
        ConfigError,
        match=r"7 items, but levels of \[2, 3\] codes can name 6 only. Add 'extra_token'",
    ):
        resolve_collisions(codes, (2, 3), "nearest_free", distances=of_rows(distances))
    both = resolve_collisions(codes, (2, 3), "both", distances=of_rows(distances))
    assert both[1][:2] == (2, 3)
    with pytest.raises(DataError, match="catalogue has no item"):
        resolve_collisions(codes[:0], (2, 3), "extra_token")
    with pytest.raises(DataError, match="a distance is no finite number"):
        sinkhorn(distances[0] * math.nan, 0.003, 5)


def test_sinkhorn_leaves_duplicates_where_there_are_fewer_ids_than_items():
    codes, distances = random_codes(9, (2, 2, 2), 0)
    distances = of_rows(distances)
    found, sizes = resolve_collisions(codes, (2, 2, 2), "sinkhorn", distances=distances)
    assert (
        sizes == (2, 2, 2)
        and collision_stats(found)["unique_ids"] >= collision_stats(codes)["unique_ids"]
    )


@pytest.mark.parametrize("epsilon", [0.05, 0.003, 0.0025])
@pytest.mark.parametrize("shape", [(60, 16), (3, 24, 8)])
def test_sinkhorn_scales_rows_then_columns(epsilon, shape):
    distances = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = distances.amin((-2, -1), True), distances.amax((-2, -1), True)
    middle = (low + high) / 2
    logits = -(distances - middle) / (high - middle + 1e-5) / epsilon
    plan = torch.exp(logits - logits.amax(-1, True))
    for _ in range(30):
        plan = plan / plan.sum(-1, keepdim=True) / shape[-2]
        plan = plan / plan.sum(-2, keepdim=True) / shape[-1]
    found = sinkhorn(distances, epsilon, 30)
    torch.testing.assert_close(found, plan * shape[-2], rtol=1e-9, atol=1e-12)
    assert torch.equal(sinkhorn_codes(distances, epsilon, 30), plan.argmax(-1))


def test_sinkhorn_equals_the_published_numbers():
    data = golden("sinkhorn_last_level")
    iterations = int(data["iters"])
    for case in range(int(data["n_cases"])):
        distances = data[f"case{case}/distances"]
        for number, epsilon in enumerate(data["epsilons"].tolist()):
            expected = {
                name: data[f"case{case}/eps{number}/{name}"] for name in ("Q", "codes", "robust")
            }
            plan, codes = (
                sinkhorn(distances, epsilon, iterations),
                sinkhorn_codes(distances, epsilon, iterations),
            )
            assert (plan - expected["Q"]).abs().max() < 1e-8
            assert torch.equal(codes[expected["robust"]], expected["codes"][expected["robust"]])
            chosen = expected["Q"].gather(1, codes[:, None])[:, 0]
            assert (chosen >= expected["Q"].amax(1) - 1e-5).all()


@pytest.mark.parametrize("name", ["collision_repair", "collision_repair_cap"])
def test_repair_equals_the_published_rounds(name):
    data = golden(name)
    distances, setting = data["last_level_distances"], (float(data["epsilon"]), int(data["iters"]))
    rounds = data["codes_per_round"]
    assert len(rounds) == int(data["n_rounds"]) + 1
    for before, after in zip(rounds[:-1], rounds[1:], strict=True):
        assert torch.equal(sinkhorn_round(before, distances.__getitem__, *setting), after)
    for given_as in (distances, distances.float()):
        repaired = repair_collisions(
            data["codes_in"], given_as.__getitem__, *setting, int(data["max_rounds"])
        )
        assert torch.equal(repaired, data["codes_out"])


def test_repair_returns_its_best_round():
    data = golden("collision_repair_cap")
    unique = data["unique_per_round"]
    for limit in (0, 5, 8, 13):
        codes = repair_collisions(
            data["codes_in"],
            data["last_level_distances"].__getitem__,
            float(data["epsilon"]),
            int(data["iters"]),
            limit,
        )
        assert collision_stats(codes)["unique_ids"] == unique[: limit + 1].max()


def test_sinkhorn_log_domain_and_balance():
    generator = torch.Generator().manual_seed(0)
    items, codes = (
        torch.randn(512, 32, generator=generator),
        torch.randn(256, 32, generator=generator),
    )
    distances = torch.cdist(items, codes).square()
    plan = sinkhorn(distances, 0.003, 50)
    d = distances.double()
    middle = (d.max() + d.min()) / 2
    log = -(d - middle) / (d.max() - middle + 1e-5) / 0.003
    for _ in range(50):
        log = log - log.logsumexp(1, keepdim=True)
        log = log - log.logsumexp(0, keepdim=True) + torch.tensor(512 / 256).log()
    assert torch.allclose(plan, log.exp(), atol=1e-9)
    assert torch.allclose(plan.sum(0), torch.full((256,), 2.0).double())
    assert plan.argmax(1).bincount().max() * 4 <= distances.argmin(1).bincount().max()
    batch = sinkhorn(torch.stack([distances[:9], distances[9:18]]), 0.05, 50)
    assert torch.allclose(batch[1], sinkhorn(distances[9:18], 0.05, 50))
    with pytest.raises(ConfigError, match="epsilon 1e-05 is too small"):
        sinkhorn(distances, 1e-5, 50)


def test_new_items_take_the_next_free_value_and_fall_back_when_there_is_none():
    existing = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 1, 0]])
    sizes = (2, 2, 3)
    new = torch.tensor([[0, 0], [1, 1], [0, 0], [1, 0]])
    levels = [torch.tensor([[0.0, 1.0]]).repeat(4, 1), torch.tensor([[0.0, 1.0]]).repeat(4, 1)]
    codes, fallbacks = codes_for_new_items(existing, sizes, new, of_rows(levels))
    # the third item finds (0, 0) full and takes the other code of the last learned level
    assert codes.tolist() == [[0, 0, 2], [1, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert fallbacks == 1
    with pytest.raises(
        ConfigError, match=r"New item 2: no free value is left under the codes \[0, 0\]"
    ):
        codes_for_new_items(existing, sizes, new)
    with pytest.raises(ConfigError, match="All 12 ids are taken"):
        codes_for_new_items(
            existing,
            sizes,
            torch.zeros(10, 2, dtype=torch.long),
            of_rows([torch.rand(10, 2), torch.rand(10, 2)]),
        )
    assert codes_for_new_items(existing, sizes, new[:0])[0].shape == (0, 3)


def test_new_items_without_an_extra_level_move_to_the_nearest_free_codes():
    existing = torch.tensor([[0, 0], [0, 2]])
    levels = [torch.tensor([[0.0, 1.0, 9.0]] * 2), torch.tensor([[0.1, 0.3, 0.2]] * 2)]
    codes, fallbacks = codes_for_new_items(
        existing, (3, 3), torch.tensor([[0, 0], [2, 2]]), of_rows(levels)
    )
    assert codes.tolist() == [[0, 1], [2, 2]] and fallbacks == 1
