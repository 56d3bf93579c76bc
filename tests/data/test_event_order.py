"""The order of events is the order of their times in the file, whatever the file's own order."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import numpy as np
import pytest
from event_data import (
    HEADER,
    events,
    expected_split,
    leave_one_out,
    sequences,
    split,
    write,
    write_items,
)
from toy import TINY_OF

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.files import times
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.rows import exact_times
from recbole_genrec.errors import DataError
from recbole_genrec.experiments.run import run_recbole_genrec

ORDERS = ["sorted", "newest first", "shuffled"]


def in_order(rows, order):
    """The rows as a file may hold them."""
    if order == "newest first":
        return rows[::-1]
    return random.Random(1).sample(rows, len(rows)) if order == "shuffled" else rows


def iso(seconds):
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def digits(seconds):
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y%m%d%H%M%S")


def digits_of_milliseconds(seconds):
    """A date of 17 digits; float64 keeps one of four of them."""
    return str(20240105103000000 + seconds - 1_600_000_000)


def nanoseconds(seconds):
    """Unix times that are 100 ns apart for each second."""
    return str(1_700_000_000 * 10**9 + 100 * (seconds - 1_600_000_000))


# cases 06 and 06d
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda time: str(1000 * time + 7),
        iso,
        digits,
        lambda time: f"{time / 3:.6f}",
        digits_of_milliseconds,
        nanoseconds,
    ],
    ids=[
        "seconds",
        "milliseconds",
        "ISO dates",
        "digits",
        "fractions",
        "digits of milliseconds",
        "nanoseconds",
    ],
)
@pytest.mark.parametrize("normalize", [None, True])
def test_times_keep_their_order_however_they_are_written(tmp_path, order, written, normalize):
    rows = events()
    file = [(user, item, written(time)) for user, item, time in in_order(rows, order)]
    write(tmp_path / "toy" / "toy.inter", file)
    assert split(tmp_path, normalize_all=normalize) == expected_split(rows)


# case 28
def test_ties_keep_the_order_of_the_file_with_and_without_rm_dup_inter(tmp_path):
    draw = random.Random(2)
    rows = [
        (f"u{n % 60}", f"i{item}", 1000) for n, item in enumerate(draw.choices(range(300), k=600))
    ]
    write(tmp_path / "toy" / "toy.inter", rows)
    assert split(tmp_path) == expected_split(rows)
    for keep in ("first", "last"):
        ordered = rows if keep == "first" else rows[::-1]
        unique = list(
            {(user, item): (user, item, time) for user, item, time in ordered[::-1]}.values()
        )
        kept = [row for row in rows if row in set(unique)]
        seen, without = set(), []
        for row in kept if keep == "first" else kept[::-1]:
            if row[:2] not in seen:
                seen.add(row[:2])
                without.append(row)
        without = without if keep == "first" else without[::-1]
        assert split(tmp_path, rm_dup_inter=keep) == expected_split(without)


# case 05
@pytest.mark.parametrize("kind", ["token", "token_seq", "float_seq", "int"])
@pytest.mark.parametrize("model", ["SASRec", "Pop"])
def test_times_of_another_type_are_refused_with_the_remedy(tmp_path, kind, model):
    write(tmp_path / "toy" / "toy.inter", events(), HEADER.replace("float", kind))
    with pytest.raises(DataError, match=rf"toy\.inter, line 1.*{kind}.*timestamp:float"):
        split(tmp_path, model)


def test_dates_and_numbers_are_not_mixed(tmp_path):
    rows = events()
    rows[7] = (*rows[7][:2], "2024-05-31")
    write(tmp_path / "toy" / "toy.inter", rows)
    with pytest.raises(DataError, match=r"toy\.inter, line 9: its time '2024-05-31' is a date"):
        split(tmp_path)


FINE = [
    ("1700000000.123456781", "1700000000.123456782"),
    ("20240105103000123456781", "20240105103000123456782"),
    ("2024-01-05T10:30:00.123456781", "2024-01-05T10:30:00.123456782"),
]


@pytest.mark.parametrize(("one", "other"), FINE)
def test_times_that_float64_makes_equal_are_refused(tmp_path, one, other):
    rows = [("u1", "i1", one), ("u1", "i2", one), ("u1", "i3", other)]
    write(tmp_path / "toy" / "toy.inter", rows)
    with pytest.raises(DataError, match=rf"lines 2 and 4: the times '{one}' and '{other}' have"):
        split(tmp_path)


def test_seconds_and_milliseconds_in_one_file_are_noticed(tmp_path, caplog):
    rows = events()
    write(tmp_path / "toy" / "toy.inter", rows)
    split(tmp_path)
    positions = [(user, item, place) for place, (user, item, _) in enumerate(rows)]
    write(tmp_path / "toy" / "toy.inter", positions)
    split(tmp_path)
    assert "seem to be mixed" not in caplog.text
    rows[3:] = [(user, item, 1000 * time) for user, item, time in rows[3:]]
    write(tmp_path / "toy" / "toy.inter", rows)
    split(tmp_path)
    places = ("line 2, is", "line 5, is")
    assert (
        all(place in caplog.text for place in places) and caplog.text.count("seem to be mixed") == 1
    )


def test_seconds_and_milliseconds_in_files_that_are_split_are_noticed(tmp_path, caplog):
    parts = leave_one_out(events())
    for rows in parts.values():
        rows[1:] = [(user, item, 1000 * time) for user, item, time in rows[1:]]
    for name, rows in parts.items():
        write(tmp_path / "toy" / f"toy.{name}.inter", rows)
    split(tmp_path, benchmark_filename=["train", "valid", "test"])
    assert "toy.train.inter, line 2, is" in caplog.text
    assert "toy.train.inter, line 3, is" in caplog.text
    assert caplog.text.count("seem to be mixed") == 1


def test_filters_see_the_times_of_the_file(tmp_path):
    rows = events()
    write(tmp_path / "toy" / "toy.inter", in_order(rows, "shuffled"))
    first = 1_600_000_000 + 1500
    kept = [row for row in rows if row[2] >= first]
    interval = {"timestamp": f"[{first},inf)"}
    assert split(tmp_path, val_interval=interval) == expected_split(kept)


@pytest.mark.parametrize("order", ORDERS)
def test_splits_by_ratio_and_by_time_follow_the_times(tmp_path, order):
    rows = events()
    write(tmp_path / "toy" / "toy.inter", in_order(rows, order))
    by_time = sorted(rows, key=lambda row: row[2])
    pairs = [row[:2] for row in by_time]
    n = len(pairs)
    ends = (n - 2 * int(0.1 * n), n - int(0.1 * n))

    def found(**args):
        parts = split(tmp_path, "Pop", eval_args={"order": "TO", "mode": "full", **args})
        return [
            sorted((user, item) for user, _, item in parts[p]) for p in ("train", "valid", "test")
        ]

    whole = [pairs[: ends[0]], pairs[ends[0] : ends[1]], pairs[ends[1] :]]
    assert found(split={"RS": [0.8, 0.1, 0.1]}, group_by="none") == [sorted(p) for p in whole]
    boundary = np.percentile([row[2] for row in rows], 80)
    late = sorted(row[:2] for row in rows if row[2] > boundary)
    assert found(split={"TS": [0.6, 0.2, 0.2]}, group_by="user")[2] == late


def test_ranks_are_exact_also_where_float32_is_not(monkeypatch):
    values = np.array([5.0, 3.0, 5.0, 4.0])
    assert times.ranks(values).tolist() == [3, 1, 3, 2] and times.ranks(values).dtype == np.float64
    monkeypatch.setattr(times, "EXACT", 2)
    assert times.ranks(values).tolist() == [3, 1, 3, 2] and times.ranks(values).dtype == np.int64


FAR = 2**28
"""From here on float32 has every 32nd whole number alone."""


def add_times(monkeypatch):
    """From now on there are ``FAR`` other times before those of a file."""

    def far(values):
        return times.ranks(values).astype(np.int64) + FAR

    monkeypatch.setattr(exact_times, "ranks", far)


def with_ties():
    """Events in the order of a file, which holds those of a user from the last to the first.

    Two of each user happen at one time, so that the file says which of them comes first.
    """
    rows = []
    for user, items in sequences(events()).items():
        own = [(user, item, 1000 + place) for place, item in enumerate(items)]
        rows += [*own[:1:-1], own[0], (*own[1][:2], 1000)]
    return rows


@pytest.mark.parametrize("normalize", [None, True])
def test_more_times_than_float32_tells_apart(tmp_path, monkeypatch, normalize):
    """Ranks beyond the limit stay whole numbers in all that RecBole does with them."""
    add_times(monkeypatch)
    rows = with_ties()
    write(tmp_path / "toy" / "toy.inter", rows)
    assert split(tmp_path, normalize_all=normalize) == expected_split(rows)


@pytest.mark.parametrize("args", [{"RS": [0.8, 0.1, 0.1]}, {"TS": [0.6, 0.2, 0.2]}])
def test_splits_by_ratio_with_more_times_than_float32_tells_apart(tmp_path, monkeypatch, args):
    write(tmp_path / "toy" / "toy.inter", in_order(events(), "shuffled"))
    settings = {"eval_args": {"order": "TO", "mode": "full", "split": args, "group_by": "user"}}
    expected = split(tmp_path, "Pop", **settings)
    add_times(monkeypatch)
    assert split(tmp_path, "Pop", **settings) == expected


def test_a_model_trains_on_more_times_than_float32_tells_apart(tmp_path, monkeypatch):
    write(tmp_path / "toy" / "toy.inter", events())
    settings = {"data_path": str(tmp_path), "gpu_id": "", "show_progress": False, "epochs": 1}
    results = [run_recbole_genrec("SASRec", "toy", config_dict=settings, saved=False)]
    add_times(monkeypatch)
    results.append(run_recbole_genrec("SASRec", "toy", config_dict=settings, saved=False))
    assert results[0]["test_result"] == results[1]["test_result"]


def test_files_without_ties_number_items_and_users_alike(tmp_path):
    rows = events()
    numbers = []
    for order in ORDERS:
        write(tmp_path / order / "toy" / "toy.inter", in_order(rows, order))
        config = GenRecConfig(
            "SASRec", "toy", config_dict={"data_path": str(tmp_path / order), "gpu_id": ""}
        )
        dataset = create_dataset(config)
        tokens = dataset.field2id_token
        numbers.append([tokens[f].tolist() for f in ("user_id", "item_id")])
        train = make_loaders(config, dataset, False)[0]._dataset.inter_feat
        numbers[-1].append(train["item_id_list"].tolist())
    assert numbers[0] == numbers[1] == numbers[2]
    assert set(numbers[0][0][1:]) == set(sequences(rows))


@pytest.mark.parametrize("model", ["TIGER", "LETTER", "TimelineRec", "SASRec", "Pop", "BPR"])
def test_shuffling_a_file_with_distinct_times_changes_no_metric(tmp_path, model):
    rows = events()
    results = []
    for order in ORDERS:
        folder = tmp_path / order
        write(folder / "toy" / "toy.inter", in_order(rows, order))
        write_items(folder, "toy")
        settings = {
            **TINY_OF.get(model, {"topk": [5, 10], "gpu_id": "", "show_progress": False}),
            "epochs": 1,
            "data_path": str(folder),
            "cache_dir": str(folder / "cache"),
        }
        result = run_recbole_genrec(model, "toy", config_dict=settings, saved=False)
        results.append((result["test_result"], result["best_valid_result"]))
    assert results[0] == results[1] == results[2]
