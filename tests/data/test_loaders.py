"""Training rows, batches of similar length, validation subsets, and the split: nothing held out
is trained on.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import TINY, toy_config, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.rows.batching import length_grouped
from recbole_genrec.data.rows.training_rows import LengthGroupedLoader, row_mask
from recbole_genrec.errors import DataError

# --- which rows are kept --------------------------------------------------------------------------

# rows per user; a user with n training interactions has the rows (prefix of length t -> item t), t
# = 1 ... n - 1
row_counts = st.lists(st.integers(1, 12), min_size=1, max_size=8)


def naive_mask(counts: list[int], rows: str, max_length: int) -> list[bool]:
    kept = []
    for count in counts:
        for row in range(count):
            from_last = count - 1 - row
            kept.append(
                {"all": True, "longest": from_last == 0, "windows": from_last % max_length == 0}[
                    rows
                ]
            )
    return kept


def users_of(counts: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(
        torch.arange(len(counts)) * 7 % 11 + 1, torch.tensor(counts)
    )  # ids in no order


@given(
    counts=row_counts,
    rows=st.sampled_from(["all", "longest", "windows"]),
    max_length=st.integers(1, 6),
)
def test_row_mask_equals_the_definition(counts, rows, max_length):
    mask = row_mask(users_of(counts), rows, max_length)
    assert mask.dtype == torch.bool and mask.tolist() == naive_mask(counts, rows, max_length)


@given(counts=row_counts, max_length=st.integers(1, 6))
def test_windows_hold_every_interaction_and_every_target_once(counts, max_length):
    mask = row_mask(users_of(counts), "windows", max_length).split(counts)
    for kept in mask:
        seen, targets = set(), []
        for row in kept.nonzero().flatten().tolist():
            target = row + 1  # items 0 ... n - 1; the history is cut to the last max_length items
            first = max(0, target - max_length)
            seen |= set(range(first, target + 1))
            targets += range(
                first + 1, target + 1
            )  # every item of the row after its first is predicted from those before it
        assert seen == set(range(len(kept) + 1))
        assert sorted(targets) == list(range(1, len(kept) + 1))


# --- batches of similar length --------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=300),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_length_grouped_yields_every_row_once(lengths, batch_size, seed):
    lengths = torch.tensor(lengths)
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))

    def batches():
        return [
            batch.tolist()
            for batch in length_grouped(
                order, lengths, batch_size, torch.Generator().manual_seed(seed)
            )
        ]

    found = batches()
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in found) and len(found) == -(
        -len(lengths) // batch_size
    )
    assert found == batches()


# --- real loaders ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=120)


def loaders_of(folder, model="STORE", **changes):
    if model == "STORE":
        config = toy_config(folder, **changes)
    else:
        settings = {
            "data_path": str(folder),
            "MAX_ITEM_LIST_LENGTH": 8,
            "gpu_id": "",
            "epochs": 1,
            **changes,
        }
        config = GenRecConfig(model, "toy", config_dict=settings)
    dataset = create_dataset(config)
    return config, dataset, make_loaders(config, dataset, model == "STORE")


def batches_of(loader):
    return [
        (batch["user_id"], batch["item_length"], batch["item_id"], batch["item_id_list"])
        for batch in loader
    ]


def rows_of(batches):
    return sorted(
        (int(u), int(n), int(i))
        for users, lengths, items, _ in batches
        for u, n, i in zip(users, lengths, items, strict=True)
    )


def padding_of(batches):
    return sum(int((lengths.max() - lengths).sum()) for _, lengths, _, _ in batches)


def histories(folder: Path) -> dict[str, list[str]]:
    """Items by user, oldest first, from the file itself."""
    rows = [
        line.split("\t") for line in (folder / "toy" / "toy.inter").read_text().splitlines()[1:]
    ]
    found: dict[str, list[tuple[float, str]]] = {}
    for user, item, time in rows:
        found.setdefault(user, []).append((float(time), item))
    return {
        user: [item for _, item in sorted(pairs, key=lambda pair: pair[0])]
        for user, pairs in found.items()
    }


def test_grouped_batches_hold_every_row_once_an_epoch_with_less_padding(folder):
    _, _, (grouped, *_) = loaders_of(folder, train_rows="all", train_batch_size=8)
    _, _, (plain, *_) = loaders_of(
        folder, train_rows="all", train_batch_size=8, group_by_length=False
    )
    assert isinstance(grouped, LengthGroupedLoader) and type(plain) is LengthGroupedLoader.__base__
    first, second, reference = batches_of(grouped), batches_of(grouped), batches_of(plain)
    assert rows_of(first) == rows_of(second) == rows_of(reference)
    assert len(first) == len(grouped) == len(plain) == len(reference)
    assert padding_of(first) < padding_of(reference) / 3
    assert any(
        not torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=False)
    )  # epochs differ
    _, _, (again, *_) = loaders_of(folder, train_rows="all", train_batch_size=8)
    for one, two in zip(first, batches_of(again), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("rows", ["all", "longest"])
def test_training_rows_hold_the_first_n_minus_2_items_of_each_user(folder, rows):
    config, dataset, (train, *_) = loaders_of(folder, train_rows=rows, MAX_ITEM_LIST_LENGTH=4)
    seen: dict[str, set[tuple[str, ...]]] = {}
    for users, lengths, items, lists in batches_of(train):
        for user, length, item, history in zip(users, lengths, items, lists, strict=True):
            names = dataset.id2token("item_id", torch.cat([history[:length], item.view(1)]).numpy())
            seen.setdefault(str(dataset.id2token("user_id", user)), set()).add(tuple(names))
    expected = {}
    for user, items in histories(folder).items():
        ends = range(
            len(items) - 2, 1, -1
        )  # exclusive ends of "history + target" among the n - 2 training items
        ends = {"all": list(ends), "longest": list(ends)[:1]}[rows]
        expected[user] = {tuple(items[max(0, end - 5) : end]) for end in ends}
    assert seen == expected


@pytest.mark.parametrize("grouped", [True, False])
def test_windows_begin_elsewhere_in_each_epoch(folder, grouped):
    """Each epoch: as many rows a user as 4 items apart give, all of them prefixes, 4 apart but
    for one that stands at the end; in the long run, every prefix.
    """
    config, dataset, (train, *_) = loaders_of(
        folder,
        train_rows="windows",
        MAX_ITEM_LIST_LENGTH=4,
        train_batch_size=8,
        group_by_length=grouped,
    )
    histories_of = histories(folder)
    held = {user: len(items) - 2 for user, items in histories_of.items()}  # training items
    drawn: dict[str, set[int]] = {user: set() for user in held}
    for _ in range(40):
        state = train.generator.get_state()
        batches = batches_of(train)
        assert len(batches) == len(train)
        ends: dict[str, list[int]] = {}
        for users, _, items, lists in batches:
            for user, item, history in zip(
                dataset.id2token("user_id", users), items, lists, strict=True
            ):
                names = [
                    str(name)
                    for name in dataset.id2token(
                        "item_id", torch.cat([history[history > 0], item.view(1)]).numpy()
                    )
                ]
                own = histories_of[str(user)]
                place = [
                    end
                    for end in range(2, held[str(user)] + 1)
                    if own[max(0, end - 5) : end] == names
                ]
                ends.setdefault(str(user), []).append(place)
        for user, n in held.items():
            assert len(ends[user]) == -(-(n - 1) // 4) and all(ends[user])
            drawn[user] |= {end for places in ends[user] for end in places}
            if n - 1 <= 4:
                assert ends[user] == [[n]] or n in ends[user][0]
    assert all(drawn[user] == set(range(2, n + 1)) for user, n in held.items() if n - 1 > 4)
    train.generator.set_state(state)  # as a resumed run does: the same epoch again
    assert all(
        torch.equal(a, b)
        for one, two in zip(batches, batches_of(train), strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("model", ["STORE", "SASRec", "Pop", "LightGCN"])
def test_no_held_out_target_is_trained_on(folder, model):
    _, dataset, (train, valid, test) = loaders_of(folder, model)
    truth = histories(folder)

    def pairs(loader):
        frame = loader._dataset.inter_feat
        users, items = (
            dataset.id2token("user_id", frame["user_id"]),
            dataset.id2token("item_id", frame["item_id"]),
        )
        return sorted(zip(map(str, users), map(str, items), strict=True))

    assert pairs(valid) == sorted((user, items[-2]) for user, items in truth.items())
    assert pairs(test) == sorted((user, items[-1]) for user, items in truth.items())
    trained = {user: [] for user in truth}
    for user, item in pairs(train):
        trained[user].append(item)
    if model in (
        "SASRec",
        "Pop",
        "LightGCN",
    ):  # all targets; sequential models have no prefix for the first item
        first = 1 if model == "SASRec" else 0
        assert trained == {user: sorted(items[first:-2]) for user, items in truth.items()}
    frame = train._dataset.inter_feat
    if "item_id_list" in frame.interaction:  # nor does a history hold more than the training items
        for user, history, length in zip(
            frame["user_id"], frame["item_id_list"], frame["item_length"], strict=True
        ):
            items = truth[str(dataset.id2token("user_id", user))]
            assert set(dataset.id2token("item_id", history[:length].numpy())) <= set(items[:-2])


@pytest.mark.parametrize(
    "order",
    [{"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "none"}, "shuffled", "reversed"],
)
def test_the_longest_row_of_a_user_is_found_wherever_it_stands(folder, tmp_path, order):
    changes = {}
    if isinstance(order, dict):
        changes["eval_args"] = {**order, "mode": "full"}
    else:
        target = tmp_path / "toy"
        target.mkdir()
        rows = []
        for n in range(24):
            history = " ".join(f"i{m}" for m in range(n // 3 + 1))
            rows.append(f"u{n % 3}\t{history}\ti{n // 3 + 1}")
        places = {
            "shuffled": torch.randperm(18, generator=torch.Generator().manual_seed(0)).tolist(),
            "reversed": range(17, -1, -1),
        }[order]
        parts = {
            "train": [rows[n] for n in places],
            "valid": rows[18:21],
            "test": rows[21:],
        }
        header = "user_id:token\titem_id_list:token_seq\titem_id:token"
        for part, own in parts.items():
            (target / f"toy.{part}.inter").write_text("\n".join([header, *own]) + "\n")
        (target / "toy.item").write_text((folder / "toy" / "toy.item").read_text())
        changes = {
            "benchmark_filename": ["train", "valid", "test"],
            "alias_of_item_id": ["item_id_list"],
        }
        changes["load_col"] = {"inter": ["user_id", "item_id_list", "item_id"]}
    make = partial(
        toy_config, tmp_path if changes.get("load_col") else folder, "TimelineRec", **changes
    )
    every, longest, windows = (
        make_loaders(c, create_dataset(c), True)[0]._dataset.inter_feat
        for c in (make(train_rows=rows) for rows in ROWS)
    )
    most = {
        int(user): int(every["item_length"][every["user_id"] == user].max())
        for user in every["user_id"].unique()
    }
    assert (
        dict(zip(longest["user_id"].tolist(), longest["item_length"].tolist(), strict=True)) == most
    )
    assert all(
        most[user] in windows["item_length"][windows["user_id"] == user].tolist() for user in most
    )


ROWS = ("all", "longest", "windows")


def test_what_load_col_leaves_out_is_named(folder):
    with pytest.raises(
        DataError, match=r"without uid and ts. Say --load_col=\"{inter: \[uid, item_id, ts\]}\""
    ):
        create_dataset(toy_config(folder, USER_ID_FIELD="uid", TIME_FIELD="ts"))
    with pytest.raises(
        DataError, match="A file without times needs a column timestamp:float with the positions"
    ):
        create_dataset(toy_config(folder, load_col={"inter": ["user_id", "item_id"]}))


def test_valid_users_are_a_fixed_subset(folder):
    _, _, (_, whole, test) = loaders_of(folder)
    _, _, (_, some, same_test) = loaders_of(folder, valid_users=30)
    _, _, (_, again, _) = loaders_of(folder, "SASRec", valid_users=30)
    _, _, (_, other, _) = loaders_of(folder, valid_users=30, seed=1)
    users = [
        loader._dataset.inter_feat["user_id"].tolist() for loader in (whole, some, again, other)
    ]
    assert len(set(users[1])) == 30 and set(users[1]) < set(users[0])
    assert users[1] == users[2] != users[3]
    assert len(some) == -(-30 // some.step)
    assert len(test._dataset) == len(same_test._dataset) == len(users[0])
    _, _, (_, everyone, _) = loaders_of(folder, valid_users=10_000)
    assert len(everyone._dataset) == len(users[0])


# --- what is refused ------------------------------------------------------------------------------


def test_missing_interactions_are_named(folder):
    with pytest.raises(DataError, match=r"other\.inter does not exist\. Data of your own need"):
        create_dataset(
            GenRecConfig("STORE", "other", config_dict={**TINY, "data_path": str(folder)})
        )


def test_pickles_of_another_dataset_are_no_reason_to_stop(folder, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "toy-2-SequentialDataset.pth").write_bytes(b"of the dataset toy-2")
    assert loaders_of(folder)[1].item_num == 41


def test_the_share_of_targets_beyond_the_history_is_logged(folder, caplog):
    config = toy_config(folder, "STORE", train_rows="longest", MAX_ITEM_LIST_LENGTH=3)
    with caplog.at_level("INFO"):
        train = make_loaders(config, create_dataset(config), True)[0]
    every = make_loaders(
        toy_config(folder, "STORE", train_rows="all"), create_dataset(config), True
    )[0]
    kept, rows = int(train._dataset.inter_feat["item_length"].sum()), len(every._dataset)
    assert (
        0 < kept < rows
        and f"{rows - kept} of {rows} training targets ({1 - kept / rows:.1%}) lie beyond"
        in caplog.text
    )
