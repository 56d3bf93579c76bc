"""Who reads texts of items: refused before a training, and said in the summary."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import toy_config, write_dataset

from recbole_genrec import run_recbole_genrec
from recbole_genrec.errors import DataError
from recbole_genrec.experiments import run as module
from recbole_genrec.model.text_needs import check_item_texts

NEEDS = ["STORE", "LMIndexer", "TIGER", "LCRec"]
NO_TEXT = {"item_text_fields": None}
SEVERAL_TREES = {"depth": "none", "score_mode": "exact"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("model", NEEDS)
def test_a_run_without_texts_that_it_needs_is_refused(folder, model):
    check_item_texts(toy_config(folder, model))
    with pytest.raises(DataError, match=rf"^{model}.* needs texts of items.*\[title, brand\]"):
        check_item_texts(toy_config(folder, model, **NO_TEXT))
    with pytest.raises(DataError, match="which is no column of"):
        check_item_texts(toy_config(folder, model, item_text_fields=["titel"]))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("TIGER", {"tokenizer": "cid"}),
        ("LCRec", {"tokenizer": "cid"}),
        ("TimelineRec", {"tokenizer": "cid"}),
        ("TIGER", {"item_vectors": "v.npy"}),
        ("TokenRec", {}),
        ("MetaID", {}),
        ("SETRec", {"item_vectors": "v.npy"}),
    ],
)
def test_what_needs_no_texts_passes(folder, model, changes):
    check_item_texts(toy_config(folder, model, **NO_TEXT, **changes))


def test_data_that_is_not_there_yet_is_not_looked_at(folder, tmp_path):
    check_item_texts(toy_config(tmp_path, "STORE", **NO_TEXT))


def test_no_model_is_trained_before_the_texts_of_all_are_checked(folder, monkeypatch):
    trained: list[dict] = []
    monkeypatch.setattr(module, "run_single_model", lambda **settings: trained.append(settings))
    values = {"data_path": str(folder), "gpu_id": ""}
    with pytest.raises(DataError, match="^STORE needs texts of items"):
        run_recbole_genrec("SASRec,STORE", "toy", config_dict=values)
    assert trained == []


@pytest.mark.parametrize(
    ("model", "changes", "line"),
    [
        ("MetaID", {}, "title (shown in lists, not read by MetaID)"),
        ("TokenRec", {}, "title (shown in lists, not read by TokenRec)"),
        (
            "TIGER",
            {"tokenizer": "cid"},
            "title (shown in lists, not read by TIGER with tokenizer: cid)",
        ),
        ("TIGER", {}, "title"),
        ("STORE", {}, "title"),
        ("SETRec", {}, "title"),
        ("LCRec", {"tokenizer": "cid"}, "title"),
        (
            "TimelineRec",
            {"tokenizer": "cid", "tokenizers": ["cid", "rkmeans"], **SEVERAL_TREES},
            "title",
        ),
        ("MetaID", {"item_text_fields": None}, "none"),
    ],
)
def test_the_summary_says_whether_texts_are_read(folder, model, changes, line):
    config = toy_config(folder, model, **{"item_text_fields": ["title"], **changes})
    assert config.model_class.describe(config)["item text"] == line


def test_a_further_tree_of_texts_needs_them(folder):
    """Without texts it would be made of raw ids."""
    changes = {"tokenizer": "cid", "tokenizers": ["cid", "rkmeans"], **SEVERAL_TREES}
    check_item_texts(toy_config(folder, "TimelineRec", **changes))
    with pytest.raises(DataError, match=r"^TimelineRec.* needs texts of items"):
        check_item_texts(toy_config(folder, "TimelineRec", **changes, **NO_TEXT))
    vectors = {"item_vectors": "v.npy"}
    check_item_texts(toy_config(folder, "TimelineRec", **changes, **NO_TEXT, **vectors))


def test_the_summary_of_lmindexer_names_no_text_encoder(folder):
    config = toy_config(folder, "LMIndexer")
    assert "text encoder" not in config.model_class.describe(config)
