"""Every mistake in the settings ends in one sentence that names the key, the value and the
remedy; no setting is run as code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_genrec.cli import run as run_cli
from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.settings.classification import shared_keys
from recbole_genrec.settings.declaration import Key
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.protocol_values import evaluation_modes
from recbole_genrec.settings.rules import check_value, nearest


def make(model="STORE", dataset="ml-100k", argv=None, files=None, **changes):
    return GenRecConfig(
        model, dataset, config_file_list=files, config_dict={"gpu_id": "", **changes}, argv=argv
    )


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


# --- values ---------------------------------------------------------------------------------------


def broken_values(declared: Key):
    """Values that a declaration must refuse."""
    if not declared.optional:
        yield None
    low, high = declared.low, declared.high
    if declared.kind is list:
        yield from ("word", [], {}, [["nested"]], ["word"] if declared.item is int else [1])
        inside = [[low - 1]] if low is not None else []
    else:
        yield from {
            int: ["word", 1.5, True, [1]],
            float: ["word", True, [1.0]],
            bool: ["word", 1],
            str: [1, True, ["a"]],
            dict: ["word", 1, ["a"]],
        }[declared.kind]
        inside = [] if low is None else [low - 1]
        inside += [] if high is None else [high + 1]
        inside += [float("nan")] if declared.kind is float and low is not None else []
        inside += ["no such choice"] if declared.choices else []
    yield from inside


CHECKED = {name: declared for name, declared in shared_keys().items() if not declared.computed}
CASES = [
    (name, value)
    for name, declared in CHECKED.items()
    if declared.annotation is not Any
    for value in broken_values(declared)
]


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key}={value!r}" for key, value in CASES])
def test_every_shared_key_refuses_wrong_types_ranges_and_words(key, value):
    declared = CHECKED[key]
    with pytest.raises(ConfigError, match=rf"^{key} (is|must be set)") as error:
        check_value(declared, value)
    assert declared.help in str(error.value)


def test_every_shared_key_accepts_what_our_files_say():
    for dataset in ("ml-100k", "amazon-beauty", "nothing"):
        values = make(dataset=dataset).final_config_dict
        missing = [key for key in CHECKED if key not in values]
        assert set(missing) <= {
            "generator",
            "preset",
            "result_file",
            "cf_rows",  # in the files of those that use it, whose runs alone it names
            "compile_search",
            "config_file",
            "config_files",
            "log_mlflow",
            "mlflow_experiment",
            *(["item_text_fields"] if dataset == "nothing" else []),
        }


def test_a_word_for_a_number_is_explained():
    with pytest.raises(
        ConfigError,
        match=r"beam_width is 'atuo'; it must be of type int or auto .*Did you mean auto",
    ):
        make(beam_width="atuo")
    with pytest.raises(
        ConfigError, match=r"learner is 'adamm'; it must be one of adam, .* Did you mean adam"
    ):
        make(learner="adamm")
    with pytest.raises(
        ConfigError,
        match=r"precision is 'bf61'; it must be one of fp32, bf16, fp16 .*Did you mean bf16",
    ):
        make(precision="bf61")
    with pytest.raises(ConfigError, match=r"warmup_ratio is 1\.5; it must be between 0 and 1"):
        make(warmup_ratio=1.5)
    assert make(beam_width="auto")["beam_width"] == "auto"


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_widht": 20}, r"Unknown key 'beam_widht' for STORE\. Did you mean beam_width"),
        ({"max_item_list_length": 20}, "Did you mean MAX_ITEM_LIST_LENGTH"),
        ({"zzzzzz": 20}, r"Unknown key 'zzzzzz' for STORE\.$"),
        ({"beam_width": 19}, r"beam_width 19 is below max\(topk\) 20.*--beam_width=20"),
        (
            {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}},
            "takes no negative samples",
        ),
        ({"metrics": ["Recal"]}, "There is no metric 'Recal'"),
        ({"topk": "ten"}, "topk"),
        ({"topk": [0]}, "topk"),
        ({"valid_metric": "MRR@10"}, "valid_metric MRR@10 must be one of metrics"),
        ({"valid_metric": "NDCG@7"}, r"valid_metric NDCG@7 must be .* topk \[5, 10, 20\]"),
        ({"valid_metric": "NDCG@x"}, "valid_metric NDCG@x"),
        ({"valid_metric": "NDCG"}, "valid_metric NDCG must"),
        ({"epochs": "ten"}, "epochs is 'ten'"),
        ({"repeatable": False}, "repeatable"),
        ({"save_dataset": True}, "save_dataset makes RecBole write and read pickles"),
        ({"dataloaders_save_path": "x.pth"}, "dataloaders_save_path makes RecBole"),
        ({"local_rank": 0}, "local_rank is given by the launcher.*--nproc=2"),
        ({"train_neg_sample_args": "many"}, "train_neg_sample_args"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "dataset", ["../ml-100k", "a/b", "/etc", "..", ".hidden", "", "a\\b", "a b", "x\n", 5]
)
def test_a_dataset_is_the_name_of_one_folder(dataset):
    with pytest.raises(ConfigError, match="must be the name of one folder"):
        make(dataset=dataset)


@pytest.mark.parametrize(
    "model", ["../../store", "recbole_genrec.model.store", "os", "", "SASRec.yaml", "store/STORE"]
)
def test_a_model_is_a_name_of_the_table(model):
    with pytest.raises(ConfigError, match="There is no model"):
        make(model)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("STOER", "STORE"), ("sasrec", "SASRec"), ("LightGCM", "LightGCN"), ("bert4rec", "BERT4Rec")],
)
def test_a_misspelt_model_is_guessed(typed, meant):
    with pytest.raises(ConfigError, match=f"There is no model '{typed}'. Did you mean .*{meant}"):
        make(typed)


def test_model_and_dataset_are_needed():
    for model, dataset in ((None, "ml-100k"), ("STORE", None)):
        with pytest.raises(ConfigError, match="Name a model and a dataset"):
            GenRecConfig(model, dataset)
    assert GenRecConfig(argv=["--model=STORE", "--dataset=ml-100k", "--gpu_id="]).model == "STORE"


# --- files and commands ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "epochs: !!python/object/apply:os.system ['touch executed']",
            "cannot be read as plain YAML",
        ),
        ("!!python/name:os.system", "cannot be read as plain YAML"),
        ("epochs: [", "cannot be read as plain YAML"),
        ("- epochs", "must hold 'key: value' lines"),
        ("just words", "must hold 'key: value' lines"),
        ("on: 1", "must hold 'key: value' lines"),
        (b"\xff\xfe\x00", "cannot be read as plain YAML"),
    ],
)
def test_files_are_plain_yaml(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=rf"mine\.yaml {message}"):
        make(files=[str(path)])
    assert not Path("executed").exists()


def test_a_key_given_twice_is_refused(tmp_path):
    file = write(tmp_path / "twice.yaml", "seed: 1\ntopk: [5]\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml: seed is given twice, on lines 1 and 3"):
        make(files=[file])
    file = write(tmp_path / "nested.yaml", "seed: 1\neval_args: {order: TO, order: RO}\n")
    with pytest.raises(ConfigError, match=r"nested\.yaml: order is given twice, on line 2"):
        make(files=[file])
    with pytest.raises(ConfigError, match="order is given twice"):
        make(argv=["--eval_args={order: TO, order: RO}"])
    with pytest.raises(ConfigError, match="order is given twice"):
        make(argv=["--eval_args={'order': 'TO', 'order': 'RO'}"])
    merged = "base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}\n"
    assert read_yaml(write(tmp_path / "merged.yaml", merged))["own"] == {"a": 1, "b": 3}


def test_no_yaml_file_here_gives_a_key_twice():
    root = Path(__file__).parents[2]
    folders = ("properties", "benchmarks", "examples", "tests")
    files = [
        *root.glob("*.yaml"),
        *(file for name in folders for file in root.glob(f"{name}/**/*.yaml")),
    ]
    assert len(files) > 20
    for file in files:
        assert isinstance(read_yaml(file), dict)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        make(files=["none.yaml"])
    assert make(files=[write(tmp_path / "empty.yaml", "# nothing\n")])["epochs"] == make()["epochs"]


def test_strings_are_never_run_as_code():
    text = "open('executed', 'w').close()"
    assert make(wandb_project=text, argv=[f"--result_file={text}"])["wandb_project"] == text
    assert not Path("executed").exists()


def test_yaml_dates_are_texts(tmp_path):
    text = "day: 2024-01-01\ntime: 2024-01-01 10:00:00\nquoted: '2024-01-01'\n"
    assert read_yaml(write(tmp_path / "dates.yaml", text)) == {
        "day": "2024-01-01",
        "time": "2024-01-01 10:00:00",
        "quoted": "2024-01-01",
    }


def test_yaml_numbers_with_an_exponent(tmp_path):
    assert (
        make(files=[write(tmp_path / "a.yaml", "learning_rate: 1e-3\nweight_decay: 5E-4")])[
            "learning_rate"
        ]
        == 0.001
    )
    assert yaml.safe_load("a: 1e-3")["a"] == "1e-3"  # the loader of the process is as it was


def test_nearest_ignores_case():
    assert (
        nearest("sasrec", ["SASRec", "GRU4Rec"]) == ["SASRec"] and nearest("qqqq", ["SASRec"]) == []
    )


def test_the_command_prints_help_and_errors(capsys):
    assert run_cli(["--help"]) == 0 and "--model=STORE --dataset=ml-100k" in capsys.readouterr().out
    assert run_cli(["--model=STORE", "--dataset=ml-100k", "--epochs=x"]) == 2
    assert "ConfigError: epochs is 'x'" in capsys.readouterr().err
    assert issubclass(ConfigError, GenRecError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eval_args": {"splits": {"LS": "valid_and_test"}}},
            "eval_args has no 'splits'.*Did you mean split",
        ),
        ({"eval_args": "full"}, "eval_args is 'full'; it must be a dictionary"),
        ({"eval_args": None}, "eval_args is None.*train on every interaction.*--hold_out=False"),
        ({"metrics": ["Recal"]}, "There is no metric 'Recal'. Did you mean Recall.*NDCG"),
        ({"metrics": None}, "metrics is None; it must be a list of .*NDCG"),
        ({"metrics": "AUC"}, "AUC judges predicted values, .* mode: full.* Use .*Recall"),
        ({"eval_args": {"mode": "uni"}}, "mode is 'uni'; use full, uniN or popN"),
        ({"eval_args": {"mode": "labeled"}}, "mode labeled needs labels"),
        (
            {"user_inter_num_interval": 7},
            r'user_inter_num_interval is 7; write an interval, for example "\[5,inf\)"',
        ),
        ({"item_inter_num_interval": "[5,inf)[7,8]"}, "item_inter_num_interval is"),
        ({"val_interval": {"rating": "[3,inf"}}, "val_interval: rating is"),
        ({"clip_grad_norm": 1}, "clip_grad_norm is 1; write"),
        ({"clip_grad_norm": {"max_norm": -1}}, "max_norm must be a number above 0"),
        ({"clip_grad_norm": {"maxnorm": 1}}, "max_norm must be a number above 0"),
        ({"clip_grad_norm": {"max_norm": 1, "norm": 2}}, "only norm_type may stand beside it"),
        ({"transform": "crop"}, "transform is 'crop'; it must be one of mask_itemseq"),
        ({"transform": "crop_itemseq"}, "transform: crop_itemseq"),
        ({"worker": -1}, "worker is -1"),
        ({"eval_args": {"mode": "uni0"}}, "mode is 'uni0'; use full, uniN or popN"),
        ({"eval_args": {"mode": "pop5"}}, "among 5 sampled items, and topk .* hold all of them"),
        ({"eval_args": {"mode": {"valdi": "uni50"}}}, "mode has no 'valdi'.*Did you mean valid"),
    ],
)
def test_what_recbole_would_leave_out_or_stumble_over(changes, message):
    for model in ("STORE", "SASRec"):
        with pytest.raises(ConfigError, match=message):
            make(model, **changes)


@pytest.mark.parametrize("mode", [None, "uni50", {}, {"test": "pop99"}, {"valid": "uni99"}])
def test_modes_of_validation_and_test_are_those_that_recbole_completes(mode):
    given = {} if mode is None else {"mode": mode}
    if isinstance(mode, str):
        assert evaluation_modes(given) == {"valid": mode, "test": mode}
    assert evaluation_modes(given) == make(eval_args=given)["eval_args"]["mode"]


def test_parts_of_eval_args_keep_the_rest_of_the_protocol():
    whole = make()["eval_args"]
    assert make(eval_args={"mode": "uni100"})["eval_args"] == {
        **whole,
        "mode": {"valid": "uni100", "test": "uni100"},
    }
    for intervals in ("[5,inf)", "(0, 1.5];[3,4)", "(-inf,-1]", "[1.3e9,Inf)"):
        assert make(val_interval={"rating": intervals}, user_inter_num_interval="[3,9]")[
            "val_interval"
        ] == {"rating": intervals}
    assert (
        make(
            tail_ratio=0.2,
            topk=[10, 10],
            metrics=["TailPercentage"],
            valid_metric="TailPercentage@10",
        )["tail_ratio"]
        == 0.2
    )


def test_changes_of_histories_are_for_models_that_read_them():
    with pytest.raises(ConfigError, match="transform: inverse_itemseq changes the histories"):
        make("STORE", transform="inverse_itemseq")
    assert make("SASRec", transform="inverse_itemseq")["transform"] == "inverse_itemseq"
    assert make("SASRec", clip_grad_norm={"max_norm": 0.5, "norm_type": 1})
