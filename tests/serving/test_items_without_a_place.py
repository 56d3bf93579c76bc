"""``add-items`` and ``evaluate`` where a method cannot place items by their texts alone."""

from __future__ import annotations

import pytest
from toy import TINY_OF, toy_model, write_dataset

from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.loading import load_data_and_model
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate
from recbole_genrec.serving.new_items import add_items_of


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("MetaID", {}, "MetaID with tokenizer: metapath.*users="),
        ("TokenRec", {}, "holds TokenRec,.*users="),
        ("TIGER", {"tokenizer": "cid"}, r"tokenizer: cid.*train again\.$"),
    ],
)
def test_the_method_is_refused_before_the_table_is_read(tmp_path, model, changes, words):
    data = write_dataset(tmp_path / "data")
    built, _, _ = toy_model(data, model, cache_dir=str(tmp_path / "cache"), **changes)
    built.save(tmp_path / "model.pth")
    with pytest.raises(ConfigError, match=words):
        add_items_of(str(tmp_path / "model.pth"), tmp_path / "missing.csv")


def grown(folder, buyers):
    """Data of a later day: ``buyers`` chose the new item i90."""
    file = write_dataset(folder) / "toy" / "toy.inter"
    rows = [f"{user}\t{item}\t{900 + time}" for user in buyers for time, item in BOUGHT]
    file.write_text(file.read_text().rstrip("\n") + "\n" + "\n".join(rows) + "\n")
    return str(folder)


BOUGHT = [(1, "i3"), (2, "i4"), (3, "i9"), (4, "i90")]


def trained(folder, model, **changes):
    settings = {
        **TINY_OF[model],
        **changes,
        "data_path": str(write_dataset(folder / "data")),
        "checkpoint_dir": str(folder / "saved"),
        "cache_dir": str(folder / "cache"),
        "epochs": 1,
    }
    return run_recbole_genrec(model, "toy", config_dict=settings)["checkpoint"]


def test_a_new_buyer_does_not_keep_an_item_out(tmp_path):
    checkpoint = trained(tmp_path, "MetaID")
    both = grown(tmp_path / "both", ["u2", "newbie"])
    with_both = load_data_and_model(checkpoint, data_path=both).model
    alone = grown(tmp_path / "one", ["u2"])
    with_one = load_data_and_model(checkpoint, data_path=alone).model
    codes = [model.codes[model.item_ids(["i90"])[0]].tolist() for model in (with_both, with_one)]
    assert codes[0] == codes[1]
    # nobody whom training knew: an item without a place among the others, as for recommend
    strangers = grown(tmp_path / "strangers", ["newbie"])
    model = load_data_and_model(checkpoint, data_path=strangers).model
    assert int(model.codes[model.item_ids(["i90"])[0], 0]) == model.tokenizer.n_clusters


def test_the_advice_for_grown_data_can_be_followed(tmp_path):
    checkpoint = trained(tmp_path, "TIGER", tokenizer="cid")
    later = grown(tmp_path / "later", ["u2"])
    with pytest.raises(ArtefactError, match="from the beginning, without init_from.*--data_path"):
        evaluate(checkpoint, data_path=later)
    evaluate(checkpoint, data_path=str(tmp_path / "data"))
