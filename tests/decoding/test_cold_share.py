"""A share of each list for items without training interactions: against plain loops."""

from __future__ import annotations

import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.decoding import ItemTrie, SearchResult
from recbole_genrec.decoding.cold_share import ColdItems, with_cold_share


def by_hand(items, codes, is_cold, k, share, barred):
    """One list: see the docstring of ``with_cold_share``."""
    warm = [item for item in items if item > 0 and not is_cold[item]]
    listed, waiting, n_cold, seen = [], [], 0, set()
    while len(listed) < k:
        if waiting and n_cold + 1 <= share * (len(listed) + 1) + 1e-6:
            listed.append(waiting.pop(0))
            n_cold += 1
        elif warm:
            item = warm.pop(0)
            listed.append(item)
            if tuple(codes[item]) not in seen:
                seen.add(tuple(codes[item]))
                for other in range(1, len(codes)):
                    alike = tuple(codes[other]) == tuple(codes[item])
                    if alike and is_cold[other] and other not in barred:
                        waiting.append(other)
        else:
            break
    return listed + [0] * (k - len(listed))


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5, 1.0])
def test_lists_are_those_of_plain_loops(share):
    draw = torch.Generator().manual_seed(int(1000 * share))
    n_items, k = 40, 8
    codes = torch.randint(0, 3, (n_items, 2), generator=draw)
    extra = torch.arange(n_items).unsqueeze(1)
    trie = ItemTrie(torch.cat([codes, extra], 1), (3, 3, n_items))
    is_cold = torch.rand(n_items, generator=draw) < 0.3
    is_cold[0] = False
    cold = ColdItems(codes, is_cold)

    order = torch.rand(16, n_items - 1, generator=draw).argsort(1) + 1
    items = order[:, :12]
    scores = -torch.rand(16, 12, generator=draw).sort(1).values
    items[3, 9:], scores[3, 9:] = 0, -torch.inf
    full = torch.full((16, n_items), -5.0).scatter(1, items, scores)
    full[:, 0] = -torch.inf
    excluded = order[:, -3:]
    bound = torch.full((16,), -1.0)
    result = with_cold_share(
        SearchResult(items, scores, bound, full), cold, trie, k, share, excluded
    )

    for row in range(16):
        barred = set(excluded[row].tolist())
        expected = by_hand(items[row].tolist(), codes.tolist(), is_cold, k, share, barred)
        assert result.items[row].tolist() == expected
        for length in range(1, k + 1):
            assert is_cold[expected[:length]].sum() <= share * length + 1e-6
        ranked = [item for item in expected if item]
        best = result.full[row].argsort(descending=True)[: len(ranked)].tolist()
        assert best == ranked
        assert bool(result.bound[row] == torch.inf) == bool(is_cold[expected].any())
    fall = result.scores[:, 1:] - result.scores[:, :-1]
    assert (fall[~fall.isnan()] < 0).all()
    assert is_cold[result.items].any()


def test_added_items_with_the_codes_of_others_enter_the_lists(tmp_path):
    folder = write_dataset(tmp_path)
    model, config, loaders = toy_model(folder, "TIGER", cold_share=0.5, dedup_spare=3)
    text = model.content.text[7]
    (twin,) = model.add_items([text], ["twin"])
    learned = model.codes[:, : model.item_codes.n_learned]
    assert learned[twin].tolist() == learned[7].tolist()

    batch = next(iter(loaders[2]))[0]
    lists = model.full_sort_predict(batch).argsort(1, descending=True)[:, :10]
    without = model.settings.cold_share
    config["cold_share"] = 0.0
    plain = model.full_sort_predict(batch).argsort(1, descending=True)[:, :11]
    config["cold_share"] = without
    alike = (learned == learned[twin]).all(1)
    alike[twin] = False
    for row, before in zip(lists.tolist(), plain.tolist(), strict=True):
        before = [item for item in before if item != twin]
        places = [place for place, item in enumerate(before) if alike[item]]
        if places and places[0] < 8:
            # behind the first item with these codes, where half of the places may be cold
            assert row.index(twin) == max(places[0] + 1, 1)
        assert [item for item in row if item != twin] == before[: 10 - (twin in row)]

    answer = model.recommend(["i3", "i4"], k=10)
    assert len(answer) == 10


def test_the_alphabet_of_the_extra_code_is_fixed(tmp_path):
    folder = write_dataset(tmp_path)
    model, *_ = toy_model(folder, "TIGER", extra_token_size=256, codebook_sizes=[4, 4])
    assert model.level_sizes == (4, 4, 256)
    assert model.vocabulary.level_sizes[-1] == 256
