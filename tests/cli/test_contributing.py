"""The code of CONTRIBUTING.md runs as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from toy import SMALL, write_dataset

import recbole_genrec
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def modules(tmp_path, monkeypatch) -> Path:
    """The working folder, with the files of the page in it."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(model: str, folder: Path, dataset: str = "toy", **changes) -> dict:
    values = {**SMALL, "data_path": str(folder), **changes}
    return run_recbole_genrec(model, dataset, config_dict=values)


def test_the_method(modules):
    folder = write_dataset(modules / "data")
    result = run("nearest:Nearest", folder, item_text_fields=["title"], epochs=3)
    assert result["model"] == "Nearest" and result["config"]["width"] == 16
    assert result["epochs"][-1]["loss"][0] < result["epochs"][0]["loss"][0]
    model = load_data_and_model(result["checkpoint"], "nearest:Nearest").model
    assert len(model.recommend(["i3", "i4"], k=5)) == 5


def test_the_tokenizer(modules):
    folder = write_dataset(modules / "data")
    small = {"d_model": 16, "n_heads": 2, "beam_width": 20, "epochs": 1}
    result = run("TimelineRec", folder, tokenizer="by_words:ByWords", **small)
    model = load_data_and_model(result["checkpoint"]).model
    assert model.level_sizes[:3] == (16, 16, 16)
    (new,) = model.add_items(["red soap no 77"], ["n1"])
    assert model.item_tokens[new] == "n1"
    red = [row for row, text in enumerate(model.content.text) if text.startswith("red")]
    assert len(set(model.codes[red, 0].tolist())) == 1, "the first code is the first word's"


def test_the_dataset(modules):
    runpy.run_path(str(modules / "make_shop.py"))
    result = run("Pop", modules / "dataset", "shop")
    assert result["test_result"]["recall@10"] > 0


def test_every_room_is_named():
    package = Path(recbole_genrec.__file__).parent
    rooms = [path.name for path in package.iterdir() if (path / "__init__.py").exists()]
    table = TEXT.partition("## Rooms")[2].partition("##")[0]
    assert [room for room in rooms if f"`{room}/`" not in table] == []


def test_every_hook_that_is_named_exists():
    from recbole_genrec import GenerativeRecommender, VectorRecommender
    from recbole_genrec.tokenizer import ItemTokenizer

    table = TEXT.partition("## Hooks")[2].partition("\n## ")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    hooks = re.findall(r"`(\w+)\(", " ".join(first))
    assert len(hooks) > 20
    bases = (GenerativeRecommender, VectorRecommender, ItemTokenizer)
    declared = {name for base in bases for part in base.__mro__ for name in part.__dict__}
    for base in bases:
        for part in base.__mro__:
            declared.update(part.__dict__.get("__annotations__", ()))
    assert [hook for hook in hooks if hook not in declared] == []
