"""Settings of a language model from scratch, of which a user gives a few."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_genrec.config import GenRecConfig
from recbole_genrec.experiments.stored_settings import config_from_plain

CHANGES = {
    "STORE": ("backbone_config", {"max_position_embeddings": 2048}),
    "LCRec": ("backbone_config", {"hidden_size": 96}),
    "TIGER": ("backbone_config", {"dropout_rate": 0.3}),
    "LMIndexer": ("indexer_config", {"num_layers": 3}),
}


def make(model: str, dataset: str = "toy", **changes) -> GenRecConfig:
    return GenRecConfig(model, dataset, config_dict={"gpu_id": "", **changes})


@pytest.mark.parametrize("dataset", ["toy", "ml-100k"])
@pytest.mark.parametrize("model", CHANGES)
def test_without_a_model_type_single_values_change(model, dataset):
    name, change = CHANGES[model]
    default = make(model, dataset)[name]
    merged = {**default, **change}
    assert default != merged
    assert make(model, dataset, **{name: change})[name] == merged
    assert make(model, dataset, **{f"{model}.{name}": change})[name] == merged


@pytest.mark.parametrize("model", CHANGES)
def test_with_a_model_type_the_value_stands_as_it_is(model):
    name, change = CHANGES[model]
    whole = {"model_type": make(model)[name]["model_type"], **change}
    assert make(model, **{name: whole})[name] == whole


def test_the_datasets_own_file_changes_single_values_too(tmp_path: Path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.yaml").write_text("backbone_config: {num_attention_heads: 8}\n")
    default = make("STORE")["backbone_config"]
    both = make(
        "STORE", data_path=str(tmp_path), backbone_config={"max_position_embeddings": 1024}
    )["backbone_config"]
    assert both == {**default, "num_attention_heads": 8, "max_position_embeddings": 1024}


def test_what_a_checkpoint_holds_is_all_that_its_model_had():
    stored = make("STORE").plain()
    stored["backbone_config"] = {"max_position_embeddings": 1024}
    again = config_from_plain(stored)
    assert again["backbone_config"] == {"max_position_embeddings": 1024}
    assert again.plain()["backbone_config"] == {"max_position_embeddings": 1024}


def test_the_summary_shows_the_whole_shape():
    for model in ("STORE", "LCRec"):
        config = make(model, backbone_config={"max_position_embeddings": 2048})
        line = config.model_class.describe(config)["backbone"]
        assert "'max_position_embeddings': 2048" in line and "'num_hidden_layers': 2" in line
