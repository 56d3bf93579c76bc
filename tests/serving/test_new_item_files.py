"""``add-items``: which items count as known, and which files it replaces."""

from __future__ import annotations

import shutil

import pytest
from toy import toy_model, write_dataset

from recbole_genrec.errors import ConfigError, HeldError
from recbole_genrec.experiments.loading import load_model
from recbole_genrec.serving.new_items import add_items_of
from recbole_genrec.training.held_runs import held_output


@pytest.fixture
def model(tmp_path):
    """A checkpoint of a model of texts, beside tables of new items of two days."""
    data = write_dataset(tmp_path / "data")
    built, _, _ = toy_model(data, "TIGER", cache_dir=str(tmp_path / "cache"))
    built.save(tmp_path / "model.pth")
    (tmp_path / "mon.csv").write_text("sku,title,brand\nm1,soft soap,brand1\nm2,dry oil,brand2\n")
    (tmp_path / "tue.csv").write_text("sku,title,brand\nt1,red comb,brand1\n")
    return tmp_path / "model.pth"


def tokens(file):
    return load_model(str(file), with_data=False).model.item_tokens[41:]


def test_items_that_the_data_brings_are_written_too(model, tmp_path):
    interactions = tmp_path / "data" / "toy" / "toy.inter"
    interactions.write_text(interactions.read_text() + "u1\tm1\t999\n")
    with (tmp_path / "data" / "toy" / "toy.item").open("a") as file:
        file.write("m1\tsoft soap\tbrand1\n")
    assert "m1" in load_model(str(model)).model.item_tokens
    added = add_items_of(str(model), tmp_path / "mon.csv")
    assert added.added == ["m1", "m2"] and added.known == 0
    assert tokens(added.output) == ["m1", "m2"]


def test_their_titles_are_the_first_field(model, tmp_path):
    added = add_items_of(str(model), tmp_path / "mon.csv")
    again = load_model(str(added.output), with_data=False).model
    assert again.list_titles()[-2:] == ["soft soap", "dry oil"]
    assert again.list_texts()[-1] == "title: dry oil, brand: brand2"


def test_items_of_yesterday_are_not_lost(model, tmp_path):
    grown = add_items_of(str(model), tmp_path / "mon.csv").output
    before = grown.read_bytes()
    with pytest.raises(ConfigError, match="holds 2 added items .*'m1'.*--checkpoint=.*--output"):
        add_items_of(str(model), tmp_path / "tue.csv")
    assert grown.read_bytes() == before

    # the two ways out, and the same job once more
    other = add_items_of(str(model), tmp_path / "tue.csv", tmp_path / "other.pth").output
    assert tokens(other) == ["t1"]
    assert add_items_of(str(model), tmp_path / "mon.csv").output == grown
    add_items_of(str(grown), tmp_path / "tue.csv", grown)
    assert tokens(grown) == ["m1", "m2", "t1"]


@pytest.mark.parametrize("what", ["the checkpoint", "a copy", "another file", "a folder"])
def test_what_add_items_did_not_make_is_not_replaced(model, tmp_path, what):
    target = model if what == "the checkpoint" else tmp_path / "target"
    if what == "a copy":
        shutil.copy(model, target)
    if what == "another file":
        target.write_text("notes")
    if what == "a folder":
        target.mkdir()
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="exists and is no file that add-items made of TIGER on"):
        add_items_of(str(model), tmp_path / "mon.csv", target)
    assert model.read_bytes() == before


def test_two_at_once_do_not_write_one_file(model, tmp_path):
    with (
        held_output(tmp_path / "model-items.pth", "output", print),
        pytest.raises(HeldError, match="going to write .*model-items.pth too.*--output"),
    ):
        add_items_of(str(model), tmp_path / "mon.csv")
