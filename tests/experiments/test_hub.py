"""Exports travel: every method loads from a folder, or a hub id, without its dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from toy import SMALL, TINY_OF, toy_model, write_dataset

import recbole_genrec
from recbole_genrec.cli import main
from recbole_genrec.errors import ArtefactError
from recbole_genrec.experiments.loading import load_recommender
from recbole_genrec.experiments.opening import load
from recbole_genrec.experiments.run import run_recbole_genrec

HISTORY = ["i3", "i4", "i9"]


@pytest.mark.parametrize("model", sorted(TINY_OF))
def test_every_method_loads_from_its_folder_alone(tmp_path, model):
    data = write_dataset(tmp_path / "data")
    changes = {"cache_dir": str(tmp_path / "cache")}
    built, _, _ = toy_model(data, model, **changes)
    wanted = built.recommend(HISTORY, k=5)
    built.save_pretrained(tmp_path / "export")
    shutil.rmtree(data)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    again = load(str(tmp_path / "export"))
    assert [row["item"] for row in again.recommend(HISTORY, k=5)] == [r["item"] for r in wanted]
    assert again.recommend_all({"me": HISTORY}, k=5, exclude_seen=None).item_id.tolist() == [
        row["item"] for row in wanted
    ]
    names = {file.name for file in (tmp_path / "export").iterdir()}
    assert {"meta.json", "config.json"} <= names
    assert not [name for name in names if name.endswith((".pth", ".bin", ".pkl", ".pt"))]
    if hasattr(built, "codes"):
        codes = json.loads((tmp_path / "export" / "codes.json").read_text())
        assert codes == dict(zip(built.item_tokens[1:], built.codes[1:].tolist(), strict=True))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A checkpoint of a run, its result, and its export."""
    folder = tmp_path_factory.mktemp("exported")
    data = write_dataset(folder / "data")
    settings = {
        **TINY_OF["TIGER"],
        "data_path": str(data),
        "checkpoint_dir": str(folder / "saved"),
        "cache_dir": str(folder / "cache"),
        "epochs": 1,
    }
    result = run_recbole_genrec("TIGER", "toy", config_dict=settings)
    target = folder / "export"
    assert main(["export", f"--checkpoint={result['checkpoint']}", f"--to={target}"]) == 0
    return result, target


def test_the_model_card(exported):
    result, folder = exported
    card = (folder / "README.md").read_text()
    assert "# TIGER on toy" in card and "datasets:\n- toy" in card
    assert f"| ndcg@10 | {result['test_result']['ndcg@10']:.6f} |" in card
    assert "history masked: no" in card
    assert result["command"] in card
    assert json.loads((folder / "config.json").read_text())["model"] == "TIGER"


def test_a_hub_id(exported, monkeypatch, tmp_path, capsys):
    result, folder = exported
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        if name != "shop/tiger":
            raise FileNotFoundError("no such repository")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = recbole_genrec.load("shop/tiger", data_path=str(tmp_path))
    assert [row["item"] for row in model.recommend(HISTORY)] == [
        row["item"] for row in load(result["checkpoint"]).recommend(HISTORY)
    ]
    assert asked == [("shop/tiger", ["*.json", "*.safetensors", "*.md"])]
    assert main(["recommend", "--checkpoint=shop/tiger", "--history=i3,i4", "--top=3"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) >= 3
    with pytest.raises(ArtefactError, match="neither a file nor a folder here, and the hub does"):
        load("shop/other")
    with pytest.raises(ArtefactError, match="The checkpoint saved/x.pth does not exist"):
        load("saved/x.pth")


def test_recbole_models_are_not_exported(tmp_path, capsys):
    data = write_dataset(tmp_path / "data")
    settings = {**SMALL, "data_path": str(data), "checkpoint_dir": str(tmp_path / "saved")}
    result = run_recbole_genrec("Pop", "toy", config_dict={**settings, "epochs": 1})
    capsys.readouterr()
    assert main(["export", f"--checkpoint={result['checkpoint']}", "--to=out"]) == 2
    assert "holds RecBole's Pop; this works for the methods of this package" in (
        capsys.readouterr().err
    )
    assert not Path("out").exists()


def test_new_items_of_a_table(exported, tmp_path, capsys):
    result, _ = exported
    rows = ["sku;title;brand", "i90;soft soap no 90;brand2", 'i91;"dry; brush";brand3', "i3;x;y"]
    rows += ["i92;;", "i90;again;brand1", ";no id;brand1"]
    table = tmp_path / "new.csv"
    table.write_text("\n".join(rows) + "\n")
    output = tmp_path / "grown.pth"
    command = ["add-items", f"--checkpoint={result['checkpoint']}", f"--items={table}"]
    assert main([*command, f"--output={output}"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "6 rows read",
        "2 items added",
        "1 are in the model already",
        "1 have no text and stay out",
        "1 rows have no id",
        "1 rows repeat an item; the first counts",
    ):
        assert f" {line}" in shown

    grown = load_recommender(str(output)).model
    assert grown.content.text[grown.item_ids(["i91"])[0]] == "title: dry; brush, brand: brand3"
    reference = load(result["checkpoint"])
    texts = ["title: soft soap no 90, brand: brand2", "title: dry; brush, brand: brand3"]
    reference.add_items(texts, ["i90", "i91"])
    assert torch.equal(grown.codes, reference.codes)
    everything = {row["item"] for row in grown.recommend(HISTORY, k=42)}
    assert {"i90", "i91"} <= everything
    # in place of a name beside the checkpoint
    assert main(command) == 0
    assert (
        Path(result["checkpoint"])
        .with_name(f"{Path(result['checkpoint']).stem}-items.pth")
        .is_file()
    )


def test_what_a_table_of_new_items_lacks_is_said(exported, tmp_path, capsys):
    result, _ = exported
    table = tmp_path / "new.csv"
    table.write_text("sku,brand\ni90,brand2\ni91\n,brand1\n")
    command = ["add-items", f"--checkpoint={result['checkpoint']}", f"--items={table}"]
    command.append(f"--output={tmp_path / 'grown.pth'}")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "3 rows read" in shown and "1 items added" in shown
    assert "1 rows have no id" in shown and "1 rows cannot be read" in shown
    malformed = "1 rows: malformed row (it has 1 cells, the header has 2)"
    assert f"{malformed}; the first is new.csv, line 3" in shown
    assert "new.csv has no column title, so the texts of the new items lack it" in shown

    assert main([*command, "--item=skku"]) == 2
    assert "has no column 'skku', which --item names" in capsys.readouterr().err
    table = table.with_suffix(".jsonl")
    table.write_text('{"sku": "i90", "title": "a"}\n{"sku": ["i91", "i92"], "title": "b"}\n')
    assert main([*command[:2], f"--items={table}", command[3]]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "line 2: sku holds ['i91', 'i92'], a list, which is no id. Write one item a row" in said
