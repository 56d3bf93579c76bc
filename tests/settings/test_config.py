"""Settings: what an argument means, which value wins, and the stored form of a configuration."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.stored_settings import config_from_plain
from recbole_genrec.model.registry import GENERATORS
from recbole_genrec.settings.parsing import config_files, parse_arguments, parse_value
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.tokenizer import tokenizer_class


def make(model="STORE", dataset="ml-100k", argv=None, files=None, **changes):
    return GenRecConfig(
        model, dataset, config_file_list=files, config_dict={"gpu_id": "", **changes}, argv=argv
    )


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("1e-3", 0.001),
        ("-0.5", -0.5),
        ("true", True),
        ("False", False),
        ("None", None),
        ("~", None),
        ("auto", "auto"),
        ("google/flan-t5-base", "google/flan-t5-base"),
        ("2024-10", "2024-10"),
        ("1/0", "1/0"),
        ("[5,inf)", "[5,inf)"),
        ("[5,inf]", [5, "inf"]),
        ("[title, brand]", ["title", "brand"]),
        ("['title']", ["title"]),
        ("{max_norm: 1.0}", {"max_norm": 1.0}),
        ("{'max_norm': 1e-1}", {"max_norm": 0.1}),
        ("[1e-3, word]", [0.001, "word"]),
        ("{id: [007, 010, 12, 1:30, 0]}", {"id": ["007", "010", 12, "1:30", 0]}),
        ("(1, 2)", (1, 2)),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("[!!python/object/apply:os.getcwd []]", "[!!python/object/apply:os.getcwd []]"),
        ("b'x'", "b'x'"),
        ("1+2j", "1+2j"),
        ("{1, 2}", "{1, 2}"),
        ("{[]: 1}", "{[]: 1}"),
        ("", ""),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_a_value_is_a_literal_a_yaml_list_or_the_text_itself(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


@given(st.text(max_size=30))
def test_any_text_has_a_plain_value(text):
    assert isinstance(parse_value(text), (str, int, float, bool, list, tuple, dict, type(None)))


@given(
    st.recursive(
        st.integers()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        st.lists,
        max_leaves=6,
    )
)
def test_literals_come_back(value):
    if isinstance(value, str):
        return  # a bare word is only itself when it is no literal
    assert parse_value(repr(value)) == value


def test_arguments():
    assert parse_arguments(["--a=1", "--path=x=y=z", "--resume", "--empty=", "--a=1"]) == {
        "a": 1,
        "path": "x=y=z",
        "resume": True,
        "empty": "",
    }


@pytest.mark.parametrize("argument", ["a=1", "-a=1", "a", "--", "-", ""])
def test_arguments_of_another_form_are_refused(argument):
    with pytest.raises(ConfigError, match="is not of the form --key=value"):
        parse_arguments([argument])


def test_an_argument_given_twice_with_two_values_is_refused():
    with pytest.raises(ConfigError, match="--a is given twice, as 1 and as 2"):
        parse_arguments(["--a=1", "--a=2"])


def test_a_path_of_a_setting_may_begin_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = make(argv=["--checkpoint_dir=~/runs"], result_file="~/result.json")
    assert config["checkpoint_dir"] == str(tmp_path / "runs")
    assert config["result_file"] == str(tmp_path / "result.json")
    assert make(item_vectors="~/v.npy")["item_vectors"] == "~/v.npy"  # counts in names


def test_paths_and_names_stay_as_they_are_typed():
    typed = ["--a=2024", "--b=1e3", "--c=1,2", "--d=None", "--e='7'", "--f=true", "--g=007"]
    texts = {word[2] for word in typed}
    assert parse_arguments([*typed, "--n=2024"], texts) == {
        "a": "2024",
        "b": "1e3",
        "c": "1,2",
        "d": None,
        "e": "7",
        "f": "true",
        "g": "007",
        "n": 2024,
    }
    for word in ("--a", "--a="):
        with pytest.raises(ConfigError, match="--a needs a value: --a=..."):
            parse_arguments([word], texts)


def test_the_programs_own_arguments_are_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs=77", "--no_such_key=1", "a=b"])
    assert make(epochs=3)["epochs"] == 3


# --- which value wins -----------------------------------------------------------------------------


def test_arguments_beat_dictionary_beats_files_beat_ours(tmp_path):
    files = [
        write(tmp_path / "1.yaml", "epochs: 1\nseed: 1\nlearning_rate: 1e-2\nstopping_step: 1"),
        write(tmp_path / "2.yaml", "epochs: 2\nseed: 2"),
    ]
    config = make(dataset="other", files=files, epochs=3, argv=["--seed=4"])
    assert (config["stopping_step"], config["learning_rate"], config["epochs"], config["seed"]) == (
        1,
        0.01,
        3,
        4,
    )
    ours = yaml.safe_load((properties_folder() / "model" / "STORE.yaml").read_text())
    assert config["train_batch_size"] == ours["train_batch_size"]


def test_model_files_beat_dataset_files_beat_overall_beats_recbole(tmp_path, monkeypatch):
    for name, content in {
        "overall": "{epochs: 1, seed: 1, eval_batch_size: 1, train_batch_size: 1, "
        "stopping_step: 1}",
        "dataset/toy": "seed: 2\neval_batch_size: 2\ntrain_batch_size: 2\nstopping_step: 2\n"
        "STORE: {train_batch_size: 4}\nSASRec: {epochs: 9}",
        "dataset/alike": "like: toy\nseed: 7\nSASRec: {epochs: 8}",
        "dataset/lost": "like: nowhere",
        "model/STORE": "{eval_batch_size: 3, train_batch_size: 3, stopping_step: 3, loss: {a: 1}}",
        "paper/STORE": "{stopping_step: 5}",
    }.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    monkeypatch.setattr(
        "recbole_genrec.settings.property_files.properties_folder", lambda: tmp_path
    )
    monkeypatch.setattr("recbole_genrec.config.check_settings", lambda config: None)
    keys = ["epochs", "seed", "eval_batch_size", "train_batch_size", "stopping_step"]
    assert [make(dataset="toy")[key] for key in keys] == [1, 2, 3, 4, 3]
    assert [make(dataset="toy", preset="paper")[key] for key in keys] == [1, 2, 3, 3, 5]
    assert [make(dataset="other")[key] for key in keys] == [1, 1, 3, 3, 3]
    assert [make(dataset="alike")[key] for key in keys] == [1, 7, 3, 4, 3] and make(
        "SASRec", "alike"
    )["epochs"] == 8
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        make(dataset="lost")
    assert make("SASRec", "toy")["epochs"] == 9 and make("GRU4Rec", "toy")["epochs"] == 1
    assert (
        make(dataset="toy")["loss"] == {"a": 1} and make(dataset="toy")["weight_decay"] == 0.0
    )  # a mapping; RecBole's default


def test_keys_of_one_model_leave_the_others_alone():
    argv = ["--epochs=5", "--SASRec.epochs=6", "--SASRec.hidden_size=32", "--STORE.beam_width=30"]
    store, sasrec = make(argv=argv), make("SASRec", argv=argv)
    assert (store["epochs"], store["beam_width"], store["hidden_size"]) == (5, 30, None)
    assert (sasrec["epochs"], sasrec["hidden_size"], sasrec["beam_width"]) == (6, 32, 20)


def test_keys_of_an_unknown_model_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"SASRek\.epochs: there is no model 'SASRek'\. Did you mean SASRec\.epochs",
    ):
        make(argv=["--SASRek.epochs=6"])
    with pytest.raises(
        ConfigError, match=r"Unknown key 'hiden_size' for SASRec\. Did you mean hidden_size"
    ):
        make("SASRec", argv=["--SASRec.hiden_size=6"])


def test_the_published_setting_is_one_switch():
    ours, paper = make(dataset="amazon-beauty"), make(dataset="amazon-beauty", preset="paper")
    published = yaml.safe_load((properties_folder() / "paper" / "STORE.yaml").read_text())
    assert all(paper[key] == value for key, value in published.items())
    assert ours["backbone"] == "scratch" != paper["backbone"]
    assert make(preset="paper", backbone="scratch")["backbone"] == "scratch"
    assert make("SASRec", preset="paper").plain() == {
        **make("SASRec").plain(),
        "preset": "paper",
    }  # a baseline has none
    plain = make(
        "STORE", dataset="ml-100k", preset="paper"
    )  # what we chose for a dataset and two cores is no part of it
    assert (
        plain["loss_vocab"],
        plain["lr_scheduler"],
        plain["score_type"],
        plain["normalize_all"],
    ) == ("full", "constant", "level", True)
    assert (
        make("LETTER", dataset="amazon-beauty", preset="paper", generator="lcrec")["valid_users"]
        == 0
    )
    with pytest.raises(ConfigError, match="preset is 'papr'; the only preset is 'paper'"):
        make(preset="papr")


def test_negatives_follow_the_loss():
    def distribution(*args, **changes):
        return make(*args, **changes)["train_neg_sample_args"]["distribution"]

    assert {name: distribution(name) for name in ("STORE", "SASRec", "Pop", "LightGCN", "BPR")} == {
        "STORE": "none",
        "SASRec": "none",
        "Pop": "none",
        "LightGCN": "uniform",
        "BPR": "uniform",
    }
    assert distribution("SASRec", loss_type="BPR") == "uniform"
    assert (
        distribution(
            "LightGCN", train_neg_sample_args={"distribution": "popularity", "sample_num": 1}
        )
        == "popularity"
    )


# --- the stored form ------------------------------------------------------------------------------

PATHS = {"data_path", "checkpoint_dir", "cache_dir"}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("STORE", {"clip_grad_norm": {"max_norm": 1.0}, "epochs": 3}),
        ("STORE", {"preset": "paper"}),
        ("STORE", {"item_text_fields": None, "user_inter_num_interval": "[20,26]"}),
        ("SASRec", {"loss_type": "BPR"}),
        ("BERT4Rec", {}),
        ("Pop", {}),
        (
            "LightGCN",
            {
                "eval_args": {
                    "split": {"LS": "valid_and_test"},
                    "order": "TO",
                    "mode": {"valid": "uni100", "test": "full"},
                }
            },
        ),
    ],
)
def test_a_stored_configuration_is_rebuilt(model, changes):
    first = make(model, **changes)
    stored = first.plain()
    assert ast.literal_eval(repr(stored)) == stored  # plain values only
    again = config_from_plain(stored)
    assert {k: v for k, v in again.plain().items() if k not in PATHS} == {
        k: v for k, v in stored.items() if k not in PATHS
    }
    assert again.run_name() == first.run_name() and again.model_class is first.model_class
    assert config_from_plain(stored, epochs=9)["epochs"] == 9


def test_the_data_folder_of_a_stored_configuration(tmp_path):
    stored = make(dataset="toy", data_path=str(tmp_path)).plain()
    assert stored["data_path"] == str(tmp_path / "toy")
    assert config_from_plain(stored)["data_path"] == str(tmp_path / "toy")
    assert config_from_plain(stored, data_path="elsewhere")["data_path"] == str(
        Path("elsewhere") / "toy"
    )


def test_a_stored_configuration_that_no_longer_fits_is_refused():
    with pytest.raises(ConfigError, match="Unknown key 'removed_key'"):
        config_from_plain({**make().plain(), "removed_key": 1})


def test_what_a_model_writes_later_is_not_stored():
    config = make()
    before, name = config.plain(), config.run_name()
    config["MASK_INDEX"] = torch.tensor(3)
    assert config.plain() == before and config.run_name() == name


COSMETIC = {
    "resume": True,
    "show_progress": False,
    "state": "ERROR",
    "checkpoint_dir": "x",
    "cache_dir": "y",
    "worker": 1,
    "eval_batch_size": 7,
}
COSMETIC |= {
    "result_file": "z.json",
    "search_batch_size": 3,
    "data_path": "elsewhere",
    "use_gpu": False,
}
REAL = {
    "seed": 1,
    "epochs": 1,
    "learning_rate": 0.5,
    "beam_width": 25,
    "score_type": "joint",
    "MAX_ITEM_LIST_LENGTH": 7,
    "valid_users": 3,
}
REAL |= {
    "codebook_sizes": [4, 4],
    "item_text_fields": ["movie_title"],
    "user_inter_num_interval": "[20,26]",
    "train_rows": "all",
}


@pytest.mark.parametrize(("key", "value"), COSMETIC.items())
def test_how_a_run_is_shown_does_not_change_its_name(key, value):
    assert make(**{key: value}).run_name() == make().run_name()


@pytest.mark.parametrize(("key", "value"), REAL.items())
def test_what_a_run_computes_changes_its_name(key, value):
    name = make(**{key: value}).run_name()
    assert name != make().run_name() and name == make(**{key: value}).run_name()
    assert name.startswith("STORE-ml-100k-")


def test_what_the_files_hold_changes_its_name(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "ids").write_text("\n".join(map(str, range(20))))
    for part in (".inter", ".item", ".train.inter", ".valid.inter"):
        (tmp_path / "toy" / f"toy{part}").write_text("a")
    settings = {"dataset": "toy", "data_path": str(tmp_path)}
    parts = {
        **settings,
        "benchmark_filename": ["train", "valid", "test"],
        "candidate_file": str(tmp_path / "ids"),
    }
    plain, split = make(**settings).run_name(), make(**parts).run_name()
    for changed, plain_too in (
        (".item", True),
        (".inter", True),
        (".train.inter", False),
        ("ids", False),
    ):
        file = tmp_path / "ids" if changed == "ids" else tmp_path / "toy" / f"toy{changed}"
        file.write_text("\n".join(map(str, range(30))))
        assert (make(**settings).run_name() != plain) == plain_too
        assert (make(**parts).run_name() != split) == (changed != ".inter")
        plain, split = make(**settings).run_name(), make(**parts).run_name()


def test_files_of_settings_are_named_in_several_ways(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    one, two = folder / "one.yaml", tmp_path / "two.yaml"
    for file in (one, two):
        file.write_text("epochs: 1")
    assert config_files(["first.yaml"], {"config_files": str(one)}) == ["first.yaml", str(one)]
    assert config_files(None, {"config_files": [str(one), str(two)]}) == [str(one), str(two)]
    assert config_files(None, {"config_files": "a.yaml b.yaml,c.yaml"}) == [
        "a.yaml",
        "b.yaml",
        "c.yaml",
    ]
    assert config_files(None, {}) == []


@pytest.mark.parametrize("generator", ["timeline", "lcrec"])
def test_another_generator_reads_the_same_codes(generator):
    for preset in (None, "paper") if generator == "lcrec" else (None,):
        own, other = (
            make("LETTER", preset=preset),
            make("LETTER", preset=preset, generator=generator),
        )
        differing = [
            key for key in tokenizer_class("letter").cache_key_names() if own[key] != other[key]
        ]
        assert differing == [] and other["model"] == GENERATORS["LETTER", generator]
    assert make("LETTER", preset="paper", generator="lcrec")["test_prompt_ids"] == 0
    assert make("LETTER", generator=generator, tokenizer_epochs=3)["tokenizer_epochs"] == 3
    name = GENERATORS["LETTER", generator]
    of_both = {"epochs": 1, "LETTER.epochs": 2, f"{name}.epochs": 3, f"{name}.seed": 4}
    config = make("LETTER", generator=generator, **of_both)
    assert (config["epochs"], config["seed"]) == (3, 4)
