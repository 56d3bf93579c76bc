"""Tokenizers from outside the package: registered, by an entry point, ``package.module:Class``."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.runtime import outside_classes
from recbole_genrec.tokenizer import (
    ItemCodes,
    ItemTokenizer,
    register_tokenizer,
    registry,
    tokenizer_class,
    tokenizer_names,
)
from recbole_genrec.tokenizer.registry import check_stored_name

MODULE = '''
import torch
from recbole_genrec.tokenizer import ItemCodes, ItemTokenizer


class ByLength(ItemTokenizer):
    """Codes from the lengths of the texts."""

    name = "by-length"

    def fit(self, content):
        learned = self._codes(content.text[1:])
        return ItemCodes.build(learned, (50,), content.tokens, "extra_token")

    def encode(self, new):
        return self._codes(new.texts)

    def _codes(self, texts):
        return torch.tensor([[len(text) % 50] for text in texts])
'''


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    fresh = outside_classes.OutsideClasses("tokenizer", registry.ENTRY_POINTS, ItemTokenizer)
    monkeypatch.setattr(registry, "_outside", fresh)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "lengths.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "lengths:ByLength"
    sys.modules.pop("lengths", None)


def test_a_registered_class_is_known_by_its_name():
    @register_tokenizer
    class Constant(ItemTokenizer):
        name = "constant"

        def fit(self, content):
            learned = torch.zeros(len(content.tokens) - 1, 1, dtype=torch.long)
            return ItemCodes.build(learned, (2,), content.tokens, "extra_token")

        def encode(self, new):
            return torch.zeros(len(new), 1, dtype=torch.long)

    assert tokenizer_class("constant") is Constant and "constant" in tokenizer_names()
    with pytest.raises(ConfigError, match="Did you mean constant"):
        tokenizer_class("constat")


@pytest.mark.parametrize("name", ["rkmeans", "a/b", None])
def test_a_name_must_be_its_own(name):
    with pytest.raises(ConfigError, match="a name of its own"):
        register_tokenizer(type("Other", (ItemTokenizer,), {"name": name}))


def test_what_is_no_tokenizer_is_refused(module):
    with pytest.raises(ConfigError, match="must derive from ItemTokenizer"):
        register_tokenizer(type("Other", (), {"name": "other"}))
    with pytest.raises(ConfigError, match="is no tokenizer"):
        tokenizer_class("lengths:torch")
    for missing in ("no_such_module:A", "lengths:Missing"):
        with pytest.raises(ConfigError, match="cannot be loaded"):
            tokenizer_class(missing)


def test_an_entry_point_is_known_by_its_name(module, monkeypatch):
    point = EntryPoint("short", module, registry.ENTRY_POINTS)
    monkeypatch.setattr(outside_classes, "entry_points", lambda group: [point])
    assert tokenizer_class("short").name == "by-length" and "short" in tokenizer_names()


def test_a_run_and_its_checkpoint(module, tmp_path):
    folder = write_dataset(tmp_path / "data")
    model, config, loaders = toy_model(folder, "TIGER", tokenizer=module, cache_dir="cache")
    assert [path.name[:10] for path in (tmp_path / "cache").glob("by-*")] == ["by-length-"]
    (added,) = model.add_items(["a text"])
    assert model.codes[added, 0] == len("a text")

    settings = {"data_path": str(folder), "tokenizer": module, "epochs": 1, "gpu_id": ""}
    settings |= {"topk": [5], "valid_metric": "NDCG@5", "item_text_fields": ["title"]}
    settings |= {"backbone_config": config["backbone_config"], "show_progress": False}
    result = run_recbole_genrec("TIGER", "toy", config_dict=settings)
    loaded = load_data_and_model(result["checkpoint"])[1]
    assert loaded.tokenizer.name == "by-length" and len(loaded.recommend(["i3"], k=3)) == 3

    unnamed = outside_classes.OutsideClasses("tokenizer", registry.ENTRY_POINTS, ItemTokenizer)
    registry._outside = unnamed
    with pytest.raises(ArtefactError, match="name it yourself first"):
        load_data_and_model(result["checkpoint"])
    with pytest.raises(ArtefactError, match="runs the code of that module"):
        check_stored_name(module)
    tokenizer_class(module)
    assert load_data_and_model(result["checkpoint"])[1].tokenizer.name == "by-length"
