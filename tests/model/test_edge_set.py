"""Means of the items below edges, and states without padding, against plain loops."""

from __future__ import annotations

import pytest
import torch

from recbole_genrec.decoding import ItemTrie
from recbole_genrec.model.timeline.edge_set import competing_edges, every_edge
from recbole_genrec.model.timeline.trunk import RelativeTransformer, Slots, attention

SIZES = (4, 3, 5)


@pytest.fixture(params=[None, 17], ids=["catalogue", "added items"])
def trie(request):
    generator = torch.Generator().manual_seed(4)
    codes = torch.stack([torch.randint(size, (21,), generator=generator) for size in SIZES], 1)
    codes[5] = codes[9]  # two items on one leaf
    codes[20] = torch.tensor([3, 2, 4])
    return ItemTrie(codes, SIZES, budget_mb=0, n_counted=request.param)


def slow_means(trie, table):
    """For each level the mean below each edge, item by item."""
    levels = []
    for depth, level in enumerate(trie.levels):
        below = [[] for _ in range(level.n_edges)]
        for item in range(1, trie.n_items):
            path = trie.paths(trie.leaf_of_item[item])
            below[int(path[depth + 1])].append(item)
        rows = []
        for items in below:
            known = [item for item in items if trie.n_counted is None or item < trie.n_counted]
            rows.append(table[known or items].mean(0))
        levels.append(torch.stack(rows))
    return levels


def test_means_and_their_gradient(trie):
    table = torch.randn(trie.n_items, 6, dtype=torch.double, requires_grad=True)
    means = every_edge(trie).means(table)
    weights = [torch.randn_like(mean) for mean in means]
    expected = slow_means(trie, table)
    for mean, slow in zip(means, expected, strict=True):
        torch.testing.assert_close(mean, slow)
    totals = []
    for result in (means, expected):
        totals.append(sum((a * b).sum() for a, b in zip(result, weights, strict=True)))
    ours, slow = (torch.autograd.grad(total, table)[0] for total in totals)
    torch.testing.assert_close(ours, slow)
    assert not ours[0].any()


def test_scales_of_levels_and_their_gradients(trie):
    table = torch.randn(trie.n_items, 6, dtype=torch.double, requires_grad=True)
    scales = torch.tensor([0.5, -2.0, 3.0], dtype=torch.double, requires_grad=True)
    scaled = every_edge(trie).means(table, scales)
    expected = [mean * scale for mean, scale in zip(slow_means(trie, table), scales, strict=True)]
    weights = [torch.randn_like(mean) for mean in scaled]
    totals = []
    for result in (scaled, expected):
        totals.append(sum((a * b).sum() for a, b in zip(result, weights, strict=True)))
    ours, slow = (torch.autograd.grad(total, (table, scales)) for total in totals)
    for mine, other in zip((*scaled, *ours), (*expected, *slow), strict=True):
        torch.testing.assert_close(mine, other)


def test_edges_that_compete_are_those_with_siblings(trie):
    among = competing_edges(trie)
    table = torch.randn(trie.n_items, 6)
    means, every = among.means(table), every_edge(trie).means(table)
    assert competing_edges(trie) is among
    for depth, level in enumerate(trie.levels):
        parents = level.parent[:-1].tolist()
        siblings = [edge for edge, parent in enumerate(parents) if parents.count(parent) > 1]
        assert among.edges[depth].tolist() == siblings
        assert among.places[depth][among.edges[depth]].tolist() == list(range(len(siblings)))
        torch.testing.assert_close(means[depth], every[depth][siblings])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_history_has_the_states_that_it_has_alone(norm):
    torch.manual_seed(0)
    model = RelativeTransformer(8, 2, 2, 0.5, norm, n_distances=4).eval()
    torch.nn.init.normal_(model.distance)
    history = torch.tensor([[3, 4, 1, 2, 6], [5, 0, 0, 0, 0], [2, 7, 7, 0, 0]])
    table = torch.randn(8, 8)
    slots = Slots.of(history)
    together = model(table[history.flatten()[slots.places]], slots)
    alone = []
    for row in history:
        items = row[row > 0].unsqueeze(0)
        alone.append(model(table[items[0]], Slots.of(items)))
    torch.testing.assert_close(together, torch.cat(alone))
    assert slots.positions.tolist() == [0, 1, 2, 3, 4, 0, 0, 1, 2]
    assert torch.equal(slots.without_padding(slots.padded(together)), together)


def test_attention_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 4)
    bias = torch.randn(2, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    whole = attention(query, key, value, bias, 0.0)
    nearly_whole = attention(query, key, value, bias, 1e-7)  # a rate that rounds to none
    torch.testing.assert_close(nearly_whole, whole)
    draws = [attention(query, key, value, bias, 0.5) for _ in range(4000)]
    torch.testing.assert_close(torch.stack(draws).mean(0), whole, atol=0.1, rtol=0)
    assert not torch.equal(draws[0], draws[1])
