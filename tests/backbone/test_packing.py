"""Ragged batches: states and gradients of the two layouts against passes of single sequences."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import FAMILIES, Generator

from recbole_genrec.backbone.causal.packing import (
    LAYOUTS,
    PASS_COST,
    length_groups,
    pack,
    packed_states,
)
from recbole_genrec.errors import BackboneError

LENGTHS = (17, 1, 40, 3, 40, 8, 2, 29)
CLOSE = {"atol": 1e-5, "rtol": 0}
ragged = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(torch.tensor)


def one_by_one(backbone, embeddings, lengths):
    return torch.cat(
        [backbone(part.unsqueeze(0))[0] for part in embeddings.split(lengths.tolist())]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_equal_passes_of_single_sequences(family, layout):
    model, lengths = Generator(family), torch.tensor(LENGTHS)
    assert model.lm.config._attn_implementation == "sdpa"
    found = []
    for states_of in (
        lambda x: one_by_one(model.backbone, x, lengths),
        lambda x: model.backbone.states(x, lengths, layout),
    ):
        embeddings = torch.randn(
            sum(LENGTHS), model.backbone.d_in, generator=torch.Generator().manual_seed(3)
        ).requires_grad_()
        model.lm.zero_grad()
        states = states_of(embeddings)
        (
            states * torch.randn(states.shape, generator=torch.Generator().manual_seed(4))
        ).mean().backward()
        weights = [p.grad.clone() for p in model.lm.parameters() if p.grad is not None]
        found.append((states.detach(), embeddings.grad, *weights))
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, **CLOSE)
    assert found[0][0].std() > 0.1


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_one_sequence_and_equal_lengths(layout):
    model = Generator("llama")
    for lengths in ([5], [4, 4, 4], [1, 1]):
        embeddings, lengths = torch.randn(sum(lengths), 32), torch.tensor(lengths)
        expected = one_by_one(model.backbone, embeddings, lengths)
        torch.testing.assert_close(
            model.backbone.states(embeddings, lengths, layout), expected, **CLOSE
        )


@torch.no_grad()
def test_a_sequence_longer_than_the_model_is_an_error_though_rows_may_be_shared():
    model = Generator("opt")  # 64 positions
    model.backbone.states(torch.randn(120, 32), torch.tensor([60, 60]), "pack")
    with pytest.raises(BackboneError, match="65 tokens does not fit the backbone's 64 positions"):
        model.backbone.states(torch.randn(67, 32), torch.tensor([2, 65]))


# --- the two layouts -----------------------------------------------------------------------------


def cost(groups):
    return sum(len(group) * max(group) + PASS_COST for group in groups)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=9).map(torch.tensor))
def test_groups_are_the_cheapest_cut_of_the_ordered_lengths(lengths):
    groups = length_groups(lengths)
    assert sorted(torch.cat(groups).tolist()) == list(range(len(lengths)))
    ordered = sorted(lengths.tolist())
    every_cut = (
        cost([ordered[a:b] for a, b in itertools.pairwise((0, *cuts, len(ordered)))])
        for count in range(len(ordered))
        for cuts in itertools.combinations(range(1, len(ordered)), count)
    )
    assert cost([lengths[group].tolist() for group in groups]) == min(every_cut)


@settings(max_examples=60, deadline=None)
@given(ragged)
def test_packed_rows_hold_every_token_once_and_are_few(lengths):
    capacity = int(lengths.max()) + 5
    row, offset = pack(lengths, capacity)
    assert (offset + lengths <= capacity).all()
    taken = [
        (int(r), t)
        for r, o, n in zip(row, offset, lengths, strict=True)
        for t in range(int(o), int(o + n))
    ]
    assert len(set(taken)) == len(taken)
    fewest = -(-int(lengths.sum()) // capacity)
    assert int(row.max()) + 1 <= 2 * fewest  # two half-empty rows would have been one


def test_first_fit_decreasing_by_hand():
    row, offset = pack(torch.tensor([4, 7, 3, 2, 6]), 10)  # 7+3, 6+4, 2
    assert row.tolist() == [1, 0, 0, 2, 1]
    assert offset.tolist() == [6, 0, 7, 0, 0]


def test_a_packed_pass_sees_short_rows_block_masks_and_restarting_positions():
    seen = []

    def forward(embeddings, mask, positions):
        seen.append((embeddings.shape, mask, positions))
        return embeddings

    flat = torch.arange(6.0).unsqueeze(1)
    states = packed_states(forward, flat, torch.tensor([1, 3, 2]))
    assert torch.equal(states, flat)
    (shape, mask, positions), *_ = seen
    assert shape == (2, 3, 1)
    assert positions.tolist() == [[0, 1, 2], [0, 1, 0]]  # lengths 3; 2 and 1
    assert mask[1, 0].tolist() == [[True, False, False], [True, True, False], [False, False, True]]


def test_padding_of_uniform_lengths_is_below_a_tenth_in_groups():
    lengths = torch.randint(20, 301, (64,), generator=torch.Generator().manual_seed(0))
    padded = sum(len(group) * int(lengths[group].max()) for group in length_groups(lengths))
    assert 1 - int(lengths.sum()) / padded < 0.1
    assert (
        1 - int(lengths.sum()) / (len(lengths) * int(lengths.max())) > 0.4
    )  # one right-padded batch
