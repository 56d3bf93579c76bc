"""Files, rows and splits without loops over rows: what the loops give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from event_data import rows_of, write
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from toy import SMALL, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data import inter_files
from recbole_genrec.data.dataset import create_dataset
from recbole_genrec.data.files.atomic_files import FileFormat
from recbole_genrec.data.inter_files import read_interactions
from recbole_genrec.data.rows import event_rows
from recbole_genrec.data.rows.augmentation import RowsAtOnce, leave_out
from recbole_genrec.data.rows.event_rows import EventRows
from recbole_genrec.errors import DataError
from recbole_genrec.experiments.run import run_recbole_genrec

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
ROLES = {"user_id": "token", "item_id": "token", "timestamp": "float"}


def read(path, monkeypatch=None, **options):
    """The file by the reader of whole tables, or with ``monkeypatch`` by that of lines."""
    if monkeypatch is not None:
        monkeypatch.setattr(inter_files, "read_plain", lambda *_: None)
    return read_interactions(path, FileFormat(), ROLES, **options)


def outcome(path, monkeypatch=None, **options):
    try:
        return read(path, monkeypatch, **options)
    except DataError as error:
        return str(error)


def check_same(path, monkeypatch, **options):
    at_once = outcome(path, **options)
    by_line = outcome(path, monkeypatch, **options)
    assert type(at_once) is type(by_line)
    if isinstance(by_line, str):
        assert at_once == by_line
        return
    pd.testing.assert_frame_equal(at_once.frame, by_line.frame)
    assert at_once.kinds == by_line.kinds
    assert np.array_equal(at_once.lines, by_line.lines)


CELLS = [
    "u1\ti1\t1",
    "u2\ti1\t2.5",
    "u1\ti2\t-3e5",
    "ü\t物\t1600000000",
    "u3\ti 3\t 7 ",
    "u3\ti3\t+8",
    "07\t7\t.5",
    "7\t07\t1_0",
    "u4\tNA\t1",
    "u4\t\t1",
    "u4\ti4\tnan",
    "u4\ti4\tinf",
    "u4\ti4\t1e400",
    "u4\ti4\t",
    "u4\ti4\t2024-05-31",
    "u4\ti4",
    "u4\ti4\t1\t",
    "u4\ti4\t1\tx",
    'u4\t"i4"\t1',
    'u4\t"i4\t1',
    "u4\ti4\t1\r",
    "u4\ti\0\t1",
    "",
    " ",
    " u4\ti4\t1",
    "u1 \ti4\t1",
    "u\x854\ti\u20284\t1",
    "\ufeffu4\ti4\t1",
    "u5\ti5\t12345678901234567890.123456789",
    "u5\ti5\t20240105103000123",
    "u5\ti5\t1700000000.123456781",
    "u5\ti5\t1700000000.123456782",
]


@pytest.mark.parametrize("seed", range(60))
def test_both_readers_agree(tmp_path, monkeypatch, seed):
    """Plain rows with up to two odd ones among them, in any order."""
    generator = np.random.default_rng(seed)
    rows = [CELLS[place] for place in generator.integers(4, size=6)]
    rows += [CELLS[place] for place in generator.integers(len(CELLS), size=seed % 3)]
    generator.shuffle(rows)
    path = tmp_path / "x.inter"
    ending = "\n" if seed % 2 else ""
    path.write_bytes(("\n".join([HEADER, *rows]) + ending).encode())
    check_same(path, monkeypatch)


@pytest.mark.parametrize("row", CELLS)
def test_each_oddity_reads_as_line_by_line(tmp_path, monkeypatch, row):
    path = tmp_path / "x.inter"
    path.write_bytes("\n".join([HEADER, "u1\ti1\t1", row, "u2\ti2\t2"]).encode())
    check_same(path, monkeypatch)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HEADER.encode(),
        b"\n" + HEADER.encode() + b"\nu1\ti1\t1\n",
        b"\xef\xbb\xbf" + HEADER.encode() + b"\nu1\ti1\t1\n",
        HEADER.encode() + b"\t\nu1\ti1\t1\t\n",
        HEADER.encode() + b"\nu1\ti\xff\t1\n",
        HEADER.replace("\t", ",").encode() + b"\nu1,i1,1\n",
        HEADER.encode() + b"\textra:token\nu1\ti1\t1\tNA\nu2\ti2\t2\t\n",
        HEADER.encode() + b"\textra:float\nu1\ti1\t1\t5\nu2\ti2\t2\t\n",
        b"item_id:token\ttimestamp:float\tuser_id:token\ni1\t1\tu1\n",
    ],
)
def test_odd_files_read_as_line_by_line(tmp_path, monkeypatch, content):
    path = tmp_path / "x.inter"
    path.write_bytes(content)
    check_same(path, monkeypatch)
    check_same(path, monkeypatch, load=["user_id", "item_id", "timestamp"])


def test_an_id_is_one_text(tmp_path):
    path = tmp_path / "x.inter"
    path.write_text("\n".join([HEADER, *["user\titem\t1"] * 50]))
    frame = read(path).frame
    assert len({id(value) for value in frame["user_id"]}) == 1


# --- rows and splits ------------------------------------------------------------------------------


def splits(folder, model, **changes):
    values = {**SMALL, "data_path": str(folder), **changes}
    dataset = create_dataset(GenRecConfig(model, "toy", config_dict=values))
    return dataset.build()


LOADED = {
    "plain": {},
    "short histories": {"MAX_ITEM_LIST_LENGTH": 3},
    "item features": {"load_col": None},
}


@pytest.mark.parametrize("plain_rows", [2**16, 20])
@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_rows_and_splits_are_those_of_recbole(tmp_path, monkeypatch, model, name, plain_rows):
    write_dataset(tmp_path, n_users=30)
    monkeypatch.setattr(event_rows, "PLAIN_ROWS", plain_rows)
    changes = {"epochs": 1, **LOADED[name]}
    at_once = splits(tmp_path, model, **changes)
    monkeypatch.setattr(
        RowsAtOnce, "data_augmentation", lambda self: SequentialDataset.data_augmentation(self)
    )
    monkeypatch.setattr(RowsAtOnce, "split_last", recbole_split)
    by_row = splits(tmp_path, model, **changes)
    for ours, recboles in zip(at_once, by_row, strict=True):
        assert ours.inter_feat.columns == recboles.inter_feat.columns
        for column in ours.inter_feat.columns:
            mine, expected = ours.inter_feat[column], recboles.inter_feat[column]
            assert mine.dtype == expected.dtype
            assert torch.equal(mine, expected)


def recbole_split(dataset, group_by, mode):
    assert mode == "valid_and_test"
    groups = dataset._grouped_index(dataset.inter_feat[group_by].numpy())
    parts = dataset._split_index_by_leave_one_out(groups, leave_one_num=2)
    dataset._drop_unused_col()
    return [dataset.copy(dataset.inter_feat[rows]) for rows in parts]


@pytest.mark.parametrize("n_kept", [1, 2])
@pytest.mark.parametrize("n_held_out", [1, 2, 3])
def test_the_last_rows_of_users_are_left_out(n_held_out, n_kept):
    """Users of one to five rows, their rows scattered; RecBole's loop over groups."""
    generator = np.random.default_rng(n_held_out)
    users = generator.permutation(np.repeat(np.arange(20), generator.integers(1, 6, size=20)))
    groups: dict[int, list[int]] = {}
    for row, user in enumerate(users):
        groups.setdefault(int(user), []).append(row)
    parts: list[list[int]] = [[] for _ in range(n_held_out + 1)]
    for rows in groups.values():
        held_out = max(0, min(n_held_out, len(rows) - n_kept))
        parts[0] += rows[: len(rows) - held_out]
        for place, row in enumerate(rows[len(rows) - held_out :]):
            parts[n_held_out + 1 - held_out + place].append(row)
    assert [part.tolist() for part in leave_out(users, n_held_out, n_kept)] == parts


@pytest.mark.parametrize("mode", ["valid_and_test", "valid_only", "test_only"])
def test_every_model_holds_out_the_same_interactions(tmp_path, mode):
    """Users of one to six interactions; one of one or two is trained on, not tested."""
    rows = []
    for user in range(1, 13):
        length = (user - 1) % 6 + 1
        rows += [(f"u{user}", f"i{(user + step) % 9}", step) for step in range(length)]
    write(tmp_path / "toy" / "toy.inter", rows)
    by_model = []
    for model in ("SASRec", "Pop", "BPR"):
        changes = {"eval_args": {"split": {"LS": mode}}, "item_text_fields": None}
        parts = splits(tmp_path, model, **changes)
        held_out = [[pair[::2] for pair in rows_of(part)] for part in parts[1:]]
        by_model.append([sorted(pairs) for pairs in held_out])
    assert by_model[0] == by_model[1] == by_model[2]
    sizes = {"valid_and_test": [6, 8], "valid_only": [8, 0], "test_only": [0, 8]}
    assert [len(pairs) for pairs in by_model[0]] == sizes[mode]


# --- rows without their histories -----------------------------------------------------------------


@pytest.fixture
def both_rows(tmp_path, monkeypatch):
    """Rows with and without their histories."""
    write_dataset(tmp_path, n_users=30)
    (plain, _, _) = splits(tmp_path, "SASRec", epochs=1)
    monkeypatch.setattr(event_rows, "PLAIN_ROWS", 20)
    (lazy, _, _) = splits(tmp_path, "SASRec", epochs=1)
    assert isinstance(lazy.inter_feat, EventRows)
    assert type(plain.inter_feat) is Interaction
    return lazy.inter_feat, plain.inter_feat


def check_rows(rows, expected):
    assert rows.columns == expected.columns
    assert len(rows) == len(expected)
    for name in expected.columns:
        assert torch.equal(rows[name], expected[name])


def test_every_index_takes_the_same_rows(both_rows):
    lazy, plain = both_rows
    n_rows = len(plain)
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(n_rows, generator=generator)
    mask = torch.rand(n_rows, generator=generator) < 0.5
    for index in (some[:5], some, some.numpy(), some[:7].tolist(), mask, slice(3, 90, 2), [-1, 0]):
        check_rows(lazy[index], plain[index])
    assert type(lazy[some[:5]]) is Interaction
    assert isinstance(lazy[some], EventRows)
    row, expected = lazy[3], plain[3]
    assert all(torch.equal(row[name], expected[name]) for name in plain.columns)


def test_rows_sort_change_and_convert_as_recboles(both_rows):
    lazy, plain = both_rows
    for rows in both_rows:
        rows.sort(by=["item_id", "user_id"])
        rows.update(Interaction({"more": torch.arange(len(rows))}))
    check_rows(lazy, plain)
    for rows in both_rows:
        rows.drop("timestamp_list")
    check_rows(lazy, plain)
    check_rows(lazy.to("cpu"), plain.to("cpu"))
    check_rows(Interaction(dict(lazy.interaction)), plain)
    assert lazy.numpy().keys() == plain.numpy().keys()
    check_rows(lazy.repeat(2), plain.repeat(2))
    assert str(lazy) == str(plain)


@pytest.mark.parametrize("exclude_history", [False, True])
@pytest.mark.parametrize("rows", ["all", "longest", "windows"])
def test_runs_do_not_depend_on_how_rows_are_kept(tmp_path, monkeypatch, rows, exclude_history):
    write_dataset(tmp_path, n_users=30)
    values = {**SMALL, "data_path": str(tmp_path), "train_rows": rows}
    values |= {"checkpoint_dir": str(tmp_path), "hidden_size": 8, "inner_size": 8, "n_layers": 1}
    values |= {"n_heads": 1, "exclude_history": exclude_history}
    values |= {"metrics": ["Recall", "NDCG", "AveragePopularity"]}
    results = []
    for plain_rows in (2**16, 20):
        monkeypatch.setattr(event_rows, "PLAIN_ROWS", plain_rows)
        results.append(run_recbole_genrec("SASRec", "toy", config_dict=values, saved=False))
    first, second = results
    assert first["epochs"] == second["epochs"]
    assert first["test_result"] == second["test_result"]
    assert first["unreachable_targets"] == second["unreachable_targets"]
