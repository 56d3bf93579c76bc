"""The lists of many users: those of ``recommend``, in every format, whatever interrupts them."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import torch
from processes import together
from toy import SMALL, TINY_OF, event_histories, write_dataset

from recbole_genrec.data.histories.choices import histories
from recbole_genrec.data.histories.history_digests import changed_users, digests_of
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model, load_recommender, recommend
from recbole_genrec.model.lists.answers import lists_of_scores
from recbole_genrec.serving import job_key, shards
from recbole_genrec.serving import lists as lists_room
from recbole_genrec.serving.list_files import join_parts, write_part
from recbole_genrec.serving.lists import recommend_to_file

MODELS = ("TIGER", "TimelineRec", "STORE", "TokenRec", "SETRec", "SASRec", "Pop", "BPR")
CODED = ("TIGER", "TimelineRec", "STORE")


def settings(folder: Path, model: str) -> dict:
    return {
        **TINY_OF.get(model, SMALL),
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "cache_dir": str(folder / "cache"),
        "epochs": 1,
        **({"beam_width": 20} if model in TINY_OF else {}),
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the data, and the checkpoints by model."""
    folder = write_dataset(tmp_path_factory.mktemp("lists"))
    checkpoints = {}
    for model in MODELS:
        result = run_recbole_genrec(model, "toy", config_dict=settings(folder, model))
        checkpoints[model] = result["checkpoint"]
    return folder, checkpoints


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_the_lists_of_all_are_those_of_each(trained, model, exclude_seen):
    served = load_recommender(trained[1][model])
    table = served.model.recommend_all(k=7, exclude_seen=exclude_seen)
    assert list(table.user_id.unique()) == list(served.histories)
    for user, rows in table.groupby("user_id"):
        alone = served.model.recommend(
            served.histories[user], k=7, user=user, exclude_seen=exclude_seen
        )
        assert [row["item"] for row in alone] == list(rows.item_id)
        assert list(rows["rank"]) == list(range(1, len(rows) + 1))
        assert np.allclose([row["score"] for row in alone], rows.score, atol=1e-4)
        if exclude_seen:
            assert not set(rows.item_id) & set(served.histories[user])
        if model in CODED:
            assert [row["certified"] for row in alone] == list(rows.certified)
    assert table.title.str.contains(" no ").all()
    assert ("codes" in table) == (model in CODED)


@pytest.mark.parametrize("model", ["TIGER", "SASRec"])
def test_candidates_and_people_from_elsewhere(trained, model):
    served = load_recommender(trained[1][model])
    people = {"me": ["i3", "i9", "gone"], "you": ["i5"], "nobody": ["gone"]}
    table = served.model.recommend_all(people, 3, True, ["i1", "i2", "i3"])
    assert list(table.user_id.unique()) == ["me", "you"]
    assert set(table[table.user_id == "me"].item_id) == {"i1", "i2"}
    with pytest.raises(ConfigError, match="There is no user 'x' in the data"):
        served.model.recommend_all(["u1", "x"])
    assert load_data_and_model(trained[1][model]) is not None


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("model", ["TIGER", "SASRec"])
def test_without_a_word_lists_follow_exclude_history_everywhere(trained, tmp_path, model, masked):
    checkpoint = trained[1][model]
    served = load_recommender(checkpoint, exclude_history=masked)
    alone = served.model.recommend(served.histories["u3"], k=40, user="u3")
    items = [row["item"] for row in alone]
    assert set(items).isdisjoint(served.histories["u3"]) == masked
    assert served.model.recommend_all(["u3"], k=40).item_id.tolist() == items
    output = tmp_path / "recs.csv"
    recommend_to_file(checkpoint, output, ["u3"], k=40, exclude_history=masked)
    assert pd.read_csv(output).item_id.tolist() == items


def test_users_whose_ids_are_numbers(tmp_path):
    folder = write_dataset(tmp_path)
    inter = folder / "toy" / "toy.inter"
    header, *rows = inter.read_text().splitlines()
    inter.write_text("\n".join([header, *[row.removeprefix("u") for row in rows]]) + "\n")
    checkpoint = run_recbole_genrec("Pop", "toy", config_dict=settings(folder, "Pop"))["checkpoint"]
    output = tmp_path / "recs.csv"
    recommend_to_file(checkpoint, output, users=[np.int64(3), 4, "5"], k=2)
    wanted = load_recommender(checkpoint).model.recommend_all([3, 4, 5], k=2)
    assert pd.read_csv(output, dtype=str).user_id.tolist() == wanted.user_id.tolist()
    with pytest.raises(ConfigError, match="users must be a list of user ids, got 3"):
        recommend_to_file(checkpoint, output, users=3)
    with pytest.raises(ConfigError, match="3.5 is no id"):
        recommend_to_file(checkpoint, output, users=[3.5])


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_formats(trained, tmp_path, ending):
    checkpoint = trained[1]["TimelineRec"]
    output = tmp_path / f"recs.{ending}"
    written = recommend_to_file(checkpoint, output, k=5, exclude_seen=True)
    assert written.file == output and written.listed == written.users == 60
    read = {
        "parquet": pd.read_parquet,
        "csv": pd.read_csv,
        "tsv": lambda file: pd.read_csv(file, sep="\t"),
        "jsonl": lambda file: pd.read_json(file, lines=True),
    }[ending](output)
    wanted = load_recommender(checkpoint).model.recommend_all(k=5, exclude_seen=True)
    pd.testing.assert_frame_equal(read, wanted, check_dtype=False, atol=1e-5)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {output.name, f"{output.name}.histories.json"}


def test_json_lines_keep_all_digits(tmp_path):
    rows = pd.DataFrame({"item_id": ["a/b", "é"], "score": [1.23e-12, -2.604275703430176]})
    write_part(tmp_path / "part.parquet", [rows])
    join_parts([tmp_path / "part.parquet"], tmp_path / "lists.jsonl")
    first, second = (tmp_path / "lists.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == '{"item_id": "a/b", "score": 1.23e-12}'
    assert second == '{"item_id": "é", "score": -2.604275703430176}'


def test_killed_and_resumed_gives_the_same_file(trained, tmp_path, monkeypatch):
    checkpoint = trained[1]["TimelineRec"]
    monkeypatch.setattr(lists_room, "PART", 16)
    whole = tmp_path / "whole.parquet"
    recommend_to_file(checkpoint, whole, k=5)

    output = tmp_path / "recs.parquet"
    write = lists_room.write_part
    calls = []

    def dies_at_the_third(path, tables):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(path, tables)

    monkeypatch.setattr(lists_room, "write_part", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_file(checkpoint, output, k=5)
    assert not output.exists()
    monkeypatch.setattr(lists_room, "write_part", write)
    written = recommend_to_file(checkpoint, output, k=5)
    assert written.resumed == 32 and written.listed == 60
    assert output.read_bytes() == whole.read_bytes()


class StoppedError(Exception):
    """Ends a job of a test, as a kill does."""


def during_part(monkeypatch, number, act):
    """Call ``act()`` before the part of this number is written."""
    write = lists_room.write_part
    calls = []

    def watched(path, tables):
        calls.append(path)
        if len(calls) == number:
            act()
        write(path, tables)

    monkeypatch.setattr(lists_room, "PART", 16)
    monkeypatch.setattr(lists_room, "write_part", watched)


def stop():
    raise StoppedError


def test_jobs_for_one_output_do_not_share_parts(trained, tmp_path, monkeypatch, caplog):
    checkpoint = trained[1]["TimelineRec"]
    output = tmp_path / "recs.csv"

    def other_lists():
        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            during_part(patch, 3, stop)
            recommend_to_file(checkpoint, output, k=5)

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        during_part(patch, 2, other_lists)
        written = recommend_to_file(checkpoint, output, k=3)
    assert written.resumed == 0
    assert (pd.read_csv(output).groupby("user_id").size() == 3).all()

    # the parts of the other lists are named, kept, and found again
    (left,) = tmp_path.glob("*.parts")
    assert f"{left} holds parts of other lists" in caplog.text
    monkeypatch.setattr(lists_room, "PART", 16)
    assert recommend_to_file(checkpoint, output, k=5).resumed == 32
    assert (pd.read_csv(output).groupby("user_id").size() == 5).all()
    assert not left.exists()


def test_parts_of_another_size_are_not_taken_over(trained, tmp_path, monkeypatch):
    checkpoint = trained[1]["Pop"]
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        during_part(patch, 2, stop)
        recommend_to_file(checkpoint, tmp_path / "recs.csv", k=3)
    assert recommend_to_file(checkpoint, tmp_path / "recs.csv", k=3).resumed == 0
    assert pd.read_csv(tmp_path / "recs.csv").user_id.nunique() == 60


def copied(folder: Path, target: Path) -> Path:
    """The dataset once more, with an item of a later day."""
    (target / "toy").mkdir(parents=True)
    for ending, row in {"inter": "new\tnova\t1\n", "item": "nova\tdark soap nova\tacme\n"}.items():
        text = (folder / "toy" / f"toy.{ending}").read_text()
        (target / "toy" / f"toy.{ending}").write_text(text + row)
    return target


@pytest.mark.parametrize("model", ["TIGER", "SETRec", "SASRec"])
def test_parts_of_other_items_are_not_taken_over(trained, tmp_path, monkeypatch, model):
    checkpoint = trained[1][model]
    later = str(copied(trained[0], tmp_path / "later"))
    output, users = tmp_path / "recs.csv", [f"u{number}" for number in range(40)]
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        during_part(patch, 3, stop)
        recommend_to_file(checkpoint, output, users, k=41, data_path=later)
    items = tmp_path / "later" / "toy" / "toy.item"
    items.write_text(items.read_text().replace("soap", "mirror"))
    monkeypatch.setattr(lists_room, "PART", 16)
    assert recommend_to_file(checkpoint, output, users, k=41, data_path=later).resumed == 0
    wanted = load_recommender(checkpoint, data_path=later).model.recommend_all(users, k=41)
    pd.testing.assert_frame_equal(pd.read_csv(output), wanted, check_dtype=False, atol=1e-5)


def test_parts_of_other_choices_are_not_taken_over(trained, tmp_path, monkeypatch):
    """TokenRec places new items by those who chose them, whoever they are."""
    checkpoint = trained[1]["TokenRec"]
    later = str(copied(trained[0], tmp_path / "later"))
    output, users = tmp_path / "recs.csv", [f"u{number}" for number in range(40)]
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        during_part(patch, 3, stop)
        recommend_to_file(checkpoint, output, users, k=41, data_path=later)
    with (tmp_path / "later" / "toy" / "toy.inter").open("a") as file:
        file.write("u55\tnova\t99\n")
    monkeypatch.setattr(lists_room, "PART", 16)
    assert recommend_to_file(checkpoint, output, users, k=41, data_path=later).resumed == 0


@pytest.mark.parametrize("model", ["TIGER", "SASRec"])
def test_shards_of_machines_with_other_folders_join(trained, tmp_path, model):
    checkpoint, output = trained[1][model], tmp_path / "recs.csv"
    folders = [str(copied(trained[0], tmp_path / name)) for name in ("here", "there")]
    recommend_to_file(checkpoint, output, k=3, shard="1/2", data_path=folders[0])
    written = recommend_to_file(checkpoint, output, k=3, shard="2/2", data_path=folders[1])
    assert written.file == output


def test_shards_of_other_lists_are_named(trained, tmp_path, caplog):
    checkpoint, output = trained[1]["Pop"], tmp_path / "recs.csv"
    other = recommend_to_file(checkpoint, output, k=3, shard="2/2").shard_file
    caplog.clear()
    written = recommend_to_file(checkpoint, output, k=4, shard="1/2")
    assert f"{other} holds other lists" in caplog.text and "for this shard too" in caplog.text
    assert written.file is None and "the other shards of these lists are not" in written.sentence()


def test_settings_count_by_what_their_files_hold(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "v.npy").write_bytes(b"vectors")
    here, there = tmp_path / "here", tmp_path / "there"
    for name in ("", "v.npy"):
        assert job_key.content_of(str(here / name)) == job_key.content_of(str(there / name))
    (there / "v.npy").write_bytes(b"others")
    for name in ("", "v.npy"):
        assert job_key.content_of(str(here / name)) != job_key.content_of(str(there / name))
    assert job_key.content_of("exact") == "exact" and job_key.content_of(["v"]) == ["v"]


@pytest.mark.parametrize("shard", [None, "1/2"])
def test_the_same_job_twice_at_once_is_refused(trained, tmp_path, monkeypatch, shard):
    checkpoint = trained[1]["Pop"]
    output = tmp_path / "recs.csv"

    def twice():
        with pytest.raises(ArtefactError, match=r"makes the same lists for .*recs\.csv"):
            recommend_to_file(checkpoint, output, k=3, shard=shard)
        recommend_to_file(checkpoint, output, k=3, shard="2/2")  # other users

    with monkeypatch.context() as patch:
        during_part(patch, 2, twice)
        written = recommend_to_file(checkpoint, output, k=3, shard=shard)
    assert written.listed == written.users
    if shard is None:
        (tmp_path / "recs.shard-2-of-2.csv").unlink()
        (tmp_path / "recs.shard-2-of-2.csv.json").unlink()
    table = pd.read_csv(output)
    assert table.user_id.nunique() == 60 and len(table) == 180
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"recs.csv", "recs.csv.histories.json"}


def test_without_locks_the_lists_are_made(trained, tmp_path, monkeypatch):
    def unsupported(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    recommend_to_file(trained[1]["Pop"], tmp_path / "recs.csv", k=3)
    assert pd.read_csv(tmp_path / "recs.csv").user_id.nunique() == 60


def test_a_part_that_is_gone_is_no_shorter_file(trained, tmp_path, monkeypatch):
    output = tmp_path / "recs.csv"

    def lose_the_first():
        next(tmp_path.glob("*.parts/0000-000000000000.parquet")).unlink()

    during_part(monkeypatch, 3, lose_the_first)
    with pytest.raises(ArtefactError, match="cannot be read"):
        recommend_to_file(trained[1]["Pop"], output, k=3)
    assert not output.exists()
    assert recommend_to_file(trained[1]["Pop"], output, k=3).resumed == 60 - 16
    assert pd.read_csv(output).user_id.nunique() == 60


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_shards_make_one_file(trained, tmp_path, ending):
    checkpoint = trained[1]["TIGER"]
    whole = tmp_path / f"whole.{ending}"
    recommend_to_file(checkpoint, whole, k=4)
    output = tmp_path / f"recs.{ending}"
    stale = recommend_to_file(checkpoint, output, k=3, shard="2/3")
    assert stale.shard_file.is_file()
    for number in (3, 1):
        written = recommend_to_file(checkpoint, output, k=4, shard=f"{number}/3")
        assert written.file is None and written.users == 20
        assert written.shard_file.name == f"recs.shard-{number}-of-3.{ending}"
    assert recommend_to_file(checkpoint, output, k=4, shard="2/3").file == output
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    pd.testing.assert_frame_equal(read(output), read(whole), atol=1e-5)
    assert not list(tmp_path.glob("*shard*"))
    for wrong in ("0/3", "4/3", "x"):
        with pytest.raises(ConfigError, match="must be written like 3/16"):
            recommend_to_file(checkpoint, output, shard=wrong)


def test_a_killed_shard_of_other_lists_is_not_joined(trained, tmp_path, monkeypatch):
    checkpoint = trained[1]["Pop"]
    output = tmp_path / "recs.csv"
    recommend_to_file(checkpoint, output, k=4, shard="2/2")
    join = shards.join_parts

    def killed_before_the_mark(parts, file):
        join(parts, file)
        raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(shards, "join_parts", killed_before_the_mark)
        recommend_to_file(checkpoint, output, k=3, shard="2/2")
    assert recommend_to_file(checkpoint, output, k=4, shard="1/2").file is None
    assert recommend_to_file(checkpoint, output, k=4, shard="2/2").file == output
    assert (pd.read_csv(output).groupby("user_id").size() == 4).all()


@pytest.mark.parametrize("content", ["{}", '{"key": 3}', "{"])
def test_a_damaged_mark_of_a_shard_is_refused(trained, tmp_path, content):
    output = tmp_path / "recs.csv"
    recommend_to_file(trained[1]["Pop"], output, k=4, shard="1/2")
    (tmp_path / "recs.shard-1-of-2.csv.json").write_text(content)
    with pytest.raises(ArtefactError, match="Delete it, and make the lists of .*shard-1-of-2.csv"):
        recommend_to_file(trained[1]["Pop"], output, k=4, shard="2/2")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "it has no 'histories'"),
        ('{"histories": null}', "'histories' is not an object"),
        ('{"histories": [1]}', "'histories' is not an object"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_damaged_record_changes_no_file(trained, tmp_path, content, reason):
    output = tmp_path / "recs.csv"
    recommend_to_file(trained[1]["TIGER"], output, k=3)
    before = output.read_bytes()
    (tmp_path / "recs.csv.histories.json").write_text(content)
    with pytest.raises(ArtefactError, match=rf"histories.json is damaged \({reason}\)"):
        recommend_to_file(trained[1]["TIGER"], output, "changed", k=3)
    assert output.read_bytes() == before
    recommend_to_file(trained[1]["TIGER"], output, "all", k=3)  # as the error says
    assert recommend_to_file(trained[1]["TIGER"], output, "changed", k=3).users == 0


def test_changed_users(trained, tmp_path):
    folder, checkpoints = trained
    later = tmp_path / "later"
    (later / "toy").mkdir(parents=True)
    for ending in ("inter", "item"):
        text = (folder / "toy" / f"toy.{ending}").read_text()
        (later / "toy" / f"toy.{ending}").write_text(text)
    output = tmp_path / "recs.csv"
    for model in ("TIGER", "SASRec"):
        checkpoint = checkpoints[model]
        # nobody has changed since the training
        none = recommend_to_file(checkpoint, output, "changed", k=3)
        assert none.users == 0 and output.read_text().startswith("user_id,rank,item_id,title")
        with (later / "toy" / "toy.inter").open("a") as file:
            file.write("u7\ti3\t99\nnew\ti4\t1\nnew\ti5\t2\n")
        # ... and two since the output was written
        recommend_to_file(checkpoint, output, "changed", k=3, data_path=str(later))
        assert set(pd.read_csv(output).user_id) == {"u7", "new"}
        again = recommend_to_file(checkpoint, output, "changed", k=3, data_path=str(later))
        assert again.users == 0
        (tmp_path / "recs.csv.histories.json").unlink()
        recommend_to_file(checkpoint, output, "changed", k=3, data_path=str(later))
        assert set(pd.read_csv(output).user_id) == {"u7", "new"}
        text = (folder / "toy" / "toy.inter").read_text()
        (later / "toy" / "toy.inter").write_text(text)
        (tmp_path / "recs.csv.histories.json").unlink()


def test_users_of_a_file(trained, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("u5\nu3\n\nu5\n")
    output = tmp_path / "recs.tsv"
    recommend_to_file(trained[1]["Pop"], output, str(users), k=2)
    assert list(pd.read_csv(output, sep="\t").user_id) == ["u5", "u5", "u3", "u3"]
    users.write_text("u5\nstranger\n")
    with pytest.raises(ConfigError, match="There is no user 'stranger' in toy"):
        recommend_to_file(trained[1]["Pop"], output, str(users))
    users.write_text(" \n")
    with pytest.raises(ConfigError, match="names no user. Give one raw user id a line"):
        recommend_to_file(trained[1]["Pop"], output, str(users))
    with pytest.raises(ConfigError, match="--users=ALL is neither all nor changed.*user id a line"):
        recommend_to_file(trained[1]["Pop"], output, "ALL")
    with pytest.raises(ConfigError, match="cannot be read.*one raw user id a line"):
        recommend_to_file(trained[1]["Pop"], output, str(tmp_path))
    with pytest.raises(ConfigError, match="must end in .parquet"):
        recommend_to_file(trained[1]["Pop"], tmp_path / "recs.xlsx")


def test_items_of_files_are_listed_or_left_out(trained, tmp_path, caplog):
    stock, sold_out = tmp_path / "stock.txt", tmp_path / "sold_out.txt"
    stock.write_text("i1\ni2\ni3\ni4\nnever sold\n")
    sold_out.write_text("i3\ni5\nunheard of\n")
    files = {"candidate_file": str(stock), "excluded_file": str(sold_out)}
    output = tmp_path / "lists.csv"
    recommend_to_file(trained[1]["TIGER"], output, k=10, exclude_seen=False, **files)
    assert set(pd.read_csv(output)["item_id"]) == {"i1", "i2", "i4"}
    assert "1 of 5 items of" in caplog.text and "'never sold'" in caplog.text
    one = recommend(trained[1]["TIGER"], history=["i1"], excluded_file=str(sold_out), k=39)
    assert "i3" not in {row["item"] for row in one}
    stock.write_text("i1\nx1\nx2\n")
    with pytest.raises(ConfigError, match=r"There is no item 'x1' \(2 of 3 ids are unknown\)"):
        recommend_to_file(trained[1]["TIGER"], output, candidate_file=str(stock))
    sold_out.write_text("i3.0\n")
    with pytest.raises(ConfigError, match=r"There is no item 'i3.0' .* in .*sold_out.txt"):
        recommend_to_file(trained[1]["TIGER"], output, excluded_file=str(sold_out))
    sold_out.write_text("i1\n")
    stock.write_text("i1\n")
    with pytest.raises(ConfigError, match="leaves out every item"):
        recommend_to_file(trained[1]["TIGER"], output, **files)


def test_recbole_models_recommend_for_a_history(trained):
    assert len(recommend(trained[1]["SASRec"], history=["i3", "i4"], k=3)) == 3
    assert len(recommend(trained[1]["Pop"], history=["i3"], k=3)) == 3
    with pytest.raises(ConfigError, match="knows people by their user ids alone"):
        recommend(trained[1]["BPR"], history=["i3"])
    assert len(recommend(trained[1]["BPR"], user="u3", k=3)) == 3


def test_digests_tell_histories_apart(trained):
    some = {"a": ["x", "y"], "b": ["y", "x"], "c": ["x"], "d": [], "e": ["x", "y"]}
    now = digests_of(event_histories(some))
    assert now["a"] == now["e"] and len(set(now.values())) == 4
    assert digests_of(event_histories({"a": ["x", "y"]}))["a"] == now["a"]  # whoever else is there
    later = digests_of(event_histories({**some, "b": ["y"], "f": []}))
    assert changed_users(later, now) == ["b", "f"]
    served = load_recommender(trained[1]["TIGER"])
    dataset = create_dataset(served.config)
    assert digests_of(histories(dataset)) == digests_of(served.histories) == served.model.trained_on


def test_the_best_are_those_of_a_sort():
    torch.manual_seed(0)
    scores = torch.randint(0, 6, (40, 30)).float()
    scores[torch.rand(40, 30) < 0.3] = -torch.inf
    scores[3] = -torch.inf
    lists = lists_of_scores(scores, 12, None, None)
    for row in range(40):
        open_items = [item for item in range(1, 30) if scores[row, item] > -torch.inf]
        best = sorted(open_items, key=lambda item: (-scores[row, item].item(), item))[:12]
        assert [item for item, _ in lists[row]] == best


def two_processes(checkpoint: str, output: str) -> None:
    assert recommend_to_file(checkpoint, output, k=4).listed == 60


def test_processes_share_the_users(trained, tmp_path):
    checkpoint = trained[1]["TimelineRec"]
    whole, output = tmp_path / "whole.csv", tmp_path / "recs.csv"
    recommend_to_file(checkpoint, whole, k=4)
    together(two_processes, checkpoint, str(output))
    pd.testing.assert_frame_equal(pd.read_csv(output), pd.read_csv(whole), atol=1e-5)
    assert json.loads((tmp_path / "recs.csv.histories.json").read_text())["histories"]
