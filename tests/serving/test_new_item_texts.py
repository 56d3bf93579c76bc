"""``add-items`` renders the text of a new item as the run rendered those of its data."""

from __future__ import annotations

from toy import toy_model, write_dataset

from recbole_genrec.experiments.loading import load_model
from recbole_genrec.serving.new_items import add_items_of


def test_a_token_keeps_its_underscores(tmp_path):
    data = write_dataset(tmp_path / "data")
    file = data / "toy" / "toy.item"
    file.write_text(file.read_text().replace("brand0", "ac_me"))
    fields = ["title", "brand"]
    changes = {"item_text_fields": fields, "cache_dir": str(tmp_path / "cache")}
    model, _, _ = toy_model(data, "TIGER", **changes)
    model.save(tmp_path / "model.pth")

    title, brand = file.read_text().splitlines()[1].split("\t")[1:]
    (tmp_path / "new.csv").write_text(f"item_id,title,brand\nnew,{title},{brand}\n")
    added = add_items_of(str(tmp_path / "model.pth"), tmp_path / "new.csv")

    assert brand == "ac_me" and added.added == ["new"]
    grown = load_model(str(added.output)).model
    texts = grown.content.text
    first, new = grown.item_ids(["i0", "new"])
    assert texts[new] == texts[first]
