"""The second day: a checkpoint serves data that has changed since it was trained."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy import TINY_OF, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import (
    evaluate,
    load_data_and_model,
    load_model,
    recommend,
)
from recbole_genrec.serving.lists import recommend_to_file

GONE = "i7"
TEXTS = {"i40": "soft soap no 40, brand: brand4", "i41": "dry brush no 41, brand: brand4"}
HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def second_day(folder: Path, old: Path, bought: tuple[str, ...] = ()) -> Path:
    """The data of the next day.

    The item GONE is gone, i40 and i41 are new, u60 and u61 are new users (u61 with a single
    choice), and everything stands in another order. ``bought`` are items that u1 chose.
    """
    target = folder / "toy"
    target.mkdir(parents=True)
    _, *rows = (old / "toy" / "toy.inter").read_text().splitlines()
    rows = [row for row in rows if row.split("\t")[1] != GONE]
    rows += [f"u60\ti{item}\t{item}" for item in (3, 4, 40)]
    rows += ["u61\ti40\t1", "u2\ti41\t98"]
    rows += [f"u1\t{item}\t{99 + place}" for place, item in enumerate(bought)]
    order = np.random.default_rng(3).permutation(len(rows))
    shuffled = [rows[place] for place in order]
    (target / "toy.inter").write_text("\n".join([HEADER, *shuffled]) + "\n")

    header, *items = (old / "toy" / "toy.item").read_text().splitlines()
    items = [row for row in items if not row.startswith(f"{GONE}\t")]
    items += [f"{item}\t{text.replace(', brand: ', chr(9))}" for item, text in TEXTS.items()]
    (target / "toy.item").write_text("\n".join([header, *items[::-1]]) + "\n")
    return folder


def settings(folder: Path, model: str) -> dict:
    return {
        **TINY_OF[model],
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "cache_dir": str(folder / "cache"),
        "epochs": 1,
        "beam_width": 41,
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of the first day, and its results by model."""
    folder = write_dataset(tmp_path_factory.mktemp("first"))
    results = {
        model: run_recbole_genrec(model, "toy", config_dict=settings(folder, model))
        for model in ("TIGER", "TimelineRec", "SETRec")
    }
    return folder, results


@pytest.fixture
def later(first, tmp_path):
    return second_day(tmp_path / "later", first[0])


# cases 47 and 52
@pytest.mark.parametrize("model", ["TIGER", "TimelineRec", "SETRec"])
def test_the_lists_of_all_users_without_training(first, later, tmp_path, model):
    checkpoint = first[1][model]["checkpoint"]
    output = tmp_path / "lists.tsv"
    n_users = recommend_to_file(checkpoint, output, k=42, data_path=str(later)).listed
    lists = pd.read_csv(output, sep="\t")
    rows = [row.split("\t") for row in (later / "toy" / "toy.inter").read_text().splitlines()[1:]]
    assert n_users == lists.user_id.nunique() == len({row[0] for row in rows})
    # no user lacks an item: those of the first day, the one that is gone and the two new ones
    everything = {f"i{number}" for number in range(42)}
    for _, items in lists.groupby("user_id").item_id:
        assert set(items) <= everything
    assert set(lists.item_id) == everything
    assert lists.groupby("user_id").score.apply(lambda s: s.is_monotonic_decreasing).all()


def test_new_items_of_the_data_are_those_of_add_items(first, later):
    checkpoint = first[1]["TIGER"]["checkpoint"]
    before = load_model(checkpoint).model
    after = load_model(checkpoint, data_path=str(later)).model
    n_known = before.n_items
    assert after.item_tokens[:n_known] == before.item_tokens
    assert (after.codes[:n_known] == before.codes).all()
    assert len({tuple(row) for row in after.codes[1:].tolist()}) == 42  # a leaf for each item

    new = after.item_tokens[n_known:]
    assert sorted(new) == ["i40", "i41"]
    before.add_items([f"title: {TEXTS[item]}" for item in new], new)
    scores = [
        {row["item"]: row["score"] for row in model.recommend(["i3", "i9"], k=42)}
        for model in (before, after)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5) and len(scores[0]) == 42


@pytest.mark.parametrize("model", ["TIGER", "TimelineRec", "SETRec"])
def test_a_new_item_without_a_text_stays_out(first, later, caplog, model):
    checkpoint = first[1][model]["checkpoint"]
    file = later / "toy" / "toy.item"
    rows = file.read_text().splitlines()
    file.write_text("\n".join("i41\t\t" if row.startswith("i41\t") else row for row in rows) + "\n")
    served = load_model(checkpoint, data_path=str(later)).model
    assert served.item_tokens[-1] == "i40" and "i41" not in served.item_tokens
    assert "1 new items of the data stay out of the lists, for example 'i41'" in caplog.text
    assert "they have no text in the .item file" in caplog.text
    with pytest.raises(ArtefactError, match="The data has 1 items .*The log says what they lack"):
        evaluate(checkpoint, data_path=str(later), show_progress=False)

    file.unlink()
    assert load_model(checkpoint, data_path=str(later)).model.n_items == served.n_items - 1
    assert "2 new items of the data stay out" in caplog.text


def test_the_title_of_a_new_item_is_its_first_field(first, later, tmp_path):
    model = load_model(first[1]["TIGER"]["checkpoint"], data_path=str(later)).model
    model.add_items(["a text without fields"], ["plain"])
    model.save(tmp_path / "added.pth")
    again = load_model(str(tmp_path / "added.pth"), with_data=False).model
    titles = {"i40": "soft soap no 40", "plain": "a text without fields"}
    for item, title in titles.items():
        for served in (model, again):
            assert served.list_titles()[served.item_ids([item])[0]] == title


def test_the_checkpoint_alone_serves(first, tmp_path):
    checkpoint = first[1]["TimelineRec"]["checkpoint"]
    here = recommend(checkpoint, history=["i3", "i9"])
    alone = recommend(checkpoint, history=["i3", "i9"], data_path=str(tmp_path / "nowhere"))
    assert alone == here and alone[0]["text"].startswith("title: ")
    with pytest.raises(ConfigError, match="what user 'u1' has chosen is unknown. Use --history"):
        recommend(checkpoint, user="u1", data_path=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="There is no user 'nobody' in toy"):
        recommend(checkpoint, user="nobody")


# case 47
def test_an_added_item_that_is_bought_later_is_the_same_item(first, tmp_path):
    model = load_data_and_model(first[1]["TIGER"]["checkpoint"]).model
    model.add_items(["soft soap no 40", "cold mirror"], ["i40", "early"])
    model.save(tmp_path / "added.pth")
    later = second_day(tmp_path / "later", first[0], bought=("early",))

    again = load_data_and_model(str(tmp_path / "added.pth"), data_path=str(later)).model
    assert again.item_tokens.count("i40") == again.item_tokens.count("early") == 1
    for item in ("i40", "early"):
        old, new = model.item_ids([item])[0], again.item_ids([item])[0]
        assert model.codes[old].tolist() == again.codes[new].tolist()
    assert again.content.text[again.item_ids(["early"])[0]] == "cold mirror"
    tested = evaluate(str(tmp_path / "added.pth"), data_path=str(later), show_progress=False)
    assert all(0 <= value <= 1 for value in tested["test_result"].values())


def test_metrics_on_the_next_day_are_those_of_the_lists(first, later):
    checkpoint = first[1]["TIGER"]["checkpoint"]
    changes = {"data_path": str(later), "topk": [5], "metrics": ["Recall"]}
    tested = evaluate(checkpoint, show_progress=False, **changes)["test_result"]["recall@5"]
    trained = load_data_and_model(checkpoint, **changes)
    hits = []
    for user, items in load_model(checkpoint, **changes).histories.items():
        if len(items) >= 4 or user == "u60":
            best = trained.model.recommend(items[:-1], k=5)
            hits.append(items[-1] in [row["item"] for row in best])
    assert tested == pytest.approx(np.mean(hits), abs=1e-6)


# case 40
def test_ids_and_texts_of_numpy_and_pandas(first, tmp_path):
    model = load_model(first[1]["TIGER"]["checkpoint"]).model
    model.add_items(["fresh thing"], np.array(["n1"]))
    model.add_items(np.array(["numbered thing", "other thing"]), np.array([777, 778]))
    model.add_items(pd.Series(["a thing of a table"]), pd.Series([779]))
    model.save(tmp_path / "more.pth")
    again = load_model(str(tmp_path / "more.pth")).model
    for item in ("n1", "777", 777, np.int64(778), "779"):
        assert again.recommend([item], candidates=[item])[0]["item"] == str(item)
    assert all(type(item) is str for item in again.item_tokens + again.content.text)
    with pytest.raises(ConfigError, match="ids are texts or whole numbers. Convert them"):
        model.add_items(["a"], [7.5])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", "a missing value or for padding"),
        ("", "a missing value or for padding"),
        ("  ", "a missing value or for padding"),
        ("None", "a missing value or for padding"),
        ("[PAD]", "a missing value or for padding"),
        ("a\tb", "a tab or a line end"),
        ("a\nb", "a tab or a line end"),
        ("a\rb", "a tab or a line end"),
        ("\ud800", "half a character"),
        ("i1 ", "differs from 'i1', an item, in spaces alone"),
        (float("nan"), "is no id"),
        (b"i90", "is no id"),
    ],
)
def test_ids_of_new_items_that_no_file_could_hold(first, name, words):
    """case 40 and its kind: such an id could be saved and never be read again."""
    model = load_model(first[1]["TIGER"]["checkpoint"]).model
    with pytest.raises(ConfigError, match=words):
        model.add_items(["a thing"], [name])
    assert name not in model.item_tokens[1:]


def test_a_text_of_a_new_item_that_no_file_could_hold(first):
    model = load_model(first[1]["TIGER"]["checkpoint"]).model
    with pytest.raises(ConfigError, match="The text of the new item 'b' holds half a character"):
        model.add_items(["a thing", "\ud800"], ["a", "b"])
    assert not {"a", "b"}.intersection(model.item_tokens)


# case 49
def test_rows_that_nobody_bought(first, tmp_path, caplog):
    folder = tmp_path / "cold"
    shutil.copytree(first[0] / "toy", folder / "toy")
    with (folder / "toy" / "toy.item").open("a") as file:
        file.write("cold1\tsoft soap no 90\tbrand9\ncold2\tdry oil no 91\tbrand9\n")
    with caplog.at_level(logging.INFO):
        without = run_recbole_genrec("TIGER", "toy", config_dict=settings(folder, "TIGER"))
    assert "2 items of the .item file occur in no interaction" in caplog.text
    model = load_model(without["checkpoint"]).model
    with pytest.raises(ConfigError, match="'cold1'.*stands in the .item file but occurs in no"):
        model.recommend(["i1"], candidates=["cold1"])

    cold = {**settings(folder, "TIGER"), "catalogue": "item_file"}
    served = load_model(run_recbole_genrec("TIGER", "toy", config_dict=cold)["checkpoint"]).model
    assert served.n_items == model.n_items + 2 and served.item_tokens[:41] == model.item_tokens
    assert served.recommend(["i1"], candidates=["cold1"])[0]["item"] == "cold1"
    assert "cold2" in [row["item"] for row in served.recommend(["i1"], k=42)]


# case 52
def test_the_command_for_many_users(first, later, tmp_path, capsys):
    checkpoint = first[1]["TimelineRec"]["checkpoint"]
    command = ["recommend", f"--checkpoint={checkpoint}", f"--data_path={later}", "--top=3"]
    output = tmp_path / "two.csv"
    assert main([*command, "--user=u1,u61", f"--output={output}"]) == 0
    lists = pd.read_csv(output)
    assert list(lists.user_id) == ["u1"] * 3 + ["u61"] * 3 and list(lists["rank"]) == [1, 2, 3] * 2
    assert "Lists of 2 users" in capsys.readouterr().out
    assert main([*command, "--all_users"]) == 2
    assert "add --output" in capsys.readouterr().err
