"""Histories that are columns of numbers, against plain lists."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from toy import event_histories, toy_config, write_dataset

from recbole_genrec.data.histories.choices import (
    EventHistories,
    buyers,
    chosen_items,
    histories,
)
from recbole_genrec.data.histories.history_digests import (
    digests_of,
    users_with_another_past,
)
from recbole_genrec.data.histories.plain_histories import plain_histories
from recbole_genrec.data.ids import raw_ids
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.model.lists.list_tables import Numbers

PLAIN = {
    "ann": ["i3", "i1", "i3"],
    "bob": ["i2"],
    "eve": ["i1", "i4", "i2", "i5"],
}
USERS = np.array(["[PAD]", "bob", "nobody", "eve", "ann"], dtype=object)
ITEMS = np.array(["[PAD]", "i5", "i4", "i3", "i2", "i1", "i0"], dtype=object)


@pytest.fixture
def events():
    """Those of a dataset whose rows stand in the order of the file."""
    rows = []
    for user, items in PLAIN.items():
        for time, item in enumerate(items):
            rows.append((USERS.tolist().index(user), ITEMS.tolist().index(item), time))
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    settings = SimpleNamespace(ITEM_ID_FIELD="item", LIST_SUFFIX="_list")
    dataset = SimpleNamespace(
        uid_field="user",
        iid_field="item",
        time_field="time",
        inter_feat=frame.sample(frac=1, random_state=2),
        field2id_token={"user": USERS, "item": ITEMS},
        field2token_id={"user": {user: number for number, user in enumerate(USERS)}},
        config=SimpleNamespace(settings=settings),
    )
    return histories(dataset)


def test_they_read_as_lists_by_user(events):
    assert isinstance(events, EventHistories)
    assert events == PLAIN
    assert sorted(events) == sorted(PLAIN) and len(events) == 3
    for stranger in ("nobody", "[PAD]", "zoe", None):
        assert stranger not in events
    with pytest.raises(KeyError):
        events["nobody"]


@pytest.mark.parametrize("users", [[], ["eve"], ["eve", "ann"], list(PLAIN)])
def test_those_of_some_users_are_theirs_in_the_order_asked_for(events, users):
    some = events.part(users)
    assert list(some) == users
    assert dict(some) == {user: PLAIN[user] for user in users}
    digests = digests_of(event_histories(PLAIN))
    assert digests_of(some) == {user: digests[user] for user in users}
    assert chosen_items(some) == {item for user in users for item in PLAIN[user]}


def test_the_numbers_of_histories_stay_as_checkpoints_hold_them():
    of_three = event_histories({"ann": ["i1", "i2", "i1"], "bob": ["i2"], "eve": []})
    numbers = {"ann": -5862072246564818631, "bob": -3400598020890420683, "eve": 1}
    assert digests_of(of_three) == numbers


def test_a_past_is_another_one_unless_it_goes_on(events):
    past = digests_of(event_histories({**PLAIN, "gone": ["i1"]}))
    assert users_with_another_past(events, past) == []
    some = {user: items[:-1] for user, items in PLAIN.items() if len(items) > 1}
    assert users_with_another_past(events, digests_of(event_histories(some))) == []
    longer = {user: [*items, "i0"] for user, items in PLAIN.items()}
    assert users_with_another_past(events, digests_of(event_histories(longer))) == list(events)


def test_users_of_an_item_are_those_of_plain_lists(events):
    found = buyers(events, ["i2", "i0", "i3", "other"])
    assert {item: sorted(users) for item, users in found.items()} == {
        "i2": ["bob", "eve"],
        "i0": [],
        "i3": ["ann"],
        "other": [],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("users", [None, [], ["u3"], ["u9", "u2", "nobody"]])
def test_a_file_alone_says_what_the_dataset_says(folder, users):
    config = toy_config(folder, "TIGER")
    dataset = create_dataset(config)
    ids = raw_ids(dataset)
    expected = histories(dataset)
    plain = plain_histories(config, ids, users)
    wanted = list(expected) if users is None else sorted(set(users) & set(expected))
    assert sorted(plain.histories) == sorted(wanted)
    assert {user: plain.histories[user] for user in wanted} == {u: expected[u] for u in wanted}
    assert plain.items == chosen_items(expected)
    if users is None:
        assert list(plain.histories) == list(expected)
        assert digests_of(plain.histories) == digests_of(histories(dataset))


def test_files_whose_rows_or_ids_change_are_left_to_the_dataset(folder):
    config = toy_config(folder, "TIGER")
    ids = raw_ids(create_dataset(config))
    for kind in ids:
        fewer = {**ids, kind: ids[kind][:-1]}
        assert plain_histories(config, fewer) is None
    for changes in (
        {"user_inter_num_interval": "[5,inf)"},
        {"val_interval": {"timestamp": "[3,inf)"}},
        {"rm_dup_inter": "first"},
        {"catalogue": "item_file"},
    ):
        assert plain_histories(toy_config(folder, "TIGER", **changes), ids) is None


def test_rows_that_carry_lists_are_left_to_the_dataset(tmp_path):
    folder = write_dataset(tmp_path)
    file = folder / "toy" / "toy.inter"
    header, *rows = file.read_text().splitlines()
    ids = raw_ids(create_dataset(toy_config(folder, "TIGER")))
    assert plain_histories(toy_config(folder, "TIGER"), ids) is not None
    lines = [f"{header}\titem_id_list:token_seq", *(f"{row}\ti1 i2" for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    assert plain_histories(toy_config(folder, "TIGER"), ids) is None


def test_a_model_reads_the_part_that_it_knows(events):
    catalogue = SimpleNamespace(
        item_numbers=lambda: {"i1": 1, "i2": 2, "i3": 3}, user_numbers=lambda: {"eve": 1}
    )
    numbers = Numbers(catalogue)
    users = ["eve", "ann"]
    plain, ours = numbers.people(users, PLAIN), numbers.people(users, events)
    assert ours.tokens == plain.tokens
    assert torch.equal(ours.numbers, plain.numbers)
    for mine, other in zip(ours.known, plain.known, strict=True):
        assert torch.equal(mine, other) and mine.dtype == torch.long
    assert ours.known[0].tolist() == [1, 2]
