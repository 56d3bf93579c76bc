"""A checkpoint whose items share codes, served where its data is not."""

from __future__ import annotations

from toy import TINY_OF, write_dataset

from recbole_genrec.experiments.loading import load_data_and_model, load_model
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint

EQUAL_CODES = {"collision": ["none"], "codebook_sizes": [4, 4], "epochs": 1}


def ranked(model):
    return [entry["item"] for entry in model.recommend(["i3", "i4"], k=25)]


def test_items_with_the_same_codes_keep_their_order(tmp_path, caplog):
    folder = write_dataset(tmp_path / "data")
    values = {**TINY_OF["TimelineRec"], **EQUAL_CODES, "beam_width": 30, "eval_step": 0}
    values |= {"data_path": str(folder), "cache_dir": str(tmp_path / "cache")}
    values |= {"checkpoint_dir": str(tmp_path / "saved")}
    checkpoint = run_recbole_genrec("TimelineRec", "toy", config_dict=values)["checkpoint"]
    _, model, *_ = load_data_and_model(checkpoint)
    assert model.trie.leaf_width > 1
    order = ranked(model)

    nowhere = str(tmp_path / "nowhere")
    alone = load_model(checkpoint, data_path=nowhere).model
    assert ranked(alone) == order
    assert alone.popularity().tolist() == model.counted().tolist()
    alone.add_items([alone.content.text[5]], ["new"])
    assert alone.popularity().tolist() == [*model.counted().tolist(), 0]
    alone.save(tmp_path / "again.pth")
    again = load_model(str(tmp_path / "again.pth"), data_path=nowhere).model
    assert ranked(again) == ranked(alone)

    # a checkpoint of an earlier version
    state = load_checkpoint(checkpoint)
    state["other_parameter"] = dict(state["other_parameter"])
    del state["other_parameter"]["popularity"]
    save_checkpoint(tmp_path / "older.pth", state)
    _, with_data, *_ = load_data_and_model(str(tmp_path / "older.pth"))
    assert ranked(with_data) == order
    assert "does not say how many" not in caplog.text
    older = load_model(str(tmp_path / "older.pth"), data_path=nowhere).model
    assert sorted(ranked(older)[:10]) and "does not say how many" in caplog.text
    assert "popularity" not in older.other_parameter()
