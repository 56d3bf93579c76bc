"""Files that come split: what would run and give wrong figures is refused, honest files are not."""

from __future__ import annotations

import random
import re

import pytest
from event_data import (
    HEADER,
    PARTS,
    WITH_HISTORY,
    events,
    expected_split,
    histories,
    leave_one_out,
    positions,
    split,
    write_parts,
)

from recbole_genrec.errors import DataError

BENCHMARK = {"benchmark_filename": list(PARTS)}


def read(folder, parts, header=WITH_HISTORY, **changes):
    write_parts(folder, parts, header)
    return split(folder, **BENCHMARK, **changes)


def changed(parts, change):
    """The parts with other rows: ``change(part, *row)``."""
    return {part: [change(part, *row) for row in rows] for part, rows in parts.items()}


def with_histories(change):
    """Rows of prefix -> next item whose histories are lists that ``change`` writes."""

    def rewritten(part, user, item, history, time):
        return user, item, change(history.split(), item), time

    return changed(histories(positions(events())), rewritten)


def shopping(n_users=40, n_items=12, repeat=0.0, steps=9, seed=1):
    """Users who choose what they chose last with a probability, else another item."""
    draw = random.Random(seed)
    rows = []
    for user in range(n_users):
        item = draw.randrange(n_items)
        for time in range(steps):
            if draw.random() >= repeat:
                item = draw.randrange(n_items)
            rows.append((f"u{user}", f"i{item}", time + 1))
    return rows


# --- histories with the row's own target ----------------------------------------------------------


@pytest.mark.parametrize("length", [None, 5, 1])
def test_histories_that_end_with_the_target_are_refused(tmp_path, length):
    parts = with_histories(lambda history, item: " ".join([*history, item][-(length or 99) :]))
    message = (
        r"toy\.train\.inter, line 2: the history ends with 'i\d+', the item of the row itself, as "
        r"(\d+) of \1 histories .* without padding, oldest item first: .* before the target"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, parts)


def test_a_test_file_alone_may_hold_the_targets(tmp_path):
    parts = histories(positions(events()))
    parts["test"] = [(u, i, f"{history} {i}", t) for u, i, history, t in parts["test"]]
    with pytest.raises(DataError, match=r"toy\.test\.inter, line 2: the history ends with"):
        read(tmp_path, parts)


def test_padding_is_named_where_the_target_is_among_it(tmp_path):
    parts = with_histories(lambda history, item: " ".join(["0"] * 12 + [*history, item]))
    with pytest.raises(DataError, match="item '0' fills up histories"):
        read(tmp_path, parts)


@pytest.mark.parametrize("repeat", [0.5, 0.9, 0.99, 1.0])
def test_items_that_are_chosen_again_and_again_are_no_leak(tmp_path, repeat):
    rows = shopping(repeat=repeat)
    assert read(tmp_path, histories(rows)) == expected_split(rows)


def test_purchases_of_the_item_clicked_last_are_reported(tmp_path, caplog):
    draw = random.Random(2)

    def clicks(history, item):
        last = item if draw.random() < 0.94 else "i0"
        return " ".join([*(f"i{draw.randrange(12)}" for _ in range(3)), last])

    read(tmp_path, with_histories(clicks))
    message = r"toy\.train\.inter, line \d+: the history ends with 'i\d+', .* do \(9[3-6]\.\d%\)"
    assert re.search(rf"{message}\. This may be right where histories are clicks", caplog.text)
    assert caplog.text.count("the history ends with") == 1


# --- separators -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "first"),
    [
        (",".join, r"'i\d+,i\d+'"),
        ("|".join, r"'i\d+\|i\d+'"),
        (";".join, r"'i\d+;i\d+'"),
        ("-".join, r"'i\d+-i\d+'"),
        (", ".join, r"'i\d+,'"),
        (lambda history: f"[{' '.join(history)}]", r"'(\[i\d+|i\d+\])'"),
        (lambda history: f"'{' '.join(history)}'", r"\"('i\d+|i\d+')\""),
    ],
)
def test_ids_of_histories_that_are_cut_elsewhere_are_refused(tmp_path, written, first):
    parts = with_histories(
        lambda history, item: written(history) if len(history) > 1 else history[0]
    )
    message = rf"toy\.\w+\.inter, line \d+: the history holds the id {first}.*--seq_separator"
    with pytest.raises(DataError, match=message):
        read(tmp_path, parts)


@pytest.mark.parametrize("mark", list(",|-"))
def test_marks_may_be_part_of_ids(tmp_path, mark):
    """Bundles of items are items; one of them is never a target."""
    rows = [(u, f"{i}{mark}i1" if i in ("i2", "i3") else i, t) for u, i, t in positions(events())]
    parts = histories(rows)
    parts["train"][0] = (*parts["train"][0][:2], f"i4{mark}i1", 2)
    read(tmp_path, parts)


def test_histories_of_items_that_are_no_targets_are_reported(tmp_path, caplog):
    """Clicks before purchases: nothing is wrong with them."""
    parts = with_histories(lambda history, item: " ".join(["c1", "c2", *history[-1:]]))
    found = read(tmp_path, parts)
    assert all(row[1][:2] == ("c1", "c2") for row in found["test"])
    assert "'c1' and" in caplog.text
    assert "ids in histories are never a target" in caplog.text


# --- rows in two files ----------------------------------------------------------------------------


@pytest.mark.parametrize("with_history", [False, True])
@pytest.mark.parametrize(("earlier", "later"), [("train", "test"), ("valid", "test")])
def test_rows_in_two_files_are_refused(tmp_path, with_history, earlier, later):
    rows = positions(events())
    parts = histories(rows) if with_history else leave_one_out(rows)
    parts[earlier] = [*parts[earlier], *parts[later]]
    line = len(parts[earlier]) - len(parts[later]) + 2
    same = "user, item, time and history" if with_history else "user, item and time"
    message = (
        rf"toy\.{later}\.inter, line 2: the row stands in \S+toy\.{earlier}\.inter, line {line}, "
        rf"too, with the same {same}, as 30 of 30 rows"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, parts, WITH_HISTORY if with_history else HEADER)


def test_a_few_rows_in_two_files_are_reported(tmp_path, caplog):
    parts = leave_one_out(positions(events()))
    parts["train"] = [*parts["train"], parts["test"][7]]
    read(tmp_path, parts, HEADER)
    assert "toy.test.inter, line 9: the row stands in" in caplog.text
    assert "as 1 of 30 rows" in caplog.text


@pytest.mark.parametrize("with_history", [False, True])
def test_repeated_purchases_are_no_leak(tmp_path, with_history):
    """The same user and item at many times, or at one time within the training file, too."""
    rows = shopping(n_items=3, repeat=0.6)
    parts = histories(rows) if with_history else leave_one_out(rows)
    read(tmp_path, parts, WITH_HISTORY if with_history else HEADER)
    days = changed(leave_one_out(rows), lambda part, user, item, time: (user, item, time // 20))
    read(tmp_path / "days", days, HEADER)


@pytest.mark.parametrize("unit", [1, 1000])
def test_rows_of_one_day_are_reported_where_training_has_no_duplicates(tmp_path, caplog, unit):
    rows = shopping(n_items=3, repeat=0.6)
    midnight = 86_400 * 18_000 + 7_200  # not UTC's
    parts = changed(
        leave_one_out(rows),
        lambda part, user, item, time: (user, item, unit * (midnight + 86_400 * (time // 5))),
    )
    parts["train"] = list(dict.fromkeys(parts["train"]))
    read(tmp_path, parts, HEADER)
    assert "too, with the same user, item and time, as" in caplog.text
    parts["train"].append(("u0", "i0", unit * (midnight + 60)))
    with pytest.raises(DataError, match="with the same user, item and time"):
        read(tmp_path, parts, HEADER)


def test_pairs_of_training_in_a_test_without_times_are_reported(tmp_path, caplog):
    header = "user_id:token\titem_id:token"
    changes = {"load_col": {"inter": ["user_id", "item_id"]}}
    parts = changed(leave_one_out(positions(events())), lambda part, *row: row[:2])
    read(tmp_path, parts, header, **changes)
    assert "the row stands in" not in caplog.text
    training = parts["train"]
    parts["train"] = [*training, *parts["test"][:20]]
    read(tmp_path, parts, header, **changes)
    assert "with the same user and item, as 20 of 30 rows" in caplog.text
    parts["train"] = [*training, *parts["test"]]
    with pytest.raises(DataError, match="with the same user and item, as 30 of 30 rows"):
        read(tmp_path, parts, header, **changes)


# --- ids ------------------------------------------------------------------------------------------


def numbers():
    """The rows with whole numbers as ids of items and users."""
    return [(user[1:], item[1:], time) for user, item, time in positions(events())]


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("with_history", [False, True])
def test_ids_with_spaces_in_one_file_are_refused(tmp_path, column, with_history):
    rows = positions(events())
    parts = histories(rows) if with_history else leave_one_out(rows)
    name = ("user_id", "item_id")[column]
    spaced = [list(row) for row in parts["test"]]
    for row in spaced:
        row[column] += " "
    parts["test"] = spaced
    message = rf"toy\.test\.inter, line 2: '(\w+) ' and '\1' in '{name}' differ in spaces alone"
    with pytest.raises(DataError, match=message):
        read(tmp_path, parts, WITH_HISTORY if with_history else HEADER)


def test_spaces_in_histories_are_refused(tmp_path):
    parts = with_histories(lambda history, item: ", ".join(history))
    with pytest.raises(DataError, match=r"' i\d+' and 'i\d+' in 'item_id' differ in spaces"):
        read(tmp_path, parts, seq_separator=",")


@pytest.mark.parametrize("form", ["{}.0", "000{}", "{}.00"])
@pytest.mark.parametrize("place", ["test", "train", "users", "histories"])
def test_numbers_that_files_write_in_two_ways_are_refused(tmp_path, form, place):
    def rewritten(part, user, item, history, time):
        if place == part:
            item = form.format(item)
        if place == "users" and part == "valid":
            user = form.format(user)
        if place == "histories" and part == "test":
            history = " ".join(map(form.format, history.split()))
        return user, item, history, time

    parts = changed(histories(numbers()), rewritten)
    message = (
        r"line \d+: '[\d.]+' in '(user_id|item_id|item_id_list)' and '[\d.]+' in the training file "
        r"are one number and two ids, as \d+ of \d+ ids of this column\. Write ids alike"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, parts)


def test_numbers_with_zeros_may_be_items_of_their_own(tmp_path, caplog):
    """``7``, ``007`` and ``7.0`` are three items; one more is new in the test."""
    rows = [(u, {"8": "007", "9": "7.0"}.get(i, i), t) for u, i, t in numbers()]
    assert read(tmp_path, histories(rows)) == expected_split(rows)
    assert "one number" not in caplog.text
    parts = histories(rows)
    parts["test"][3] = (parts["test"][3][0], "0005", *parts["test"][3][2:])
    read(tmp_path, parts)
    assert "'0005' in 'item_id' and '5' in the training file are one number" in caplog.text


def test_test_items_that_training_lacks_are_reported(tmp_path, caplog):
    parts = leave_one_out(positions(events()))
    few = list(parts["test"])
    few[:4] = [(user, f"new{place}", time) for place, (user, _, time) in enumerate(few[:4])]
    read(tmp_path, {**parts, "test": few}, HEADER)
    assert "is in no row of the training file" not in caplog.text
    all_new = [(user, f"new-{item}", time) for user, item, time in parts["test"]]
    read(tmp_path, {**parts, "test": all_new}, HEADER)
    assert "toy.test.inter, line 2: item 'new-i" in caplog.text
    assert "the items of 30 of 30 rows of this file" in caplog.text


# --- the order of histories -----------------------------------------------------------------------


@pytest.mark.parametrize("length", [99, 5, 2])
@pytest.mark.parametrize("with_target", [False, True])
def test_histories_with_the_newest_item_first_are_refused(tmp_path, length, with_target):
    def newest_first(history, item):
        items = [*history, item] if with_target else history
        return " ".join(items[::-1][:length])

    message = (
        r"toy\.\w+\.inter, line \d+: the history is that of the user's row before, with an item "
        "put in front, as .* oldest item first"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, with_histories(newest_first))


def test_one_row_of_a_user_in_each_file_shows_the_order(tmp_path):
    parts = with_histories(lambda history, item: " ".join(history[::-1]))
    parts["train"] = list({row[0]: row for row in parts["train"]}.values())
    with pytest.raises(DataError, match="oldest item first"):
        read(tmp_path, parts)


def test_round_trips_and_windows_are_in_the_right_order(tmp_path):
    """One row a day, which begins and ends at home; and windows of items that come again."""
    draw = random.Random(5)
    days = {part: [] for part in PARTS}
    for number, part in enumerate(PARTS):
        for user in range(20):
            for day in range(4):
                stops = [f"i{draw.randrange(6)}" for _ in range(3)]
                row = (f"u{user}", f"home{user}", " ".join([f"home{user}", *stops]))
                days[part].append((*row, 10 * number + day))
    assert len(read(tmp_path, days)["test"]) == 80
    rows = shopping(n_items=3, repeat=0.3)
    cut = changed(
        histories(rows),
        lambda part, user, item, history, time: (user, item, " ".join(history.split()[-3:]), time),
    )
    assert read(tmp_path / "windows", cut) == expected_split(rows, 3)


# --- histories under another name -----------------------------------------------------------------


OTHER_NAME = WITH_HISTORY.replace("item_id_list", "history")


@pytest.mark.parametrize(
    "changes",
    [{}, {"load_col": {"inter": ["user_id", "item_id", "history", "timestamp"]}}],
)
def test_histories_under_another_name_are_not_dropped_silently(tmp_path, caplog, changes):
    rows = positions(events())
    parts = histories(rows)
    message = r"toy\.train\.inter, line 1: alias_of_item_id says that 'history' lists items.*"
    with pytest.raises(DataError, match=f"{message}Write item_id_list:token_seq"):
        read(tmp_path, parts, OTHER_NAME, alias_of_item_id=["history"], **changes)
    read(tmp_path, parts, OTHER_NAME, **changes)
    assert "the lists in 'history' are not read as histories" in caplog.text
    assert "Write item_id_list:token_seq" in caplog.text
    caplog.clear()
    read(tmp_path, parts, WITH_HISTORY)
    read(tmp_path / "plain", leave_one_out(rows), HEADER)
    assert "are not read as histories" not in caplog.text
