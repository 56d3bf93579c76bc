"""Rows that carry histories, joined to one history of each user."""

from __future__ import annotations

import numpy as np
import pytest
from event_data import PARTS, write
from hypothesis import given
from hypothesis import strategies as st

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.choices import histories
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.data.rows import joined_rows as module
from recbole_genrec.data.rows.joined_rows import joined_rows

HEADER = "user_id:token\titem_id:token\titem_id_list:token_seq\ttimestamp:float"


def joined(rows) -> dict[int, list[int]]:
    """The items of each user, from rows ``(user, history, item)``."""
    users = np.array([user for user, _, _ in rows])
    items = np.array([item for _, _, item in rows])
    before = np.empty(len(rows), dtype=object)
    before[:] = [np.array(history, dtype=np.int64) for _, history, _ in rows]
    of_users, of_items = joined_rows(users, items, before)
    return {user: of_items[of_users == user].tolist() for user in dict.fromkeys(users.tolist())}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([([], 3)], [3]),
        ([([1, 2], 3)], [1, 2, 3]),
        ([([1], 2), ([1, 2], 1), ([1, 2, 1], 3)], [1, 2, 1, 3]),  # growing
        ([([1, 2], 3), ([2, 3], 4), ([3, 4], 2)], [1, 2, 3, 4, 2]),  # cut to two
        ([([1], 2), ([1, 2, 3], 4)], [1, 2, 3, 4]),  # an item that no row has
        ([([2], 3), ([1, 2, 3], 4)], [1, 2, 3, 4]),  # an older one
        ([([1], 2), ([5], 6), ([5, 6], 7)], [1, 2, 5, 6, 7]),  # two sessions
        ([([1, 2], 3), ([1, 4], 5)], [1, 2, 3, 4, 1, 4, 5]),  # the last row as models read it
    ],
)
def test_rows_of_a_user_make_one_history(rows, expected):
    assert joined([(1, *row) for row in rows]) == {1: expected}


sequences = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=12), min_size=1, max_size=6)


@given(sequences, st.integers(1, 5), st.integers(1, 9))
def test_cut_prefixes_give_what_they_were_cut_from(sequences, width, rows_at_once):
    rows = []
    for user, items in enumerate(sequences, start=1):
        for place in range(1, len(items)):
            rows.append((user, items[max(0, place - width) : place], items[place]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
        assert joined(rows) == dict(enumerate(sequences, start=1))


few = st.lists(st.integers(1, 9), max_size=5)


@given(st.lists(st.tuples(st.integers(1, 3), few, st.integers(1, 9)), min_size=1, max_size=9))
def test_no_item_of_any_row_is_lost_and_the_last_row_ends(rows):
    rows = sorted(rows, key=lambda row: row[0])
    for user, items in joined(rows).items():
        own = [row for row in rows if row[0] == user]
        assert set(items) == {item for _, history, item in own for item in [*history, item]}
        last = [*own[-1][1], own[-1][2]]
        assert items[-len(last) :] == last


@pytest.mark.parametrize("form", ["built", "whole", "cut"])
@pytest.mark.parametrize("exclude_history", [False, True])
@pytest.mark.parametrize("model", ["SASRec", "Pop"])
def test_histories_of_split_files_are_whole(tmp_path, model, exclude_history, form):
    """Users with more items than MAX_ITEM_LIST_LENGTH, one of them in the test file alone."""
    expected = {f"u{user}": [f"i{(7 * user + n) % 30}" for n in range(26)] for user in range(5)}
    width = 3 if form == "cut" else 30
    parts: dict[str, list] = {part: [] for part in PARTS}
    for user, items in expected.items():
        for place in range(len(items)):
            part = {25: "test", 24: "valid"}.get(place, "train")
            history = " ".join(items[max(0, place - width) : place])
            row = (user, items[place], history, place)
            if form == "built":
                parts[part].append((user, items[place], place))
            elif place and (user != "u3" or part == "test"):
                parts[part].append(row)
    if form == "cut":
        expected["u3"] = expected["u3"][-4:]
    header = HEADER.replace("item_id_list:token_seq\t", "") if form == "built" else HEADER
    for part, rows in parts.items():
        write(tmp_path / "toy" / f"toy.{part}.inter", rows, header)
    settings = {
        "data_path": str(tmp_path),
        "gpu_id": "",
        "benchmark_filename": list(PARTS),
        "exclude_history": exclude_history,
        "MAX_ITEM_LIST_LENGTH": 8,
    }
    dataset = create_dataset(GenRecConfig(model, "toy", config_dict=settings))
    assert histories(dataset) == expected
    test = dataset.build()[-1].inter_feat
    assert len(test) == 5
    assert exclude_history or "whole_history" not in test
