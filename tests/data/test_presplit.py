"""Files that come split: histories built, cut and checked; the same figures as from one file."""

from __future__ import annotations

import random

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
    rows_of,
    split,
    write,
    write_items,
    write_parts,
)
from toy import TINY_OF

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.collaborative.training_split import read_sequences
from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import DataError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec

BENCHMARK = {"benchmark_filename": list(PARTS)}
LOADED = {"load_col": {"inter": ["user_id", "item_id", "item_id_list", "timestamp"]}}


def shuffled(parts):
    return {part: random.Random(3).sample(rows, len(rows)) for part, rows in parts.items()}


# --- what is read ---------------------------------------------------------------------------------


# case 04
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("limit", [20, 4])
def test_histories_are_built_where_the_files_have_none(tmp_path, mixed, limit):
    rows = events()
    parts = leave_one_out(rows)
    write_parts(tmp_path, shuffled(parts) if mixed else parts)
    assert split(tmp_path, MAX_ITEM_LIST_LENGTH=limit, **BENCHMARK) == expected_split(rows, limit)


# cases 02 and 03
@pytest.mark.parametrize("changes", [{}, LOADED, {"alias_of_item_id": ["item_id_list"], **LOADED}])
@pytest.mark.parametrize("limit", [20, 4])
def test_histories_of_the_files_mean_items_and_are_cut(tmp_path, changes, limit, caplog):
    rows = positions(events())
    write_parts(tmp_path, shuffled(histories(rows)), WITH_HISTORY)
    found = split(tmp_path, MAX_ITEM_LIST_LENGTH=limit, **BENCHMARK, **changes)
    assert found == expected_split(rows, limit)
    with caplog.at_level("INFO"):
        split(tmp_path, MAX_ITEM_LIST_LENGTH=limit, **BENCHMARK, **changes)
    assert ("are cut to their last 4 items" in caplog.text) == (limit == 4)


def test_each_item_of_histories_is_numbered_once(tmp_path):
    """All words of all histories are no text of one width, which a long id makes large."""
    rows = positions(events())
    write_parts(tmp_path, histories(rows), WITH_HISTORY)
    settings = {"data_path": str(tmp_path), "gpu_id": "", **BENCHMARK}
    dataset = create_dataset(GenRecConfig("SASRec", "toy", config_dict=settings))
    numbered = dataset._numbering["item_id"]["item_id"]
    assert numbered.tolist() == list(range(1, dataset.item_num))


def test_collaborative_vectors_of_histories_that_the_files_cut(tmp_path):
    parts = histories(positions(events()))
    cut = {
        part: [(user, item, " ".join(past.split()[-4:]), time) for user, item, past, time in rows]
        for part, rows in parts.items()
    }
    write_parts(tmp_path, cut, WITH_HISTORY)
    settings = {**TINY_OF["LETTER"], **BENCHMARK, "cf_dim": 4, "cf_epochs": 1}
    settings |= {"data_path": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    config = GenRecConfig("LETTER", "toy", config_dict=settings)
    tokens, vectors = TrainingInteractions(config).vectors()
    assert len(tokens) == len(vectors) > 0


def test_other_field_names(tmp_path):
    rows = positions(events())
    header = "who:token\twhat:token\twhat_seq:token_seq\twhen:float"
    names = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what", "TIME_FIELD": "when"}
    changes = {**names, "LIST_SUFFIX": "_seq", "load_col": {"inter": ["who", "what", "when"]}}
    write_parts(tmp_path, histories(rows), header)
    assert split(tmp_path, **BENCHMARK, **changes) == expected_split(rows)
    write_parts(tmp_path / "b", leave_one_out(rows), "who:token\twhat:token\twhen:float")
    assert split(tmp_path / "b", **BENCHMARK, **changes) == expected_split(rows)


def test_files_without_times_keep_the_order_of_their_rows(tmp_path):
    rows = positions(events())
    parts = {part: [row[:2] for row in rows] for part, rows in leave_one_out(rows).items()}
    write_parts(tmp_path, parts, "user_id:token\titem_id:token")
    changes = {"load_col": {"inter": ["user_id", "item_id"]}}
    assert split(tmp_path, **BENCHMARK, **changes) == expected_split(rows)


def test_a_training_row_never_sees_what_is_held_out(tmp_path):
    """Parts that overlap in time: the history holds earlier files and the row's own only."""
    train = [("u1", f"i{n}", 10 * n) for n in range(6)] + [("u2", f"i{n}", n) for n in range(6)]
    valid = [("u1", "v", 15), ("u2", "v", 90)]
    test = [("u1", "t", 35), ("u2", "t", 99)]
    write_parts(tmp_path, dict(zip(PARTS, (train, valid, test), strict=True)))
    found = split(tmp_path, **BENCHMARK)
    assert not any({"v", "t"} & {*row[1]} for row in found["train"])
    assert ("u1", ("i0", "i1"), "v") in found["valid"]
    assert ("u1", ("i0", "i1", "v", "i2", "i3"), "t") in found["test"]


def test_rows_without_history_are_no_targets(tmp_path):
    rows = events()
    parts = leave_one_out(rows)
    parts["test"].append(("stranger", "i1", 1_700_000_000))
    write_parts(tmp_path, parts)
    assert split(tmp_path, **BENCHMARK) == expected_split(rows)
    parts["valid"] = [("nobody", "i1", 1)]
    write_parts(tmp_path, parts)
    with pytest.raises(DataError, match=r"toy\.valid\.inter: no row has a history"):
        split(tmp_path, **BENCHMARK)


@pytest.mark.parametrize("with_history", [False, True])
def test_general_models_read_the_same_files_and_items(tmp_path, with_history):
    rows = positions(events())
    parts = histories(rows) if with_history else leave_one_out(rows)
    write_parts(tmp_path, parts, WITH_HISTORY if with_history else HEADER)
    for model in ("Pop", "SASRec"):
        settings = {"data_path": str(tmp_path), "gpu_id": "", **BENCHMARK}
        dataset = create_dataset(GenRecConfig(model, "toy", config_dict=settings))
        assert set(dataset.field2id_token["item_id"][1:]) == {item for _, item, _ in rows}
    found = split(tmp_path, "Pop", **BENCHMARK)
    expected = sorted((row[0], (), row[1]) for row in parts["train"])
    assert found["train"] == expected


# --- what is refused ------------------------------------------------------------------------------


def sessions(n_users=8):
    """Two sessions a user in each file, as prefix -> next item."""
    found = {part: [] for part in PARTS}
    for number, part in enumerate(PARTS):
        for user in range(n_users):
            for session in range(2):
                items = [f"i{(3 * user + 7 * session + number + n) % 25}" for n in range(4)]
                for place in range(1, 4):
                    time = 100 * number + 10 * session + place
                    row = (f"u{user}", items[place], " ".join(items[:place]), time)
                    found[part].append(row)
    return found


@pytest.mark.parametrize("model", ["SASRec", "TimelineRec", "STORE"])
@pytest.mark.parametrize("rows", ["windows", "longest"])
def test_rows_that_do_not_grow_cannot_be_joined(tmp_path, model, rows):
    write_parts(tmp_path, sessions(), WITH_HISTORY)
    write_items(tmp_path, "toy")
    message = (
        "toy, training file: the history of user 'u0' before item 'i8' .* for 8 of 8 users. "
        rf"train_rows: {rows} .* Use --{model}.train_rows=all, which trains each row on its own "
        r"item\.$"
    )
    with pytest.raises(DataError, match=message):
        split(tmp_path, model, train_rows=rows, **BENCHMARK)
    found = split(tmp_path, model, **{f"{model}.train_rows": "all"}, **BENCHMARK)
    assert len(found["train"]) == 8 * 2 * 3


def test_histories_that_the_files_cut_can_be_windows_of_that_length(tmp_path):
    parts = histories(positions(events()))
    cut = {
        part: [
            (user, item, " ".join(history.split()[-3:]), time) for user, item, history, time in own
        ]
        for part, own in parts.items()
    }
    write_parts(tmp_path, cut, WITH_HISTORY)
    with pytest.raises(DataError, match="or --MAX_ITEM_LIST_LENGTH=3, to which the files cut"):
        split(tmp_path, train_rows="windows", **BENCHMARK)
    split(tmp_path, train_rows="windows", MAX_ITEM_LIST_LENGTH=3, **BENCHMARK)
    write_parts(tmp_path, parts, WITH_HISTORY)
    for length in (3, 20):
        split(tmp_path, train_rows="longest", MAX_ITEM_LIST_LENGTH=length, **BENCHMARK)


def test_vectors_learn_from_rows_that_can_be_joined(tmp_path):
    write_parts(tmp_path, sessions(), WITH_HISTORY)
    write_items(tmp_path, "toy")
    settings = {**TINY_OF["LETTER"], "data_path": str(tmp_path), **BENCHMARK}
    settings |= {"cache_dir": str(tmp_path / "cache"), "cf_epochs": 1}
    config = GenRecConfig("LETTER", "toy", config_dict=settings)
    with pytest.raises(DataError, match="cf_rows: windows takes .* Use --cf_rows=all, which"):
        TrainingInteractions(config).vectors()
    config["cf_rows"] = "all"
    assert len(TrainingInteractions(config).vectors()[0])


def test_all_sessions_of_a_user_are_its_training_sequence(tmp_path):
    write_parts(tmp_path, sessions(1), WITH_HISTORY)
    settings = {"data_path": str(tmp_path), **BENCHMARK}
    found = read_sequences(GenRecConfig("SASRec", "toy", config_dict=settings))
    assert found == {"u0": ["i0", "i1", "i2", "i3", "i7", "i8", "i9", "i10"]}


def test_clicks_before_purchases_stand_once_in_the_training_sequence(tmp_path):
    """Histories are of clicks, and the items of the rows, purchases, are not among them."""
    rows = []
    for place in range(3, 9):
        clicks = " ".join(f"i{n}" for n in range(place))
        rows.append(("u0", f"i{20 + place}", clicks, float(place)))
    clicks = rows[-1][2]
    valid, test = [("u0", "i2", f"{clicks} i8", 9.0)], [("u0", "i3", f"{clicks} i8 i9", 10.0)]
    write_parts(tmp_path, {"train": rows, "valid": valid, "test": test}, WITH_HISTORY)
    settings = {"data_path": str(tmp_path), **BENCHMARK}
    found = read_sequences(GenRecConfig("SASRec", "toy", config_dict=settings))["u0"]
    assert sorted(found) == sorted([f"i{n}" for n in range(8)] + [f"i{n}" for n in range(23, 29)])


def padded(parts, filler, width=12, left=False, more=0):
    """The histories filled up to one length."""
    found = {}
    for part, rows in parts.items():
        found[part] = []
        for user, item, history, time in rows:
            words = history.split()
            fill = [filler] * max(more, width - len(words))
            words = fill + words if left else words + fill
            found[part].append((user, item, " ".join(words), time))
    return found


# case 01
@pytest.mark.parametrize("filler", ["0", "[PAD]", "-1", "<pad>", "none", "x"])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("model", ["TIGER", "Pop"])
def test_padding_in_histories_is_refused(tmp_path, filler, left, model):
    parts = padded(histories(positions(events())), filler, left=left)
    write_parts(tmp_path, parts, WITH_HISTORY)
    write_items(tmp_path, "toy")
    with pytest.raises(DataError, match=r"toy\.train\.inter, line 2: .*without padding"):
        split(tmp_path, model, **BENCHMARK, **LOADED)


def test_a_single_filler_is_refused_too(tmp_path):
    parts = padded(histories(positions(events())), "0", width=0, more=1)
    write_parts(tmp_path, parts, WITH_HISTORY)
    with pytest.raises(DataError, match="item '0' fills up histories"):
        split(tmp_path, **BENCHMARK)


@pytest.mark.parametrize("left", [False, True])
def test_padding_with_the_name_of_an_item_is_refused(tmp_path, left):
    rows = [(user, item.replace("i3", "0"), time) for user, item, time in positions(events())]
    write_parts(tmp_path, padded(histories(rows), "0", left=left), WITH_HISTORY)
    message = r"toy\.train\.inter, line 2: all histories of the file hold 12 items, and many have "
    with pytest.raises(DataError, match=f"{message}item '0' twice at the same end.*without padd"):
        split(tmp_path, **BENCHMARK)


def test_items_that_are_chosen_twice_in_windows_of_one_length_are_items(tmp_path):
    draw = random.Random(2)
    parts = {}
    for part in PARTS:
        parts[part] = []
        for user in range(60):
            items = [f"i{min(draw.randrange(4), draw.randrange(4))}" for _ in range(7)]
            parts[part].append((f"u{user}", items[-1], " ".join(items[:-1]), user))
    write_parts(tmp_path, parts, WITH_HISTORY)
    assert len(split(tmp_path, **BENCHMARK)["train"]) == 60


def test_an_item_named_0_is_an_item(tmp_path):
    """The first item of one user alone, and one that others buy too."""
    rows = [(user, item.replace("i3", "0"), time) for user, item, time in positions(events())]
    write_parts(tmp_path, histories(rows), WITH_HISTORY)
    assert split(tmp_path, **BENCHMARK) == expected_split(rows)
    rows = positions(events())
    rows[0] = (rows[0][0], "0", rows[0][2])
    write_parts(tmp_path, histories(rows), WITH_HISTORY)
    assert split(tmp_path, **BENCHMARK) == expected_split(rows)


def test_histories_of_other_ids_are_refused(tmp_path):
    parts = histories(positions(events()))
    commas = {
        part: [(u, i, h.replace(" ", ","), t) for u, i, h, t in rows if " " in h]
        for part, rows in parts.items()
    }
    write_parts(tmp_path, commas, WITH_HISTORY)
    with pytest.raises(DataError, match="not one id of the histories.*--seq_separator"):
        split(tmp_path, **BENCHMARK)
    write_parts(tmp_path, parts, WITH_HISTORY.replace("token_seq", "token"))
    with pytest.raises(DataError, match=r"'item_id_list' has the type token; .*token_seq"):
        split(tmp_path, **BENCHMARK)


def test_files_with_different_columns_are_refused(tmp_path):
    rows = positions(events())
    write_parts(tmp_path, histories(rows), WITH_HISTORY)
    write(tmp_path / "toy" / "toy.test.inter", leave_one_out(rows)["test"])
    with pytest.raises(DataError, match=r"toy\.test\.inter, line 1: its columns are"):
        split(tmp_path, **BENCHMARK)


@pytest.mark.parametrize(
    "names",
    ["train,valid,test", ["train", "test"], [], ["a", "b", "c", "d"], {"a": 1}, [1, 2, 3], True]
    + [["train", "test", "valid"]],
)
def test_names_of_files_that_cannot_be_right(tmp_path, names):
    write_parts(tmp_path, leave_one_out(events()))
    with pytest.raises(GenRecError, match="benchmark_filename.*train,valid,test"):
        split(tmp_path, benchmark_filename=names)


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "TimelineRec", "TIGER", "LETTER"])
def test_one_file_and_the_same_rows_as_three_give_the_same_metrics(tmp_path, model):
    rows = positions(events())
    forms = {
        "one": None,
        "three": (leave_one_out(rows), HEADER),
        "histories": (histories(rows), WITH_HISTORY),
    }
    results = []
    for form, content in forms.items():
        folder = tmp_path / form
        if content is None:
            write(folder / "toy" / "toy.inter", rows)
        else:
            write_parts(folder, *content)
        write_items(folder, "toy")
        settings = {
            **TINY_OF.get(model, {"topk": [5, 10], "gpu_id": "", "show_progress": False}),
            "MAX_ITEM_LIST_LENGTH": 5,
            "epochs": 2,
            "data_path": str(folder),
            "cache_dir": str(folder / "cache"),
            **({} if content is None else BENCHMARK),
        }
        result = run_recbole_genrec(model, "toy", config_dict=settings, saved=False)
        losses = [epoch["loss"] for epoch in result["epochs"]]
        results.append((losses, result["test_result"], result["best_valid_result"]))
    assert results[0] == results[1] == results[2]


def test_rows_stand_in_the_order_of_one_file(tmp_path):
    rows = positions(events())
    write(tmp_path / "one" / "toy" / "toy.inter", rows)
    write_parts(tmp_path / "three", leave_one_out(rows))
    found = []
    for form in ("one", "three"):
        settings = {"data_path": str(tmp_path / form), "gpu_id": ""}
        settings |= {} if form == "one" else BENCHMARK
        config = GenRecConfig("SASRec", "toy", config_dict=settings)
        loaders = make_loaders(config, create_dataset(config), False)
        found.append([rows_of(loader._dataset) for loader in loaders])
    assert found[0] == found[1]


# case 30
def test_histories_longer_than_an_inner_model_keeps(tmp_path, caplog):
    """The SASRec behind LETTER's vectors keeps 20 items, the run 50."""
    draw = random.Random(4)
    rows = []
    for user in range(14):
        items = draw.choices(range(25), k=draw.randrange(24, 40))
        rows += [(f"u{user}", f"i{item}", place) for place, item in enumerate(items)]
    write_parts(tmp_path, histories(rows), WITH_HISTORY)
    write_items(tmp_path, "toy")
    settings = {
        **TINY_OF["LETTER"],
        "MAX_ITEM_LIST_LENGTH": 50,
        "epochs": 1,
        "data_path": str(tmp_path),
        "cache_dir": str(tmp_path / "cache"),
        **BENCHMARK,
        **LOADED,
    }
    with caplog.at_level("INFO"):
        result = run_recbole_genrec("LETTER", "toy", config_dict=settings, saved=False)
    assert "histories are longer than MAX_ITEM_LIST_LENGTH and are cut to their last 20" in (
        caplog.text
    )
    assert 0 <= result["test_result"]["recall@10"] <= 1
    longest = max(len(history) for _, history, _ in split(tmp_path, **BENCHMARK, **LOADED)["test"])
    assert longest == 20, "SASRec's own default"
    changes = {"MAX_ITEM_LIST_LENGTH": 50, **BENCHMARK, **LOADED}
    assert split(tmp_path, **changes) == expected_split(rows, 50)
