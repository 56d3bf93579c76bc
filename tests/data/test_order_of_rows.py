"""Rows by raw id, and the order and the borders of the rows of users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_genrec.data.ids import places_of, rows_by_token
from recbole_genrec.data.rows.row_order import begins_user, ends_user, order_of_rows


def test_ids_that_are_not_there_have_no_place():
    assert places_of(["b", "x", "a"], ["[PAD]", "a", "b"]).tolist() == [2, -1, 1]
    assert places_of([], ["[PAD]", "a"]).tolist() == []


@pytest.mark.parametrize("dim", [0, 1])
def test_rows_follow_their_ids_and_unknown_ones_are_zero(dim):
    values = torch.arange(1, 4).view(-1, 1) if dim == 0 else torch.arange(1, 4).view(1, -1)
    moved = rows_by_token(values, ["[PAD]", "a", "b"], ["[PAD]", "b", "new", "a"], dim)
    assert moved.flatten().tolist() == [0, 3, 0, 2]


def test_rows_stand_by_user_then_time_then_length_and_else_as_they_were():
    users, times, lengths = (
        np.array(column) for column in ([2, 1, 1, 2], [5, 7, 7, 5], [1, 2, 1, 1])
    )
    assert order_of_rows(users).tolist() == [1, 2, 0, 3]
    assert order_of_rows(users, times, lengths).tolist() == [2, 1, 0, 3]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_the_first_and_the_last_row_of_each_user(kind):
    users = kind([4, 4, 1, 4])
    assert begins_user(users).tolist() == [True, False, True, True]
    assert ends_user(users).tolist() == [False, True, True, True]
    assert begins_user(users[:0]).tolist() == ends_user(users[:0]).tolist() == []
