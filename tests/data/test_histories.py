"""What exclude_history leaves out of each row, against the interactions themselves."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.evaluated_histories import EXCLUDED, unreachable_targets
from recbole_genrec.data.histories.seen_items import SeenItems
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ConfigError

RATIO = {"RS": [0.6, 0.2, 0.2]}
SMALL = {"topk": [2], "valid_metric": "NDCG@2", "MAX_ITEM_LIST_LENGTH": 3, "gpu_id": ""}


def events(seed: int, n_users: int = 12, n_items: int = 30) -> dict[str, list[str]]:
    """Items of each user, oldest first; many repeat."""
    draw = random.Random(seed)
    result = {}
    for user in range(n_users):
        items = draw.sample(range(n_items), 5)
        result[f"u{user}"] = [f"i{draw.choice(items)}" for _ in range(draw.randrange(4, 12))]
    result["u0"] = [f"i{item}" for item in range(n_items)][:20]
    return result


def write(folder, sequences, parts=None, history=False):
    """The interactions as one file, or the rows of ``parts`` as files of their own."""
    target = folder / "toy"
    target.mkdir(parents=True, exist_ok=True)
    rows = [
        (user, item, place, " ".join(items[:place]))
        for user, items in sequences.items()
        for place, item in enumerate(items)
    ]
    random.Random(0).shuffle(rows)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    if history:
        header += "\titem_id_list:token_seq"
    files = {"": lambda user, place: True}
    if parts:
        files = {f".{name}": chosen for name, chosen in parts.items()}
    for name, chosen in files.items():
        lines = [header]
        for row in rows:
            if chosen(row[0], row[2]) and (row[2] or not history):
                lines.append("\t".join(map(str, row[: 4 if history else 3])))
        (target / f"toy{name}.inter").write_text("\n".join(lines) + "\n")


def loaders_of(folder, model, **changes):
    config = GenRecConfig(
        model,
        "toy",
        config_dict={**SMALL, "data_path": str(folder), "exclude_history": True, **changes},
    )
    dataset = create_dataset(config)
    return dataset, make_loaders(config, dataset, False)


def excluded(dataset, loader):
    """``(user, target) -> items`` of every row, by raw id; a target may stand in several rows."""
    result = defaultdict(list)
    for interaction, (rows, items), targets_of, targets in loader:
        users = dataset.id2token("user_id", interaction["user_id"].numpy())
        for row, target in zip(targets_of.tolist(), targets.tolist(), strict=True):
            left_out = items[rows == row].numpy()
            assert len(set(left_out)) == len(left_out)
            tokens = frozenset(dataset.id2token("item_id", left_out))
            result[users[row], str(dataset.id2token("item_id", target))].append(tokens)
    return result


@pytest.mark.parametrize("model", ["SASRec", "Pop"])
@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_leaves_out_all_that_came_before(tmp_path, model, seed):
    sequences = events(seed)
    write(tmp_path, sequences)
    dataset, (_, valid, test) = loaders_of(tmp_path, model)
    for loader, place in ((valid, -2), (test, -1)):
        expected = {
            (user, items[place]): [frozenset(items[:place])] for user, items in sequences.items()
        }
        assert excluded(dataset, loader) == expected
    repeated = [sum(items[at] in items[:at] for items in sequences.values()) for at in (-2, -1)]
    assert repeated[0] + repeated[1] > 0
    assert unreachable_targets(valid, test) == {"valid": repeated[0], "test": repeated[1]}


@pytest.mark.parametrize("seed", range(3))
def test_ratio_splits_leave_out_all_earlier_items(tmp_path, seed):
    sequences = events(seed)
    write(tmp_path, sequences)
    args = {"eval_args": {"split": RATIO, "order": "TO", "group_by": "user", "mode": "full"}}
    dataset, (train, valid, test) = loaders_of(tmp_path, "SASRec", **args)
    seen = 0
    for loader in (valid, test):
        for (user, target), rows in excluded(dataset, loader).items():
            items = sequences[user]
            before = [set(items[:at]) for at in range(1, len(items)) if items[at] == target]
            assert all(left_out in before for left_out in rows)
            seen += len(rows)
    assert seen == len(valid._dataset) + len(test._dataset) > 20

    dataset, (train, valid, test) = loaders_of(tmp_path, "Pop", **args)
    of_split = []
    for loader in (train, valid, test):
        data = loader._dataset.inter_feat
        items = defaultdict(set)
        users = dataset.id2token("user_id", data["user_id"].numpy())
        tokens = dataset.id2token("item_id", data["item_id"].numpy())
        for user, item in zip(users, tokens, strict=True):
            items[user].add(item)
        of_split.append(items)
    for loader, number in ((valid, 1), (test, 2)):
        for (user, _), rows in excluded(dataset, loader).items():
            expected = set().union(*(items[user] for items in of_split[:number]))
            assert rows == [expected]


@pytest.mark.parametrize("model", ["SASRec", "Pop"])
@pytest.mark.parametrize("history", [False, True])
def test_files_that_are_split_leave_out_whole_histories(tmp_path, model, history):
    sequences = events(1)
    last = {user: len(items) - 1 for user, items in sequences.items()}
    parts = {
        "train": lambda user, place: place < last[user] - 1 and (not history or place == 1),
        "valid": lambda user, place: place == last[user] - 1,
        "test": lambda user, place: place == last[user],
    }
    write(tmp_path, sequences, parts, history)
    files = {"benchmark_filename": ["train", "valid", "test"]}
    dataset, (_, valid, test) = loaders_of(tmp_path, model, **files)
    for loader, place in ((valid, -2), (test, -1)):
        expected = {
            (user, items[place]): [frozenset(items[:place])] for user, items in sequences.items()
        }
        assert excluded(dataset, loader) == expected


def test_batches_of_our_models_carry_the_items(tmp_path):
    sequences = events(0)
    write(tmp_path, sequences)
    (tmp_path / "toy" / "toy.item").write_text(
        "\n".join(["item_id:token\ttitle:token_seq", *(f"i{n}\ta thing {n}" for n in range(30))])
    )
    dataset, (_, _, test) = loaders_of(
        tmp_path, "TIGER", item_text_fields=["title"], codebook_sizes=[4, 4]
    )
    interaction, (rows, items), *_ = next(iter(test))
    for row, column in enumerate(interaction[EXCLUDED].tolist()):
        assert [item for item in column if item] == items[rows == row].tolist()


def test_lists_that_cannot_be_filled_are_refused(tmp_path):
    write(tmp_path, events(0))
    with pytest.raises(ConfigError, match=r"leaves 1\d of \d\d items for user 'u0'.*smaller topk"):
        loaders_of(tmp_path, "SASRec", topk=[20], valid_metric="NDCG@20")


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(0, 30)), min_size=1, max_size=40
    ),
    st.integers(0, 100),
)
def test_histories_are_the_events_before(rows, seed):
    """Against sets in plain Python; places of one user may repeat, and item 0 is no item."""
    users, items, places = (np.array(column) for column in zip(*rows, strict=True))
    histories = SeenItems(users, items, places)
    draw = random.Random(seed)
    asked = [(draw.randrange(1, 6), draw.randrange(0, 32), draw.randrange(1, 7)) for _ in range(9)]
    who, when, what = (np.array(column) for column in zip(*asked, strict=True))
    ends = histories.ends(who, when)
    lists = histories.gather(who, ends)
    inside = histories.contain(who, ends, what)
    for row, (user, place, item) in enumerate(asked):
        expected = {i for u, i, p in rows if u == user and p < place and i}
        assert sorted(lists[row].tolist()) == sorted(expected)
        assert inside[row] == (item in expected)
