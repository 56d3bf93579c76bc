"""The lists of many users: those of ``recommend``, in every format, whatever interrupts them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from processes import together
from toy import SMALL, TINY_OF, write_dataset

from recbole_genrec.data.history_digests import changed_users, digests_of, digests_of_dataset
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model, load_recommender, recommend
from recbole_genrec.model.answers import best_of
from recbole_genrec.serving import lists as lists_room
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
    table = served.model.recommend_all(people, k=3, candidates=["i1", "i2", "i3"])
    assert list(table.user_id.unique()) == ["me", "you"]
    assert set(table[table.user_id == "me"].item_id) == {"i1", "i2"}
    with pytest.raises(ConfigError, match="There is no user 'x' in the data"):
        served.model.recommend_all(["u1", "x"])
    assert load_data_and_model(trained[1][model]) is not None


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
    wanted = load_recommender(checkpoint).model.recommend_all(k=5)
    pd.testing.assert_frame_equal(read, wanted, check_dtype=False, atol=1e-5)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {output.name, f"{output.name}.histories.json"}


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
    # parts of other lists are not taken over
    assert recommend_to_file(checkpoint, output, k=6).resumed == 0


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
    with pytest.raises(ConfigError, match="must end in .parquet"):
        recommend_to_file(trained[1]["Pop"], tmp_path / "recs.xlsx")


def test_recbole_models_recommend_for_a_history(trained):
    assert len(recommend(trained[1]["SASRec"], history=["i3", "i4"], k=3)) == 3
    assert len(recommend(trained[1]["Pop"], history=["i3"], k=3)) == 3
    with pytest.raises(ConfigError, match="knows people by their user ids alone"):
        recommend(trained[1]["BPR"], history=["i3"])
    assert len(recommend(trained[1]["BPR"], user="u3", k=3)) == 3


def test_digests_tell_histories_apart(trained):
    some = {"a": ["x", "y"], "b": ["y", "x"], "c": ["x"], "d": [], "e": ["x", "y"]}
    now = digests_of(some)
    assert now["a"] == now["e"] and len(set(now.values())) == 4
    assert digests_of({"a": ["x", "y"]})["a"] == now["a"]  # whoever else is there
    assert changed_users(digests_of({**some, "b": ["y"], "f": []}), now) == ["b", "f"]
    served = load_recommender(trained[1]["TIGER"])
    dataset = create_dataset(served.config)
    assert digests_of_dataset(dataset) == digests_of(served.histories) == served.model.trained_on


def test_the_best_are_those_of_a_sort():
    torch.manual_seed(0)
    scores = torch.randint(0, 6, (40, 30)).float()
    scores[torch.rand(40, 30) < 0.3] = -torch.inf
    scores[3] = -torch.inf
    lists = best_of(scores, 12, None, None)
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
