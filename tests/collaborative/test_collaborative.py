"""Collaborative vectors and sequences: nothing held out reaches them, and they follow raw item
ids.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from toy import toy_config, write_dataset

from recbole_genrec.collaborative import training as training_module
from recbole_genrec.collaborative.training import settings_that_count
from recbole_genrec.collaborative.training_interactions import (
    TrainingInteractions,
    sasrec_loader,
)
from recbole_genrec.collaborative.training_split import only_trained_items, training_split
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.storage.artefacts import META
from recbole_genrec.storage.atomic import publish_folder

ONLY_HELD_OUT = "z-never-trained"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The toy dataset; the last item of two users occurs nowhere else."""
    root = write_dataset(tmp_path_factory.mktemp("data"), n_users=30)
    users = read_users(root)
    for user in ("u0", "u1"):
        users[user][-1] = ONLY_HELD_OUT
    write_users(root, users)
    with open(root / "toy" / "toy.item", "a") as stream:
        stream.write(f"{ONLY_HELD_OUT}\tnew soap\tbrand0\n")
    return root


def read_users(root: Path) -> dict[str, list[str]]:
    """Items of each user by time, read from the file without RecBole."""
    users: dict[str, list[str]] = {}
    for line in (root / "toy" / "toy.inter").read_text().splitlines()[1:]:
        user, item, _ = line.split("\t")
        users.setdefault(user, []).append(item)
    return users


def write_users(root: Path, users: dict[str, list[str]]) -> None:
    rows = [
        f"{user}\t{item}\t{time}"
        for user, items in users.items()
        for time, item in enumerate(items)
    ]
    (root / "toy" / "toy.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    )


def settings(root: Path, cache: str = "cache", **changes):
    return toy_config(root, cache_dir=cache, **{"cf_dim": 4, "cf_epochs": 2, **changes})


def vectors_of(root: Path, cache: str, **changes) -> dict[str, np.ndarray]:
    tokens, vectors = TrainingInteractions(settings(root, cache, **changes)).vectors()
    return dict(zip(tokens, vectors, strict=True))


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for token, vector in first.items():
        np.testing.assert_array_equal(vector, second[token])


# --- leakage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["all", "longest"])
def test_sequences_are_all_but_the_last_two_interactions(folder, rows):
    found = TrainingInteractions(
        settings(folder, train_rows=rows, MAX_ITEM_LIST_LENGTH=3)
    ).sequences
    assert found == {user: items[:-2] for user, items in sorted(read_users(folder).items())}


def test_no_row_of_the_split_that_is_trained_on_holds_a_held_out_interaction(folder):
    users = read_users(folder)
    data = only_trained_items(training_split(TrainingInteractions(settings(folder)).config))
    rows = data.inter_feat
    names = data.id2token("user_id", rows["user_id"].numpy())
    seen = dict.fromkeys(users, 0)
    for row, user in enumerate(names):
        length = int(rows["item_length"][row])
        history = data.id2token("item_id", rows["item_id_list"][row, :length].numpy()).tolist()
        target = str(data.id2token("item_id", int(rows["item_id"][row])))
        seen[user] += 1
        position = seen[user]  # of the target, among all interactions of the user
        assert position < len(users[user]) - 2
        assert [*history, target] == users[user][: position + 1]
    assert seen == {
        user: len(items) - 3 for user, items in users.items()
    }  # every training target, once


def test_held_out_pairs_of_the_run_are_not_in_the_sequences(folder):
    config, whole = settings(folder), read_users(folder)
    _, *held_out = make_loaders(config, create_dataset(config), True)
    sequences = TrainingInteractions(config).sequences
    for position, loader in zip((-2, -1), held_out, strict=True):
        data = loader._dataset
        users = data.id2token("user_id", data.inter_feat["user_id"].numpy()).tolist()
        targets = data.id2token("item_id", data.inter_feat["item_id"].numpy()).tolist()
        assert {user: whole[user][position] for user in whole} == dict(
            zip(users, targets, strict=True)
        )
        assert all(len(sequences[user]) + 2 == len(whole[user]) for user in users)


def test_other_held_out_interactions_give_the_same_vectors_bit_by_bit(folder, tmp_path):
    users, items = (
        read_users(folder),
        sorted({item for sequence in read_users(folder).values() for item in sequence}),
    )
    other = write_dataset(tmp_path / "other", n_users=30)
    draw = random.Random(5)
    changed = {
        user: [*sequence[:-2], draw.choice(items), f"new-{draw.randrange(9)}"]
        for user, sequence in users.items()
    }
    write_users(other, changed)
    ids = [
        create_dataset(settings(root)).field2id_token["item_id"].tolist()
        for root in (folder, other)
    ]
    assert ids[0] != ids[1]  # RecBole numbers the items of the two files differently
    assert (
        TrainingInteractions(settings(folder)).fingerprint
        == TrainingInteractions(settings(other)).fingerprint
    )
    assert_same(vectors_of(folder, "one"), vectors_of(other, "two"))
    changed["u3"][-3] = changed["u3"][-5]  # a training interaction
    write_users(other, changed)
    assert (
        TrainingInteractions(settings(folder)).fingerprint
        != TrainingInteractions(settings(other)).fingerprint
    )


# --- repeatable, cached, undisturbing -------------------------------------------------------------


def test_same_seed_same_vectors_and_another_seed_others(folder):
    first = vectors_of(folder, "one")
    assert_same(first, vectors_of(folder, "two"))
    other = vectors_of(folder, "two", seed=7)
    assert first.keys() == other.keys() and not np.array_equal(first["i1"], other["i1"])


def test_stored_vectors_are_reused_by_every_run_with_the_same_training_split(folder, monkeypatch):
    trained = []
    train = TrainingInteractions._train
    monkeypatch.setattr(
        TrainingInteractions, "_train", lambda self: trained.append(1) or train(self)
    )
    first = vectors_of(folder, "one")
    assert_same(
        first,
        vectors_of(
            folder,
            "one",
            MAX_ITEM_LIST_LENGTH=4,
            epochs=9,
            train_batch_size=5,
            topk=[10],
            valid_metric="NDCG@10",
        ),
    )
    assert len(trained) == 1
    vectors_of(folder, "one", cf_epochs=1)
    assert len(trained) == 2


@pytest.mark.parametrize("rows", ["windows", "all"])
def test_every_training_target_is_learned_once_an_epoch(folder, rows):
    config = TrainingInteractions(settings(folder, cf_rows=rows)).config
    data = only_trained_items(training_split(config))
    learned: dict[str, list[str]] = {user: [] for user in read_users(folder)}
    for batch in sasrec_loader(config, data):
        users = data.id2token("user_id", batch["user_id"].numpy())
        for row, user in enumerate(users):
            length = int(batch["item_length"][row])
            items = [*batch["item_id_list"][row, :length].tolist(), int(batch["item_id"][row])]
            targets = items[1:] if rows == "windows" else items[-1:]
            learned[user] += data.id2token("item_id", targets).tolist()
    for user, items in read_users(folder).items():
        assert sorted(learned[user]) == sorted(items[1:-2])


def test_a_section_for_the_baseline_does_not_change_the_vectors(folder, tmp_path):
    usual = TrainingInteractions(settings(folder))
    other = write_dataset(tmp_path / "other", n_users=30)
    write_users(other, read_users(folder))
    section = {
        "train_rows": "longest",
        "batch_targets": 32,
        "stopping_step": 3,
        "valid_users": 5,
        "eval_step": 2,
        "n_layers": 1,
        "hidden_dropout_prob": 0.1,
        "learning_rate": 0.002,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.05,
        "ema_decay": 0.999,
    }
    (other / "toy" / "toy.yaml").write_text(f"SASRec: {section}\n")
    tuned = TrainingInteractions(settings(other))
    assert settings(other).derived("SASRec").settings.train_rows == "longest"
    assert tuned.sequences == usual.sequences
    assert tuned.fingerprint == usual.fingerprint


def test_vectors_of_recboles_rows_keep_the_key_from_before_windows(folder):
    config = settings(folder, cf_rows="all", cf_dim=4, cf_epochs=2)
    earlier = config.derived(
        "SASRec",
        hidden_size=4,
        inner_size=16,
        n_heads=2,
        loss_type="CE",
        epochs=2,
        learner="adam",
        learning_rate=1e-3,
        weight_decay=0.0,
        train_batch_size=512,
    )
    of_rows = TrainingInteractions(config)
    assert settings_that_count(of_rows.config) == settings_that_count(earlier)
    assert of_rows.fingerprint != TrainingInteractions(settings(folder)).fingerprint


def test_batches_hold_the_longest_window(folder, tmp_path):
    other = write_dataset(tmp_path / "other", n_users=30)
    (other / "toy" / "toy.yaml").write_text("MAX_ITEM_LIST_LENGTH: 600\n")
    assert TrainingInteractions(settings(other)).config.settings.batch_targets == 600
    assert TrainingInteractions(settings(folder)).config.settings.batch_targets == 512


def test_damaged_vectors_are_refused(folder):
    vectors_of(folder, "one")
    next(Path("one").glob(f"cf-*/{META}")).write_text("{")
    with pytest.raises(ArtefactError, match="damaged"):
        vectors_of(folder, "one")


def test_an_interrupted_store_leaves_nothing_and_the_first_of_two_processes_wins(
    folder, monkeypatch
):
    source = TrainingInteractions(settings(folder, "one"))
    with monkeypatch.context() as patch:
        patch.setattr(
            training_module,
            "save_artefact",
            lambda target, *_: (target / "half").write_text("") / "fails",
        )
        with pytest.raises(TypeError):
            source.vectors()
    assert not list(Path("one").iterdir())
    first = dict(zip(*source.vectors(), strict=True))
    (stored,) = Path("one").iterdir()
    with publish_folder(stored) as temporary:
        (temporary / "late").write_text("")
    assert not (stored / "late").exists() and list(Path("one").iterdir()) == [stored]
    assert_same(first, dict(zip(*source.vectors(), strict=True)))


def test_random_states_handlers_and_checkpoints_stay_as_they_are(folder):
    config = settings(folder, checkpoint_dir="checkpoints")
    handlers = list(logging.getLogger().handlers)

    def draws():
        torch.manual_seed(1), np.random.seed(2), random.seed(3)  # noqa: B018
        yield
        yield torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    expected = list(draws())[1]
    after = draws()
    next(after)
    TrainingInteractions(config).vectors()
    assert next(after) == expected
    assert logging.getLogger().handlers == handlers
    assert not list(Path("checkpoints").glob("*"))


def test_validation_and_test_loaders_are_never_read(folder, monkeypatch):
    monkeypatch.setattr(FullSortEvalDataLoader, "collate_fn", lambda *_: pytest.fail("read"))
    monkeypatch.setattr(
        training_module.GenRecTrainer, "_valid_epoch", lambda *_: pytest.fail("validated")
    )
    assert len(vectors_of(folder, "one")) > 30


# --- aligned with the items of the run ------------------------------------------------------------


def content_of(root: Path, cache: str = "cache", **changes) -> ItemContent:
    config = settings(root, cache, **changes)
    content = ItemContent.from_dataset(create_dataset(config), config)
    content.interactions = TrainingInteractions(config)
    return content


def test_rows_follow_the_item_ids_and_untrained_items_are_masked(folder):
    content = content_of(folder)
    vectors, trained = content.collaborative(), content.trained
    assert vectors.shape == (content.n_items, 4) and vectors.dtype == np.float32
    in_training = {item for items in read_users(folder).values() for item in items[:-2]}
    assert trained.tolist() == [token in in_training for token in content.tokens]
    assert not trained[0] and not trained[content.tokens.index(ONLY_HELD_OUT)]
    assert not vectors[~trained].any() and (vectors[trained] != 0).any(axis=1).all()
    by_token = vectors_of(folder, "cache")
    for token, vector in zip(content.tokens, vectors, strict=True):
        np.testing.assert_array_equal(vector, by_token.get(token, np.zeros(4)))
    assert content.collaborative() is vectors


def test_a_file_with_other_item_numbers_gets_the_same_vectors_from_the_store(
    folder, tmp_path, monkeypatch
):
    first = content_of(folder, str(tmp_path / "store"))
    first.collaborative()
    other = write_dataset(tmp_path / "other", n_users=30)
    (other / "toy" / "toy.item").write_text((folder / "toy" / "toy.item").read_text())
    write_users(other, dict(reversed(read_users(folder).items())))
    assert_same(
        vectors_of(folder, "one"), vectors_of(other, "two")
    )  # trained twice: the order of the file does not count
    second = content_of(other, str(tmp_path / "store"))
    monkeypatch.setattr(TrainingInteractions, "_train", lambda _: pytest.fail("trained again"))
    assert (
        first.tokens != second.tokens
        and first.interactions_fingerprint == second.interactions_fingerprint
    )
    order = [second.tokens.index(token) for token in first.tokens]
    np.testing.assert_array_equal(first.collaborative(), second.collaborative()[order])
    np.testing.assert_array_equal(first.trained, second.trained[order])


def test_item_sequences_are_item_ids(folder):
    content = content_of(folder)
    expected = [items[:-2] for _, items in sorted(read_users(folder).items())]
    assert [
        [content.tokens[item] for item in sequence] for sequence in content.item_sequences()
    ] == expected
    with pytest.raises(DataError, match="not in this item content"):
        ItemContent(["[PAD]", "x"], ["", "x"], interactions=content.interactions).item_sequences()


def test_content_without_interactions_says_what_to_do():
    content = ItemContent(["[PAD]", "a"], ["", "soap"])
    for use in (
        content.collaborative,
        content.item_sequences,
        lambda: content.trained,
        lambda: content.interactions_fingerprint,
    ):
        with pytest.raises(DataError, match="content.interactions = TrainingInteractions"):
            use()


# --- settings and vectors made elsewhere ----------------------------------------------------------


def test_a_bad_setting_is_named(folder):
    for changes, message in [
        ({"cf_dim": 0}, "cf_dim"),
        ({"cf_epochs": 0}, "cf_epochs"),
        ({"allow_external_cf": "yes"}, "allow_external_cf"),
    ]:
        with pytest.raises(ConfigError, match=message):
            toy_config(folder, **changes)
    assert vectors_of(folder, "odd", cf_dim=3, cf_epochs=1)["i1"].shape == (3,)


def test_an_external_file_is_refused_unless_it_is_allowed(folder, tmp_path):
    file = tmp_path / "vectors.tsv"
    file.write_text("i2\t1 2.5 -3\nelsewhere\t0 0 0\ni1\t4 5e-1 6\n")
    with pytest.raises(ConfigError, match="allow_external_cf: true"):
        content_of(folder, cf_file=str(file))
    content = content_of(folder, cf_file=str(file), allow_external_cf=True)
    lines: list[str] = []
    content.interactions.log = lines.append
    vectors = content.collaborative()
    assert len(lines) == 1 and "unchecked" in lines[0]
    assert vectors[content.tokens.index("i1")].tolist() == [4, 0.5, 6] and vectors[
        content.tokens.index("i2")
    ].tolist() == [1, 2.5, -3]
    assert [content.tokens[item] for item in np.flatnonzero(content.trained)] == [
        t for t in content.tokens if t in ("i1", "i2")
    ]
    before = content.interactions_fingerprint
    file.write_text("i2\t1 2.5 -3\n")
    assert (
        content_of(folder, cf_file=str(file), allow_external_cf=True).interactions_fingerprint
        != before
    )
    assert not Path("cache").exists()  # nothing was trained or copied


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("i1\t1 2\ni2\t1 2 3\n", "line 2, id 'i2'.*2 finite numbers"),
        ("i1\t1 2\ni1\t3 4\n", "line 2, id 'i1'.*new id"),
        ("i1\t1 nan\n", "line 1, id 'i1'"),
        ("item_id\tvector\n", "line 1, id 'item_id'"),
        ("i1 1 2\n", "line 1"),
        ("", "holds no vectors"),
        ("elsewhere\t1 2\n", "None of the"),
        (None, "vectors.tsv cannot be read"),
    ],
)
def test_a_bad_external_file_is_named_with_its_line(folder, tmp_path, text, message):
    file = tmp_path / "vectors.tsv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=message):
        content_of(folder, cf_file=str(file), allow_external_cf=True).collaborative()
