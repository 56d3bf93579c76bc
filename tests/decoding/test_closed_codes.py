"""Codes that leave the softmax of a training step, against plain Python over all items."""

from __future__ import annotations

import torch
from decoders import random_codes
from hypothesis import given
from hypothesis import strategies as st

from recbole_genrec.decoding import (
    ALL_OPEN,
    ClosedCodes,
    ItemTrie,
    histories_of,
    item_cross_entropy,
)


def closed_by_hand(codes, target: int, history) -> list[set[int]]:
    """For each level the codes behind the target's prefix that lead to items of the history only.

    Args:
        codes: a list of codes for each item; row 0 is the padding item.
        target: an item id.
        history: item ids.
    """
    left_out = set(history) - {target}
    items = range(1, len(codes))
    closed = []
    for level in range(len(codes[target])):
        prefix = codes[target][:level]
        below: dict[int, list[int]] = {}
        for item in items:
            if codes[item][:level] == prefix:
                below.setdefault(codes[item][level], []).append(item)
        closed.append({code for code, behind in below.items() if left_out.issuperset(behind)})
    return closed


@st.composite
def steps(draw):
    """A trie, targets and histories, many of which share prefixes or leaves."""
    sizes = draw(st.sampled_from([(3, 2, 2), (4, 3), (6,), (2, 5, 2), (16, 3, 3)]))
    n = draw(st.integers(1, 30))
    codes = random_codes(sizes, n, draw(st.integers(0, 9999)), unique=draw(st.booleans()))
    n = len(codes) - 1
    trie = ItemTrie(codes, sizes, budget_mb=draw(st.sampled_from([0.0, 256.0])))
    rows = draw(st.integers(1, 4))
    item = st.integers(1, n)
    target = draw(st.lists(item, min_size=rows, max_size=rows))
    width = draw(st.integers(0, 2 * n))
    row = st.lists(st.integers(0, n), min_size=width, max_size=width)
    history = draw(st.lists(row, min_size=rows, max_size=rows))
    return codes, sizes, trie, target, history


@given(steps())
def test_a_code_leaves_when_every_item_below_it_stands_in_the_history(step):
    codes, sizes, trie, target, history = step
    histories = torch.tensor(history, dtype=torch.long).view(len(target), -1)
    closed = ClosedCodes.of(trie, torch.tensor(target), histories)

    blocks = [torch.randn(len(target), size) for size in sizes]
    hidden = [block.isinf() for block in closed.hide(iter(blocks))]
    first = [sum(sizes[:level]) for level in range(len(sizes))]
    logits = torch.randn(len(target), len(sizes) + 1, sum(sizes) + 2)
    of_tokens = closed.hide_tokens(logits, first).isinf()
    for row, item in enumerate(target):
        expected = closed_by_hand(codes.tolist(), item, history[row])
        for level, leaves in enumerate(expected):
            assert set(hidden[level][row].nonzero().flatten().tolist()) == leaves
            tokens = {first[level] + code for code in leaves}
            assert set(of_tokens[row, level].nonzero().flatten().tolist()) == tokens
            assert int(codes[item, level]) not in leaves
        assert not of_tokens[row, -1].any(), "the row of an end token stays as it is"


@given(steps())
def test_the_remaining_items_share_the_probability(step):
    """With unique codes the loss along the trie is the softmax over the items that compete."""
    codes, sizes, trie, target, history = step
    if len(codes.unique(dim=0)) < len(codes):
        return
    histories = torch.tensor(history, dtype=torch.long).view(len(target), -1)
    tables = [torch.randn(size, dtype=torch.float64) for size in sizes]
    blocks = [table.expand(len(target), -1) for table in tables]
    hidden = ClosedCodes.of(trie, torch.tensor(target), histories).hide(blocks)
    loss = item_cross_entropy(trie, torch.tensor(target), hidden)

    def probability(item: int, left_out: set[int]) -> float:
        """Product over levels of the share among the codes that lead to an item that competes."""
        value = 1.0
        for level in range(len(sizes)):
            prefix = codes[item, :level].tolist()
            rows = [n for n in range(1, len(codes)) if codes[n, :level].tolist() == prefix]
            alive = {int(codes[n, level]) for n in rows if n not in left_out}
            weights = {code: float(tables[level][code].exp()) for code in alive}
            value *= weights[int(codes[item, level])] / sum(weights.values())
        return value

    total = 0.0
    for row, item in enumerate(target):
        left_out = set(history[row]) - {item}
        total -= torch.tensor(probability(item, left_out)).log().item()
        items = [n for n in range(1, len(codes)) if n not in left_out]
        everything = sum(probability(n, left_out) for n in items)
        assert abs(everything - 1) < 1e-6, "nothing goes to items that do not compete"
    assert abs(total / len(target) - float(loss)) < 1e-4


def test_without_histories_nothing_changes():
    blocks = [torch.randn(2, 3), torch.randn(2, 4)]
    assert all(a is b for a, b in zip(ALL_OPEN.hide(blocks), blocks, strict=True))
    logits = torch.randn(2, 3, 8)
    assert ALL_OPEN.hide_tokens(logits, [0, 3]) is logits


def test_histories_end_before_each_target():
    history = torch.tensor([[5, 9, 3], [7, 2, 0]])
    is_target = torch.tensor([[True, False, True], [False, True, False]])
    expected = [[5, 0, 0], [5, 9, 3], [7, 2, 0]]
    assert histories_of(history, is_target).tolist() == expected
