"""Batches of a constant number of targets, and windows that hold every target once an epoch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_config, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.rows.batching import sorted_in_chunks, target_batches
from recbole_genrec.data.rows.training_rows import TargetLoader, cut_histories, moved_left
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.stages import start_summary
from recbole_genrec.runtime import interrupts
from recbole_genrec.training.trainer import GenRecTrainer

WIDTH = 4
TARGETS = 12

# --- the parts ------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=200),
    n_targets=st.integers(20, 60),
    seed=st.integers(0, 5),
)
def test_a_batch_holds_its_targets_give_or_take_a_row(lengths, n_targets, seed):
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    batches = target_batches(order, torch.tensor(lengths), n_targets)
    assert torch.equal(torch.cat(batches), order)
    assert len(batches) == -(-sum(lengths) // n_targets)
    done = 0
    for number, batch in enumerate(batches[:-1], start=1):
        done += sum(lengths[row] for row in batch.tolist())
        assert number * n_targets - max(lengths) < done <= number * n_targets


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=200), chunk_rows=st.integers(1, 70)
)
def test_neighbours_of_sorted_chunks_are_similar_across_chunks_too(lengths, chunk_rows):
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))
    chosen = sorted_in_chunks(order, torch.tensor(lengths), chunk_rows)
    assert sorted(chosen.tolist()) == list(range(len(lengths)))
    expected = []
    for number, start in enumerate(range(0, len(lengths), chunk_rows)):
        chunk = [lengths[row] for row in order[start : start + chunk_rows].tolist()]
        expected += sorted(chunk, reverse=number % 2 == 1)
    assert [lengths[row] for row in chosen.tolist()] == expected


@given(
    histories=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 30)), min_size=1, max_size=20),
    width=st.integers(5, 9),
    seed=st.integers(0, 100),
)
def test_windows_hold_every_target_once(histories, width, seed):
    begins = torch.tensor([first for first, _ in histories])
    targets = torch.tensor([first + more for first, more in histories])
    draws = torch.rand(len(histories), generator=torch.Generator().manual_seed(seed))
    user, end, length = cut_histories(begins, targets, width, draws)
    assert int(length.min()) >= 1 and int(length.max()) <= width
    covered: dict[int, list[int]] = {number: [] for number in range(len(histories))}
    for number, last, size in zip(user.tolist(), end.tolist(), length.tolist(), strict=True):
        assert last >= begins[number]  # so that a row of the data ends there
        covered[number] += range(last - size + 1, last + 1)
    for number, places in covered.items():
        assert places == list(range(1, int(targets[number]) + 1))


def test_every_length_of_the_first_window_is_drawn():
    draws = torch.arange(0, 1, 0.01)
    ones = torch.ones(100, dtype=torch.long)
    user, end, _ = cut_histories(ones, ones * 50, 10, draws)
    first = end[user.diff(prepend=torch.tensor([-1])) > 0]
    assert first.unique().tolist() == list(range(1, 11))


def test_histories_lose_their_first_items():
    history = torch.tensor([[5, 6, 7, 8], [1, 2, 0, 0]])
    moved = moved_left(history, torch.tensor([3, 0]), torch.tensor([1, 2]))
    assert moved.tolist() == [[8, 0, 0, 0], [1, 2, 0, 0]]


# --- the loader -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=120)


def loader_of(folder, **changes):
    settings = {
        "train_rows": "windows",
        "batch_targets": TARGETS,
        "MAX_ITEM_LIST_LENGTH": WIDTH,
        **changes,
    }
    config = toy_config(folder, "TimelineRec", **settings)
    dataset = create_dataset(config)
    return config, dataset, make_loaders(config, dataset, True)[0]


def training_items(folder):
    """The items of each user without the last two, oldest first, from the file itself."""
    histories: dict[str, list[tuple[float, str]]] = {}
    for line in (folder / "toy" / "toy.inter").read_text().splitlines()[1:]:
        user, item, time = line.split("\t")
        histories.setdefault(user, []).append((float(time), item))
    ordered = {}
    for user, events in histories.items():
        ordered[user] = [item for _, item in sorted(events, key=lambda event: event[0])][:-2]
    return ordered


def taught(batch, dataset):
    """Pairs (user, items up to and with a target) that the rows of a batch teach."""
    pairs = []
    columns = (batch["user_id"], batch["item_length"], batch["item_id"], batch["item_id_list"])
    for user, length, item, history in zip(*columns, strict=True):
        assert not history[length:].any()
        items = torch.cat([history[:length], item.view(1)])
        tokens = [str(token) for token in dataset.id2token("item_id", items.numpy())]
        name = str(dataset.id2token("user_id", user))
        pairs += [(name, tokens[:place]) for place in range(2, len(tokens) + 1)]
    return pairs


@pytest.mark.parametrize("grouped", [True, False])
def test_each_epoch_teaches_every_target_once(folder, grouped):
    _, dataset, train = loader_of(folder, group_by_length=grouped)
    assert isinstance(train, TargetLoader)
    expected = training_items(folder)
    epochs = []
    for _ in range(3):
        batches = list(train)
        assert len(batches) == len(train)
        sizes = [int(batch["item_length"].sum()) for batch in batches]
        assert all(TARGETS - WIDTH < size < TARGETS + WIDTH for size in sorted(sizes)[1:])
        places: dict[str, list[int]] = {}
        for batch in batches:
            for user, items in taught(batch, dataset):
                ends = [
                    end
                    for end in range(1, len(expected[user]) + 1)
                    if expected[user][max(0, end - len(items)) : end] == items
                ]
                assert ends
                places.setdefault(user, []).append(max(ends))
        for user, items in expected.items():
            assert len(places.get(user, [])) == max(0, len(items) - 1)
        epochs.append([batch["item_id_list"] for batch in batches])
    shapes = [torch.cat(epoch) for epoch in epochs]
    assert shapes[0].shape != shapes[1].shape or not torch.equal(shapes[0], shapes[1])


def test_the_longest_rows_come_in_batches_of_targets(folder):
    _, dataset, train = loader_of(folder, train_rows="longest")
    expected = training_items(folder)
    batches = list(train)
    assert len(batches) == len(train)
    rows = []
    for batch in batches:
        for user, items in taught(batch, dataset):
            if items == expected[user][-len(items) :]:
                rows.append(user)
    assert sorted(set(rows)) == sorted(user for user in expected if len(expected[user]) > 1)


def test_the_generator_decides_an_epoch(folder):
    _, _, train = loader_of(folder)
    state = train.generator.get_state()
    first = [batch["item_id_list"] for batch in train]
    train.generator.set_state(state)
    again = [batch["item_id_list"] for batch in train]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_similar_lengths_carry_less_padding(folder):
    padding = {}
    for grouped in (True, False):
        _, _, train = loader_of(folder, group_by_length=grouped, batch_targets=24)
        batches = [batch["item_length"] for batch in train]
        padding[grouped] = sum(int((lengths.max() - lengths).sum()) for lengths in batches)
    assert padding[True] < padding[False] / 2


def test_it_is_the_batch_size_where_a_row_has_one_target(folder):
    for model, rows in (("SASRec", {}), ("Pop", {}), ("TimelineRec", {"train_rows": "all"})):
        settings = {"data_path": str(folder), "gpu_id": "", "batch_targets": 24, **rows}
        config = GenRecConfig(model, "toy", config_dict=settings)
        assert config["train_batch_size"] == 24
    assert loader_of(folder)[0]["train_batch_size"] == 32


def test_it_is_named_in_the_summary_and_not_in_the_names_of_earlier_runs(folder):
    config, dataset, _ = loader_of(folder)
    assert f"batch {TARGETS} targets" in start_summary(config, dataset)
    off, _, _ = loader_of(folder, batch_targets=0)
    assert "batch 32, " in start_summary(off, dataset)
    default = toy_config(folder, "TimelineRec", train_rows="windows", MAX_ITEM_LIST_LENGTH=WIDTH)
    assert default.run_name() == off.run_name() != config.run_name()
    none, _, _ = loader_of(folder, batch_targets=None)
    assert none.run_name() == off.run_name()


def test_a_batch_smaller_than_a_row_is_refused(folder):
    with pytest.raises(ConfigError, match="batch_targets is 3, fewer than the 4 targets"):
        loader_of(folder, batch_targets=3)


# --- runs -----------------------------------------------------------------------------------------


def run(folder, checkpoint_dir, **changes):
    config = toy_config(folder, "TimelineRec")
    settings = {
        "data_path": str(folder),
        "train_rows": "windows",
        "batch_targets": 40,
        "MAX_ITEM_LIST_LENGTH": WIDTH,
        "timeline_dropout": 0.1,
        "checkpoint_dir": checkpoint_dir,
        "epochs": 3,
        **changes,
    }
    names = ("codebook_sizes", "d_model", "n_heads", "topk", "item_text_fields", "gpu_id")
    small = {name: config[name] for name in names}
    return run_recbole_genrec("TimelineRec", "toy", config_dict={**small, **settings})


@pytest.mark.parametrize("grouped", [True, False])
def test_a_run_that_is_killed_inside_an_epoch_continues_exactly(folder, monkeypatch, grouped):
    whole = run(folder, "whole", group_by_length=grouped)

    class Killed(BaseException):
        pass

    step = GenRecTrainer._optimiser_step
    calls = []

    def killed(self):
        calls.append(0)
        if len(calls) == 25:
            raise Killed
        step(self)

    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", killed)
    monkeypatch.setattr(interrupts, "SAVE_EVERY", 0)
    with pytest.raises(Killed):
        run(folder, "cut", group_by_length=grouped)
    monkeypatch.undo()
    resumed = run(folder, "cut", group_by_length=grouped, resume=True)
    assert resumed["test_result"] == whole["test_result"]
    for one, other in zip(resumed["epochs"], whole["epochs"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
        assert one["valid"] == other["valid"]


def test_two_processes_give_the_run_of_one(folder):
    exact = {
        "timeline_dropout": 0.0,
        "text_stream_dropout": 0.0,
        "text_map_precision": "fp32",
    }
    one = run(folder, "one", **exact)
    two = run(folder, "two", nproc=2, **exact)
    assert (one["processes"], two["processes"]) == (1, 2)
    for first, second in zip(one["epochs"], two["epochs"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert second["valid"] == pytest.approx(first["valid"], abs=1e-6)
    assert two["test_result"] == pytest.approx(one["test_result"], abs=1e-6)


def test_bf16_runs_on_batches_of_targets(folder):
    result = run(folder, "bf16", precision="bf16", epochs=1)
    assert result["epochs"][0]["loss"][0] > 0
