"""What is refused or does nothing is said in words for people, before RecBole sees it."""

from __future__ import annotations

import importlib.util
import re

import pytest
from event_data import (
    HEADER,
    PARTS,
    events,
    expected_split,
    leave_one_out,
    split,
    write,
    write_items,
)

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.idle_keys import unread_keys
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import GenRecError, explained
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stored_settings import config_from_plain
from recbole_genrec.settings.aliases import CHANGED, OTHER_NAMES

INTERNAL = ("AttributeError", "KeyError", "TypeError", "unpack", "concatenate", "NoneType")


def message(folder, model="SASRec", **changes) -> str:
    """What a run says that must be refused."""
    with pytest.raises(GenRecError) as error:
        split(folder, model, **changes)
    text = str(error.value)
    assert not any(word in text for word in INTERNAL), text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    header = f"{HEADER}\trating:float\tkind:token"
    rows = [(*row, n % 5, "ab"[n % 2]) for n, row in enumerate(events())]
    write(root / "toy" / "toy.inter", rows, header)
    write_items(root, "toy")
    for part, rows in leave_one_out(events()).items():
        write(root / "toy" / f"toy.{part}.inter", rows)
    return root


REFUSED = [
    ({"TIME_FIELD": None}, "TIME_FIELD must be set.*float.*positions"),
    ({"TIME_FIELD": 3}, "TIME_FIELD"),
    ({"USER_ID_FIELD": None}, "USER_ID_FIELD"),
    ({"ITEM_ID_FIELD": None}, "ITEM_ID_FIELD"),
    ({"load_col": "inter"}, "load_col"),
    ({"load_col": ["user_id"]}, "load_col"),
    ({"load_col": {"inter": "user_id"}}, "load_col: inter is 'user_id'"),
    ({"load_col": {"iter": ["user_id"]}}, "load_col names 'iter'.*Did you mean inter"),
    ({"load_col": {"item": ["item_id"]}}, "load_col"),
    ({"load_col": {"inter": ["user_id", "item_id", "timestamp", "ratings"]}}, "mean rating"),
    ({"unload_col": {"inter": ["user_id"]}}, "unload_col leaves out user_id"),
    ({"unload_col": {"inter": "rating"}}, "unload_col: inter is 'rating'"),
    ({"unload_col": ["rating"]}, "unload_col"),
    ({"alias_of_item_id": "item_id_list"}, r"--alias_of_item_id=\[column\]"),
    ({"alias_of_item_id": ["other"]}, "alias_of_item_id names the column 'other'"),
    ({"alias_of_item_id": ["timestamp"]}, "holds numbers"),
    ({"val_interval": {"rating": "[3,inf)"}}, "'rating', which is not loaded.*load_col"),
    ({"val_interval": {"timestamp": [3, 4]}}, "timestamp holds numbers"),
    ({"val_interval": {"item_id": "[3,inf)"}}, "item_id holds tokens.*list"),
    ({"val_interval": {"item_id": ["i1", False]}}, "was read as False. Write it in quotes"),
    ({"val_interval": {"item_id": ["i1", 1000.0]}}, "was read as 1000.0. Write it in quotes"),
    ({"val_interval": ["a"]}, "val_interval"),
    ({"val_interval": {"timestamp": "3"}}, "write an interval"),
    ({"val_interval": {"timestamp": "[3,4]"}}, "No interaction of toy is left"),
    ({"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "split is .*RS.*training, validation, test"),
    ({"eval_args": {"split": "LS"}}, "split is 'LS'"),
    ({"eval_args": {"split": {"LS": "both"}}}, "valid_and_test"),
    ({"rm_dup_inter": "both"}, "rm_dup_inter is 'both'"),
    ({"benchmark_filename": "train"}, "benchmark_filename"),
    ({"benchmark_filename": ["train", "valid", "tset"]}, "toy.tset.inter does not exist"),
    ({"user_inter_num_interval": "[99,inf)"}, "No interaction of toy is left"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused_is_named(folder, changes, words):
    assert re.search(words, message(folder, **changes), re.DOTALL)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_package_that_is_missing(folder):
    assert "pip install wandb" in message(folder, log_wandb=True)


def test_lists_of_tokens_filter(folder):
    rows = [row for n, row in enumerate(events()) if n % 2 == 0]
    columns = {"inter": ["user_id", "item_id", "timestamp", "kind"]}
    found = split(folder, load_col=columns, val_interval={"kind": ["a"]})
    assert found == expected_split(rows)
    columns = {"inter": ["user_id", "item_id", "timestamp", "rating"]}
    rows = [row for n, row in enumerate(events()) if n % 5 >= 2]
    assert split(folder, load_col=columns, val_interval={"rating": "[2,inf)"}) == expected_split(
        rows
    )


def test_users_with_one_interaction_each(tmp_path):
    write(tmp_path / "toy" / "toy.inter", [(f"order{n}", f"i{n % 7}", n) for n in range(40)])
    write_items(tmp_path, "toy")
    assert "Each user of toy has one interaction" in message(tmp_path)


def test_tokens_to_keep_that_no_row_has_are_named(folder, caplog):
    split(folder, val_interval={"item_id": ["i1", "i2", "i3", "i4", "i5", "zzz"]})
    assert "1 of 6 values of item_id are in no row, for example 'zzz'" in caplog.text


def test_numbers_in_a_list_of_tokens_are_tokens(tmp_path):
    rows = [(user, item[1:], time) for user, item, time in events()]
    write(tmp_path / "toy" / "toy.inter", rows)
    kept = [row for row in rows if row[1] in ("3", "4", "5", "6", "7")]
    found = split(tmp_path, val_interval={"item_id": [3, 4, 5, 6, 7]})
    assert found == expected_split(kept)


def test_no_internals_of_other_libraries():
    for error in (KeyError("a"), AttributeError("x has no attribute y"), ValueError("to unpack")):
        with pytest.raises(GenRecError) as raised, explained("F", "Do this."):
            raise error
        assert str(raised.value) == "F cannot be used. Do this."
    words = r"F cannot be used \(too few users\)\. Do this"
    with pytest.raises(GenRecError, match=words), explained("F", "Do this."):
        raise ValueError("too few users")


# --- keys under other names -----------------------------------------------------------------------


@pytest.mark.parametrize(("written", "meant"), OTHER_NAMES.items())
def test_other_names_of_keys(folder, written, meant):
    text = message(folder, "TIGER", **{written: 1})
    assert text.endswith(f"Unknown key {written!r} for TIGER. Did you mean {meant}?")


@pytest.mark.parametrize("written", CHANGED)
def test_keys_that_became_another_form(folder, written):
    assert CHANGED[written] in message(folder, **{written: 1})


@pytest.mark.parametrize("written", ["colour", "foo", "sizes_of_all", "my_option"])
def test_far_words_get_no_hint(folder, written):
    assert "Did you mean" not in message(folder, **{written: 1})


# --- keys that do nothing -------------------------------------------------------------------------

BENCHMARK = {"benchmark_filename": list(PARTS)}
IDLE = [
    ({**BENCHMARK, "rm_dup_inter": "first"}, "rm_dup_inter does nothing beside benchmark"),
    ({**BENCHMARK, "val_interval": {"timestamp": "[0,inf)"}}, "val_interval does nothing"),
    ({**BENCHMARK, "user_inter_num_interval": "[5,inf)"}, "user_inter_num_interval does nothing"),
    ({**BENCHMARK, "item_inter_num_interval": "[5,inf)"}, "item_inter_num_interval does nothing"),
    ({**BENCHMARK, "eval_args": {"split": {"RS": [8, 1, 1]}}}, "eval_args: split does nothing"),
    ({**BENCHMARK, "filter_inter_by_user_or_item": True}, "filter_inter_by_user_or_item does"),
    ({"unload_col": {"inter": ["rating"]}}, "unload_col does nothing for rating"),
    (
        {"train_rows": "windows", "batch_targets": 512, "train_batch_size": 8},
        "train_batch_size does nothing beside batch_targets: 512",
    ),
]


OF_COLLISIONS = [
    ({"extra_token_size": 64}, None),
    ({"collision": ["sinkhorn", "extra_token"], "extra_token_size": 64}, None),
    ({"collision": "both", "extra_token_size": 64, "sinkhorn_rounds": 3}, None),
    ({"collision": ["none"]}, None),
    ({"collision": ["none"], "extra_token_size": 64}, "extra_token_size does nothing"),
    ({"collision": ["nearest_free"], "extra_token_size": 64}, "collision is nearest_free, without"),
    ({"collision": "reassign", "dedup_spare": 2}, "dedup_spare does nothing"),
    ({"sinkhorn_rounds": 3}, "sinkhorn_rounds does nothing"),
]


@pytest.mark.parametrize(("changes", "words"), OF_COLLISIONS)
def test_keys_of_policies_that_are_not_taken_say_so(folder, changes, words, caplog):
    split(folder, "TIGER", **changes)
    if words is None:
        assert "does nothing" not in caplog.text
    else:
        assert words in caplog.text


@pytest.mark.parametrize(("changes", "words"), IDLE)
def test_keys_that_do_nothing_say_so(folder, changes, words, caplog):
    split(folder, **changes)
    assert words in caplog.text


def unread(folder, models, **changes):
    """What is said of a command with these models."""
    settings = {"data_path": str(folder), "gpu_id": "", "item_text_fields": ["title"], **changes}
    return unread_keys([GenRecConfig(model, "toy", config_dict=settings) for model in models])


OF_CODES = {"tokenizer": "rkmeans", "codebook_sizes": [8, 8], "beam_width": 50}


@pytest.mark.parametrize(
    ("models", "changes", "sentences"),
    [
        (["TIGER"], OF_CODES, []),
        (["SETRec"], {"cf_dim": 8, "exclude_history": True}, []),
        (
            ["SETRec"],
            {"tokenizer": "rkmeans", "score_mode": "beam"},
            ["tokenizer, score_mode do nothing for SETRec, which has no codes."],
        ),
        (["Pop"], {"beam_width": 50}, ["beam_width does nothing for Pop, which has no codes."]),
        (["Pop"], {"cf_dim": 8}, ["cf_dim does nothing for Pop, which reads no content of items."]),
        (
            ["TokenRec"],
            {"codebook_sizes": [8, 8], "beam_width": 50},
            ["beam_width does nothing for TokenRec, which ranks all items, without a search."],
        ),
        (["Pop", "TIGER", "SETRec"], OF_CODES, []),
        (
            ["Pop", "TIGER"],
            {"TIGER.beam_width": 50, "Pop.beam_width": 9, "Pop.tokenizer": "rkmeans"},
            ["tokenizer does nothing for Pop, which has no codes."],
        ),
    ],
)
def test_keys_that_no_model_of_a_command_reads(folder, models, changes, sentences):
    write_items(folder, "toy")
    assert unread(folder, models, **changes) == sentences


def test_keys_of_a_datasets_own_file_are_for_all_models(tmp_path):
    write(tmp_path / "toy" / "toy.inter", events())
    write_items(tmp_path, "toy")
    own = tmp_path / "toy" / "toy.yaml"
    own.write_text("beam_width: 50\nSETRec: {tokenizer: rkmeans}\n")
    assert unread(tmp_path, ["Pop"]) == []
    assert unread(tmp_path, ["SETRec"]) == [
        "tokenizer does nothing for SETRec, which has no codes."
    ]


def test_a_run_says_which_keys_it_does_not_read(folder, caplog):
    settings = {"data_path": str(folder), "gpu_id": "", "show_progress": False, "epochs": 1}
    run_recbole_genrec("Pop", "toy", config_dict={**settings, "beam_width": 50}, saved=False)
    assert "beam_width does nothing for Pop, which has no codes." in caplog.text


def test_usual_settings_say_nothing(folder, caplog):
    split(folder)
    split(folder, **BENCHMARK)
    split(folder, "Pop", **BENCHMARK)
    assert "does nothing" not in caplog.text


# case 17
def test_the_filter_by_the_item_file_filters(tmp_path, caplog):
    """Where it is asked for, also in models that a stage trains and after a checkpoint was read."""
    rows = events()
    write(tmp_path / "toy" / "toy.inter", rows)
    asked = {"filter_inter_by_user_or_item": True}
    split(tmp_path, **asked)
    assert "filter_inter_by_user_or_item does nothing: there is neither toy.item" in caplog.text
    write_items(tmp_path, "toy", n_items=15)
    assert split(tmp_path) == expected_split(rows)
    kept = [row for row in rows if int(row[1][1:]) < 15]
    for model in ("SASRec", "Pop"):
        settings = {"data_path": str(tmp_path), "gpu_id": "", **asked}
        config = GenRecConfig(model, "toy", config_dict=settings)
        for same in (config, config.derived("SASRec"), config_from_plain(config.plain())):
            dataset = create_dataset(same)
            assert set(dataset.field2id_token["item_id"][1:]) == {item for _, item, _ in kept}
            make_loaders(same, dataset, False)
        plain = GenRecConfig(model, "toy", config_dict={**settings, **dict.fromkeys(asked, False)})
        settings.pop("filter_inter_by_user_or_item")
        default = GenRecConfig(model, "toy", config_dict=settings)
        for same in (plain, default, default.derived("SASRec"), config_from_plain(default.plain())):
            assert create_dataset(same).item_num == 26
    assert split(tmp_path, **asked) == expected_split(kept)


def test_a_datasets_own_file_chooses_too(tmp_path, caplog):
    """As an argument does: in the run, in models that a stage trains, and after a checkpoint."""
    rows = events()
    write(tmp_path / "toy" / "toy.inter", rows)
    write_items(tmp_path, "toy", n_items=15)
    settings = {"data_path": str(tmp_path), "gpu_id": ""}
    before = GenRecConfig("SASRec", "toy", config_dict=settings).plain()
    own = ["filter_inter_by_user_or_item: True", "batch_targets: 512", "train_rows: windows"]
    own.append("SASRec: {train_batch_size: 8}")
    (tmp_path / "toy" / "toy.yaml").write_text("\n".join(own))
    config = GenRecConfig("SASRec", "toy", config_dict=settings)
    items = {item for _, item, _ in rows if int(item[1:]) < 15}
    for same in (config, config.derived("SASRec"), config_from_plain(config.plain())):
        assert set(create_dataset(same).field2id_token["item_id"][1:]) == items
    assert "train_batch_size does nothing beside batch_targets" in caplog.text
    assert create_dataset(config_from_plain(before)).item_num == 26


def test_stored_settings_are_not_taken_for_chosen_ones(folder, caplog):
    config = GenRecConfig(
        "SASRec",
        "toy",
        config_dict={"data_path": str(folder), "train_rows": "windows", "batch_targets": 512},
    )
    create_dataset(config_from_plain(config.plain()))
    assert "train_batch_size does nothing" not in caplog.text
