"""A published setting takes nothing of ours silently, and two papers are not mixed silently."""

import pytest
import yaml

from recbole_genrec.config import GenRecConfig
from recbole_genrec.model.presets import is_tuning
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.tokenizer import tokenizer_class


def make(model, dataset="ml-1m", **values):
    values = {name: value for name, value in values.items() if value is not None}
    return GenRecConfig(model, dataset, config_dict={"gpu_id": "", **values})


def published(model):
    return yaml.safe_load((properties_folder() / "paper" / f"{model}.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "tuning"),
    [
        ("cf_epochs", True),
        ("MAX_ITEM_LIST_LENGTH", True),
        ("learning_rate", True),
        ("tokenizer_lr", True),
        ("item_text_fields", False),
        ("load_col", False),
        ("user_inter_num_interval", False),
        ("eval_args", False),
        ("topk", False),
        ("seed", False),
    ],
)
def test_which_keys_of_a_dataset_tune_a_method(name, tuning):
    assert is_tuning(name) == tuning


def test_our_keys_for_a_dataset_do_not_reach_a_published_setting():
    ours, paper = make("LETTER", "ml-100k"), make("LETTER", "ml-100k", preset="paper")
    assert (ours["cf_epochs"], paper["cf_epochs"]) == (10, 20)
    assert paper["item_text_fields"] == ours["item_text_fields"]
    assert ours.notices == []
    assert paper.notices == [
        "preset: paper takes no notice of MAX_ITEM_LIST_LENGTH, cf_epochs in dataset/ml-100k.yaml: "
        "these values are ours."
    ]
    assert make("TIGER", preset="paper")["MAX_ITEM_LIST_LENGTH"] == 20
    assert make("SASRec", preset="paper")["MAX_ITEM_LIST_LENGTH"] == 50, "a baseline has no paper"
    chosen = make("LETTER", "ml-100k", preset="paper", cf_epochs=7)
    assert chosen["cf_epochs"] == 7


def test_the_yaml_file_of_the_user_stays(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "ml-100k.yaml").write_text("cf_epochs: 3\nMAX_ITEM_LIST_LENGTH: 9\n")
    values = {"preset": "paper", "data_path": str(tmp_path)}
    config = make("LETTER", "ml-100k", **values)
    assert (config["cf_epochs"], config["MAX_ITEM_LIST_LENGTH"]) == (3, 9)
    assert config.notices == []


@pytest.mark.parametrize("preset", [None, "paper"])
@pytest.mark.parametrize("model", ["TIGER", "LETTER"])
def test_the_generator_of_another_paper_takes_the_whole_tokenizer_of_the_first(model, preset):
    alone = make(model, preset=preset)
    mixed = make(model, preset=preset, generator="lcrec")
    names = tokenizer_class(alone["tokenizer"]).cache_key_names()
    assert {name: mixed[name] for name in names} == {name: alone[name] for name in names}
    (notice,) = [notice for notice in mixed.notices if "LCRec runs on the codes of" in notice]
    assert ("No paper has this combination" in notice) == (preset == "paper" and model == "TIGER")
    chosen = make(model, preset=preset, generator="lcrec", codebook_sizes=[7, 7])
    assert chosen["codebook_sizes"] == [7, 7]


def test_another_tokenizer_than_the_published_one_is_said():
    assert make("LCRec", preset="paper", tokenizer="rqvae").notices == [
        "preset: paper takes no notice of MAX_ITEM_LIST_LENGTH in dataset/ml-1m.yaml: these values "
        "are ours."
    ]
    notices = make("LCRec", preset="paper", tokenizer="letter").notices
    assert "LCRec has the tokenizer rqvae, and this run letter" in notices[-1]
    assert make("LCRec", tokenizer="letter").notices == []


def test_published_tokenizers_say_whether_vectors_are_standardised():
    files = {name: published(name) for name in ("TIGER", "LETTER", "LCRec", "TokenRec")}
    assert {name: file["standardize"] for name, file in files.items()} == {
        "TIGER": True,
        "LETTER": False,
        "LCRec": False,
        "TokenRec": True,
    }
    starts = {name: files[name]["codebook_init"] for name in ("TIGER", "LETTER", "LCRec")}
    assert starts == {"TIGER": "first_batch", "LETTER": "constrained", "LCRec": "first_batch"}


@pytest.mark.parametrize(
    ("model", "rate", "schedule", "warmup", "epochs"),
    [
        ("TIGER", 0.4, "constant", 0.0, 20_000),
        ("LETTER", 0.001, "constant", 0.0, 20_000),
        ("LCRec", 0.001, "linear", 0.005, 10_000),
    ],
)
def test_the_tokenizers_of_papers_train_as_published(model, rate, schedule, warmup, epochs):
    paper = make(model, preset="paper")
    assert (paper["tokenizer_lr"], paper["tokenizer_lr_scheduler"]) == (rate, schedule)
    assert (paper["tokenizer_warmup_ratio"], paper["tokenizer_epochs"]) == (warmup, epochs)
    assert paper["tokenizer_precision"] == "fp32"
