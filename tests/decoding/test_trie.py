"""The item trie holds exactly the rows of the code table, in every layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_genrec.decoding import ItemTrie, trie_level
from recbole_genrec.errors import ConfigError, DataError


@st.composite
def code_tables(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    rows = draw(
        st.lists(
            st.tuples(
                *(
                    st.integers(-1 if level == 0 else 0, size - 1)
                    for level, size in enumerate(sizes)
                )
            ),
            min_size=1,
            max_size=30,
        )
    )
    return torch.tensor([(0,) * len(sizes), *rows]), sizes


def walk(trie: ItemTrie) -> dict[tuple[int, ...], int]:
    """All paths from the root, with the leaf each ends in."""
    paths = {(): 0}
    for t in range(trie.depth):
        longer = {}
        for path, node in paths.items():
            codes, nodes, _ = trie.children(t, torch.tensor([node]))
            codes = range(nodes.shape[-1]) if codes is None else codes[0].tolist()
            longer.update(
                {
                    (*path, code): child
                    for code, child in zip(codes, nodes[0].tolist(), strict=True)
                    if child >= 0
                }
            )
        paths = longer
    return paths


def items_by_path(codes: torch.Tensor, items) -> dict[tuple[int, ...], list[int]]:
    found: dict[tuple[int, ...], list[int]] = {}
    for item in items:
        found.setdefault(tuple(codes[item].tolist()), []).append(item)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(code_tables(), st.sampled_from([0, 256]), st.data())
def test_paths_are_the_rows(table, budget, data):
    codes, sizes = table
    coded = [item for item in range(1, len(codes)) if codes[item, 0] >= 0]
    if not coded:
        with pytest.raises(DataError, match="nothing to search"):
            ItemTrie(codes, sizes)
        return
    trie = ItemTrie(codes, sizes, budget_mb=budget)
    expected = items_by_path(codes, coded)
    assert trie.n_leaves == len(expected)
    assert_same(trie, expected)

    members = data.draw(st.lists(st.sampled_from(coded), min_size=1, unique=True))
    subset = trie.subset(torch.tensor(members))
    assert_same(subset, items_by_path(codes, sorted(members)))
    smaller = subset.subset(torch.tensor(members[:1]))
    assert_same(smaller, items_by_path(codes, members[:1]))


def assert_same(trie: ItemTrie, expected: dict[tuple[int, ...], list[int]]) -> None:
    leaves = walk(trie)
    assert leaves.keys() == expected.keys()
    assert [path for path, _ in sorted(leaves.items(), key=lambda pair: pair[1])] == sorted(
        expected
    )  # lexicographic ids
    for path, leaf in leaves.items():
        items = trie.leaf_items[trie.leaf_ptr[leaf] : trie.leaf_ptr[leaf + 1]]
        assert items.tolist() == expected[path]
        assert trie.leaf_of_item[items].tolist() == [leaf] * len(items)


def test_layouts_agree_on_every_node(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    sizes = (7, 3, 40, 5)
    codes = torch.stack([torch.randint(size, (300,), generator=generator) for size in sizes], 1)
    monkeypatch.setattr(trie_level, "NARROW", 10**6)
    dense, window = ItemTrie(codes, sizes), ItemTrie(codes, sizes, budget_mb=0)
    assert all(level.table is not None for level in dense.levels) and all(
        level.table is None for level in window.levels
    )
    for t in range(4):
        nodes = torch.arange(-1, dense.levels[t].n_nodes)
        assert dense.levels[t].n_nodes == window.levels[t].n_nodes
        table, (listed, edges, _) = dense.children(t, nodes).nodes, window.children(t, nodes)
        rebuilt = torch.full_like(table, -1)
        row, column = (edges >= 0).nonzero().unbind(1)
        rebuilt[row, listed[row, column]] = edges[row, column]
        assert torch.equal(rebuilt, table) and (table[0] == -1).all() and (edges[0] == -1).all()
        children = torch.arange(dense.levels[t].n_edges)
        parents = dense.levels[t].parent[children].long()
        for trie in (dense, window):
            found = (
                trie.children(t, parents)
                .nodes.gather(1, trie.levels[t].slot(children).unsqueeze(1))
                .squeeze(1)
            )
            assert torch.equal(found.long(), children)


@pytest.mark.parametrize("budget_mb", [256, 0])
def test_a_code_leads_where_the_children_say(budget_mb):
    codes = torch.tensor([[0, 0], [0, 1], [0, 2], [2, 1], [3, 0], [3, 2]])
    whole = ItemTrie(codes, (4, 3), budget_mb=budget_mb)
    for trie in (whole, whole.subset(torch.tensor([2, 4]))):
        for t, size in enumerate(trie.sizes):
            nodes = torch.arange(-1, trie.levels[t].n_nodes)
            listed, children, _ = trie.children(t, nodes)
            expected = torch.full((len(nodes), size), -1)
            for row, reached in enumerate(children.tolist()):
                places = range(size) if listed is None else listed[row].tolist()
                for code, child in zip(places, reached, strict=True):
                    if child >= 0:
                        expected[row, code] = child
            pairs = nodes.unsqueeze(1).expand(-1, size), torch.arange(size).expand(len(nodes), -1)
            assert torch.equal(trie.child(t, *pairs), expected)


def test_layout_follows_branching_and_budget():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(64, (2000, 3), generator=generator)
    trie = ItemTrie(codes, (64,) * 3)
    assert [level.table is not None for level in trie.levels] == [
        True,
        True,
        False,
    ]  # the last level has few children per node
    head_only = ItemTrie(codes, (64,) * 3, budget_mb=4 * 2 * 64 / 2**20)
    assert [level.table is not None for level in head_only.levels] == [True, False, False]
    assert head_only.memory_bytes < trie.memory_bytes


def test_paths_and_forced_tail():
    codes = torch.tensor([[0, 0, 0], [1, 2, 0], [1, 0, 3], [0, 2, 3], [1, 0, 3]])
    trie = ItemTrie(codes, (2, 3, 4))
    assert trie.forced_from == 2 and ItemTrie(codes[:2], (2, 3, 4)).forced_from == 0
    assert [nodes.tolist() for nodes in trie.paths(trie.leaf_of_item[torch.tensor([1, 2, 3])])] == [
        [0, 0, 0],
        [1, 1, 0],
        [2, 1, 0],
        [2, 1, 0],
    ]
    assert [nodes.tolist() for nodes in trie.paths(torch.tensor([-1]))] == [[-1]] * 4
    assert trie.leaf_width == 2 and trie.max_rank == 1
    reverse = ItemTrie(codes, (2, 3, 4), tie_order=torch.tensor([0, 0, 9, 0, 5]))
    assert reverse.leaf_items.tolist() == [3, 4, 2, 1]


@pytest.mark.parametrize("norm", ["full", "subset"])
def test_a_part_of_a_subset_sums_over_the_children_of_the_subset(norm):
    codes = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
    subset = ItemTrie(codes, (3, 2)).subset(torch.tensor([1, 2, 3]), norm)
    part = subset.subset(torch.tensor([2]))
    root = torch.tensor([0])
    assert part.children(0, root).nodes.tolist() == [[-1, 1, -1]]
    assert torch.equal(part.children(0, root).counted, subset.children(0, root).counted)


def test_subset_keeps_ranks_and_moves():
    codes = torch.tensor([[0], [0], [0], [0], [1]])
    subset = ItemTrie(codes, (2,)).subset(torch.tensor([3, 2])).to("cpu")
    assert subset.leaf_items.tolist() == [2, 3] and subset.leaf_rank.tolist() == [1, 2]
    assert subset.children(0, torch.tensor([0])).nodes.tolist() == [[0, -1]]
    assert subset.children(0, torch.tensor([0])).counted.tolist() == [[0, 1]]
    strict = ItemTrie(codes, (2,)).subset(torch.tensor([3]), norm="subset")
    assert strict.children(0, torch.tensor([0])).counted.tolist() == [[0, -1]]


def test_errors_name_the_item():
    codes = torch.tensor([[0, 0], [1, 1], [1, 5]])
    with pytest.raises(DataError, match="Item 2 has code 5 at level 1"):
        ItemTrie(codes, (2, 2))
    with pytest.raises(DataError, match="one size per column"):
        ItemTrie(codes, (2, 2, 2))
    with pytest.raises(DataError, match="Item id 3 is not"):
        ItemTrie(codes, (2, 6), items=torch.tensor([1, 3]))
    trie = ItemTrie(codes, (2, 6), items=torch.tensor([1, 1]))
    assert trie.leaf_items.tolist() == [1]
    with pytest.raises(DataError, match="Item id 0 is not"):
        trie.subset(torch.tensor([0]))
    with pytest.raises(DataError, match="candidate set"):
        trie.subset(torch.tensor([2]))
    with pytest.raises(ConfigError, match="subset_norm"):
        trie.subset(torch.tensor([1]), norm="none")


def test_the_only_leaf_below_a_node():
    codes = torch.tensor(
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 2], [1, 1, 1], [1, 1, 3], [2, 2, 2]]
    )
    trie = ItemTrie(codes, (3, 3, 4))  # leaves 000 (two items), 012, 111, 113, 222
    expected = [[-1], [-1, -1, 4], [0, 1, -1, 4], [0, 1, 2, 3, 4]]
    for t, leaves in enumerate(expected):
        assert trie.leaf_below(t, torch.tensor([*range(len(leaves)), -1])).tolist() == [*leaves, -1]
