"""Movers and conflict-free assignment, against values worked out by hand."""

from __future__ import annotations

import torch

from recbole_genrec.model.self_improve.assignment import (
    Assignment,
    choose_movers,
    shuffled,
    with_current,
)

CODES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])


def test_present_codes_take_their_place_among_the_candidates():
    codes, fits = (
        torch.tensor([[[2, 1], [0, 0]], [[1, 1], [2, 0]]]),
        torch.tensor([[-1.0, -2.0], [-1.0, -3.0]]),
    )
    codes, fits = with_current(
        codes, fits, torch.tensor([[0, 0], [0, 1]]), torch.tensor([-2.0, -1.0])
    )
    assert codes.tolist() == [[[2, 1], [0, 0]], [[0, 1], [1, 1]]]
    assert fits.tolist() == [[-1.0, -2.0], [-1.0, -1.0]]
    codes, fits = with_current(
        codes, fits, torch.tensor([[2, 2], [2, 2]]), torch.tensor([-1.5, -2.5])
    )
    assert codes.tolist() == [[[2, 1], [2, 2]], [[0, 1], [1, 1]]] and fits.tolist() == [
        [-1.0, -1.5],
        [-1.0, -1.0],
    ]


def test_outliers_move_largest_gain_first_up_to_the_cap():
    gain, fit = torch.tensor([0.5, 0.05, 0.9, 0.3, 0.3, 0.0]), torch.zeros(6)
    assert choose_movers(CODES, fit, gain, "all", 0.1, 0.5).all()
    assert choose_movers(CODES, fit, gain, "outlier", 0.1, 1.0).tolist() == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert choose_movers(CODES, fit, gain, "outlier", 0.1, 0.5).tolist() == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]  # of equals: the first
    assert choose_movers(CODES, fit, gain, "outlier", 0.3, 0.3).tolist() == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]  # floor(1.8) = 1
    assert not choose_movers(CODES, fit, gain, "outlier", 0.1, 0.0).any()


def test_of_equal_codes_only_the_best_fitting_stays_beside_the_cap():
    codes = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [2, 0]])
    fit = torch.tensor([-3.0, -1.0, -2.0, -1.0, -1.0, 0.0])
    gain = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.4])
    assert choose_movers(codes, fit, gain, "outlier", 0.1, 0.0).tolist() == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert choose_movers(codes, fit, gain, "outlier", 0.1, 0.2).tolist() == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]
    reserved = torch.tensor([[2, 0], [1, 0]])
    assert choose_movers(codes, fit, gain, "outlier", 0.1, 0.0, reserved).tolist() == [
        True,
        False,
        True,
        False,
        True,
        True,
    ]


def take(assignment, rows, candidates):
    codes = torch.tensor(candidates)
    return assignment.take_candidates(rows, codes, torch.zeros(codes.shape[:2]))


def test_movers_take_the_first_free_candidate_and_free_codes_of_movers():
    movers = torch.tensor([True, True, False, False, False, True])
    assignment = Assignment(CODES, movers, (3, 3))
    left = take(
        assignment,
        [5, 0, 1],
        [[[1, 0], [0, 0], [2, 2]], [[0, 0], [2, 1], [0, 0]], [[1, 1], [2, 1], [2, 0]]],
    )
    # 5: [1, 0] is locked, takes 0's old codes; 0: its own are gone, takes 5's; 1: nothing is free
    assert left == [1] and assignment.ranks == [1, 1]
    assert assignment.codes.tolist() == [[2, 1], [0, 1], [1, 0], [1, 1], [2, 0], [0, 0]]
    assert take(assignment, [1], [[[1, 1], [0, 1], [2, 2]]]) == []
    assert assignment.fallbacks == {
        "wider_search": 0,
        "own_codes": 1,
        "last_level": 0,
        "shorter_prefix": 0,
    }


def test_own_codes_are_kept_where_nobody_took_them():
    assignment = Assignment(CODES, torch.tensor([True, True, True, False, False, False]), (3, 3))
    assert take(assignment, [0], [[[0, 1]]]) == []
    assert assignment.take_own([1, 2]) == [1]
    assert (
        assignment.codes.tolist() == [[0, 1], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
        and assignment.fallbacks["own_codes"] == 1
    )


def test_what_is_no_candidate_is_not_taken():
    assignment = Assignment(CODES, torch.tensor([True] + [False] * 5), (3, 3))
    codes, fits = torch.tensor([[[1, 0], [2, 2]]]), torch.tensor([[-1.0, -torch.inf]])
    assert assignment.take_candidates([0], codes, fits) == [0]


def test_a_full_candidate_list_falls_back_to_the_nearest_free_prefix():
    """Three of nine ids free, one of them reserved; all movers want [0, 0]."""
    codes = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
    movers = torch.tensor([False, True, True, False, False, False, False, False])
    assignment = Assignment(codes, movers, (3, 3), reserved=torch.tensor([[2, 2]]))
    assert take(assignment, [1, 2], [[[0, 0], [0, 1]]] * 2) == [1, 2]
    asked = []

    def rank(prefix):
        asked.append(prefix)
        return [2, 1, 0]

    for row in (1, 2):
        assignment.take_nearest(row, [0, 0], rank)
    assert assignment.codes[[1, 2]].tolist() == [
        [0, 2],
        [1, 2],
    ]  # below [0] one was left; then 2 is full (2, 2 reserved), 1 is not
    assert asked == [(0,), (), (1,)]
    assert assignment.fallbacks == {
        "wider_search": 0,
        "own_codes": 0,
        "last_level": 1,
        "shorter_prefix": 1,
    }


def test_the_control_passes_the_new_codes_on():
    after = CODES.clone()
    after[[0, 2, 4]] = torch.tensor([[0, 2], [1, 2], [2, 2]])
    mixed = shuffled(CODES, after, torch.Generator().manual_seed(0))
    assert (mixed[[1, 3, 5]] == CODES[[1, 3, 5]]).all() and len(mixed.unique(dim=0)) == 6
    assert (
        sorted(mixed[[0, 2, 4]].tolist()) == [[0, 2], [1, 2], [2, 2]]
        and (mixed[[0, 2, 4]] != after[[0, 2, 4]]).any(1).all()
    )
