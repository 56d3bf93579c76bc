"""LightGCN's vectors of users and items: edges from the training split alone, raw ids, new users
and items by propagation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from recbole.data.dataloader import FullSortEvalDataLoader
from test_collaborative import ONLY_HELD_OUT, read_users, settings, write_users
from test_collaborative import folder as folder  # noqa: PLC0414
from toy import write_dataset

from recbole_genrec.collaborative import lightgcn_vectors as module
from recbole_genrec.collaborative import training as training_module
from recbole_genrec.collaborative.lightgcn_vectors import GraphVectors, TrainingGraph, graph_vectors
from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.collaborative.training_split import edges_only, read_sequences, training_split
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.report.outcome import outcome
from recbole_genrec.storage.artefacts import META

SMALL = {"graph_dim": 6, "graph_epochs": 2, "graph_batch": 64, "graph_layers": 2}


def graph_config(root: Path, cache: str = "cache", **changes):
    return settings(root, cache, **{**SMALL, **changes})


def make(root: Path, cache: str = "cache", log=lambda _: None, **changes):
    """``(vectors, training dataset)`` of a run."""
    config = graph_config(root, cache, **changes)
    data = make_loaders(config, create_dataset(config), True)[0]._dataset
    return graph_vectors(config, data, log), data


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> tuple[GraphVectors, object]:
    return make(folder, str(tmp_path_factory.mktemp("cache")))


def by_token(vectors: GraphVectors, data) -> dict[str, torch.Tensor]:
    users, items = data.field2id_token["user_id"], data.field2id_token["item_id"]
    return {
        **dict(zip(users, vectors.users, strict=True)),
        **dict(zip(items, vectors.items, strict=True)),
    }


def training_pairs(root: Path) -> set[tuple[str, str]]:
    return {(user, item) for user, items in read_users(root).items() for item in items[:-2]}


def graph_of(config):
    """RecBole's dataset of the edges, and the pairs in it by raw id."""
    data = edges_only(training_split(config.derived("SASRec")), read_sequences(config))
    matrix = data.inter_matrix(form="coo")
    users, items = (
        data.field2id_token["user_id"][matrix.row],
        data.field2id_token["item_id"][matrix.col],
    )
    return data, list(zip(users.tolist(), items.tolist(), strict=True))


# --- leakage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["all", "longest", "windows"])
def test_edges_are_the_training_interactions(folder, rows):
    """Whatever rows the run trains on; no held-out pair is an edge unless the user has the item
    in training too.
    """
    config = graph_config(folder, train_rows=rows, MAX_ITEM_LIST_LENGTH=3)
    data, pairs = graph_of(config)
    assert len(pairs) == len(set(pairs)) == len(data.inter_feat) and set(pairs) == training_pairs(
        folder
    )
    held_out = set()
    for loader in make_loaders(config, create_dataset(config), True)[1:]:
        own = loader._dataset
        users = own.id2token("user_id", own.inter_feat["user_id"].numpy()).tolist()
        held_out |= set(
            zip(
                users,
                own.id2token("item_id", own.inter_feat["item_id"].numpy()).tolist(),
                strict=True,
            )
        )
    assert len(held_out) > 40 and not (held_out - training_pairs(folder)) & set(pairs)
    assert ONLY_HELD_OUT not in data.field2id_token["item_id"]


def test_degrees_are_those_of_the_file(folder, made):
    vectors, data = made
    pairs = training_pairs(folder)
    for field, degree, end in (
        ("user_id", vectors.user_degree, 0),
        ("item_id", vectors.item_degree, 1),
    ):
        tokens = data.field2id_token[field]
        assert degree.dtype == torch.long and degree.tolist() == [
            sum(pair[end] == token for pair in pairs) for token in tokens
        ]


def test_other_held_out_interactions_give_the_same_vectors_bit_by_bit(folder, tmp_path):
    users = read_users(folder)
    other = write_dataset(tmp_path / "other", n_users=30)
    write_users(
        other,
        {
            user: [*items[:-2], f"new-{len(items)}", items[0]]
            for user, items in reversed(users.items())
        },
    )
    first, second = (
        by_token(*make(root, cache)) for root, cache in ((folder, "one"), (other, "two"))
    )
    shared = {end for pair in training_pairs(folder) for end in pair}
    assert all(torch.equal(first[token], second[token]) for token in shared)
    ids = [
        create_dataset(graph_config(root)).field2id_token["item_id"].tolist()
        for root in (folder, other)
    ]
    assert ids[0] != ids[1]


def test_a_user_without_training_rows_in_the_dataset_is_unknown(folder, made):
    vectors, data = made
    rows = data.inter_feat["user_id"] != data.token2id("user_id", "u3")
    config, messages = graph_config(folder), []
    reduced = graph_vectors(config, data.copy(data.inter_feat[rows]), messages.append)
    user = data.token2id("user_id", "u3")
    assert (
        not reduced.users[user].any()
        and reduced.user_degree[user] == 0
        and vectors.users[user].any()
    )
    assert int(reduced.user_degree.sum()) == int(
        vectors.user_degree.sum() - vectors.user_degree[user]
    )
    alone = (reduced.item_degree[1:] == 0).sum()
    assert f"1 users and {alone} items have no training interaction" in messages[-1]
    assert len(list(Path("cache").glob("graph-*"))) == 1  # trained without the user


# --- LightGCN -------------------------------------------------------------------------------------


def test_vectors_are_the_mean_of_propagated_layers(folder, made):
    vectors, data = made
    users, items = vectors.user_layers, vectors.item_layers
    assert (
        users.shape == (3, data.user_num, 6)
        and items.shape == (3, data.item_num, 6)
        and users.dtype == torch.float32
    )
    edges = torch.zeros(data.user_num, data.item_num)
    for user, item in training_pairs(folder):
        edges[data.token2id("user_id", user), data.token2id("item_id", item)] = 1
    scale = (edges.sum(1, keepdim=True) * edges.sum(0)).clamp(min=1).rsqrt()
    for layer in range(2):
        torch.testing.assert_close(
            users[layer + 1], (edges * scale) @ items[layer], atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            items[layer + 1], (edges * scale).T @ users[layer], atol=1e-6, rtol=0
        )
    torch.testing.assert_close(vectors.users, users.sum(0) / 3)
    torch.testing.assert_close(vectors.items, items.sum(0) / 3)
    trained = {end for pair in training_pairs(folder) for end in pair}
    assert ONLY_HELD_OUT not in trained
    for layers, field in ((users, "user_id"), (items, "item_id")):
        known = torch.tensor([token in trained for token in data.field2id_token[field]])
        assert not known[0] and not layers[:, ~known].any() and layers[:, known].any(2).all()


def test_training_raises_the_scores_of_the_edges(folder):
    vectors, data = make(folder, graph_epochs=40, graph_lr=0.05)
    scores = vectors.users @ vectors.items.T
    edges = torch.zeros_like(scores, dtype=torch.bool)
    for user, item in training_pairs(folder):
        edges[data.token2id("user_id", user), data.token2id("item_id", item)] = True
    real = torch.zeros_like(edges)
    real[1:, 1:] = True
    better = scores[edges].unsqueeze(1) > scores[real & ~edges]
    assert better.double().mean() > 0.9  # chance: 0.5


def test_negatives_are_real_items_that_the_user_does_not_have(folder, monkeypatch):
    seen = []

    def spy(config, data, rows, log):
        for batch in rows:
            seen.extend(zip(batch["user_id"].tolist(), batch["neg_item_id"].tolist(), strict=True))
        return trained_model(config, data, rows, log)

    trained_model = training_module.trained_model
    monkeypatch.setattr(module, "trained_model", spy)
    make(folder, "one")
    data, _ = graph_of(graph_config(folder))
    positive = set(
        zip(data.inter_feat["user_id"].tolist(), data.inter_feat["item_id"].tolist(), strict=True)
    )
    assert len(seen) == len(positive) and not positive & set(seen)
    negatives = {item for _, item in seen}
    assert (
        negatives <= set(range(1, data.item_num)) and len(negatives) > 0.8 * data.item_num
    )  # never the padding item


def test_a_user_with_all_items_trains_nothing_and_stays_in_the_graph(tmp_path, monkeypatch):
    root = write_dataset(tmp_path, n_users=12)
    users = read_users(root)
    items = sorted({item for sequence in users.values() for item in sequence})
    users["u0"] = [*items, items[0], items[1]]
    write_users(root, users)
    trained = []

    def spy(config, data, rows, log):
        trained.append((data, rows))
        return trained_model(config, data, rows, log)

    trained_model = training_module.trained_model
    monkeypatch.setattr(module, "trained_model", spy)
    said: list[str] = []
    vectors, data = make(root, log=said.append)
    (graph, rows) = trained[0]
    heavy = graph.token2id("user_id", "u0")
    assert (graph.inter_feat["user_id"] == heavy).sum() == len(items)
    assert all((batch["user_id"] != heavy).all() for batch in rows)
    assert any("all items of the training split: 1." in line for line in said)
    assert by_token(vectors, data)["u0"].abs().sum() > 0


def test_users_who_all_have_all_items_are_named(tmp_path):
    root = write_dataset(tmp_path, n_users=12)
    items = [f"i{number}" for number in range(5)]
    write_users(root, {f"u{number}": [*items, "i0", "i1"] for number in range(6)})
    with pytest.raises(DataError, match="Every user has every item of the training split"):
        make(root)


# --- new users and items --------------------------------------------------------------------------


def test_a_known_user_as_a_new_one_lacks_layer_zero_only(folder, made):
    """Both ways: its neighbours' layers are frozen, so the propagated layers come out as
    trained, and a third of layer 0 is missing.
    """
    vectors, data = made
    before = [value.clone() for value in vars(vectors).values() if isinstance(value, torch.Tensor)]
    edges = torch.zeros(data.user_num, data.item_num, dtype=torch.bool)
    for user, item in training_pairs(folder):
        edges[data.token2id("user_id", user), data.token2id("item_id", item)] = True
    for user in range(1, data.user_num):
        history = torch.cat(
            [torch.nonzero(edges[user]).flatten(), torch.zeros(2, dtype=torch.long)]
        )  # with padding
        found = vectors.new_user(history)
        torch.testing.assert_close(
            found, vectors.users[user] - vectors.user_layers[0, user] / 3, atol=1e-6, rtol=0
        )
        assert torch.equal(
            found, vectors.new_user(history.flip(0).repeat(2))
        )  # a set, without padding
    for item in torch.nonzero(vectors.item_degree).flatten().tolist():
        found = vectors.new_item(torch.nonzero(edges[:, item]).flatten())
        torch.testing.assert_close(
            found, vectors.items[item] - vectors.item_layers[0, item] / 3, atol=1e-6, rtol=0
        )
    after = [value for value in vars(vectors).values() if isinstance(value, torch.Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=False))


def test_new_user_by_hand():
    vectors = GraphVectors(
        torch.zeros(3, 2, 1),
        torch.tensor(
            [[[0.0], [8.0], [2.0]], [[0.0], [4.0], [6.0]], [[9.0], [9.0], [9.0]]]
        ),
        torch.tensor([0, 1]), torch.tensor([0, 2, 8]),
    )  # fmt: skip
    # layer 1: 8 / sqrt(2 * 2) + 2 / sqrt(2 * 8) = 4.5; layer 2: 4 / 2 + 6 / 4 = 3.5; layer 0: 0
    assert vectors.new_user(torch.tensor([2, 1])).tolist() == pytest.approx([8 / 3])


def test_nobody_gets_a_vector_from_nothing(made):
    vectors, data = made
    for items in ([], [0], [data.token2id("item_id", ONLY_HELD_OUT)]):
        with pytest.raises(
            DataError, match="The new user has no items with a training interaction"
        ):
            vectors.new_user(torch.tensor(items, dtype=torch.long))
    with pytest.raises(DataError, match="The new item has no users"):
        vectors.new_item(torch.tensor([0]))


# --- repeatable, cached ---------------------------------------------------------------------------


def test_same_seed_same_vectors_and_another_seed_others(folder, made):
    vectors, data = made
    torch.manual_seed(1)
    again = make(folder, "two")[0]
    state = torch.rand(2)
    torch.manual_seed(1)
    assert (
        torch.equal(again.users, vectors.users)
        and torch.equal(again.items, vectors.items)
        and torch.equal(state, torch.rand(2))
    )
    assert not torch.equal(make(folder, "two", seed=7)[0].items, vectors.items)


def test_stored_vectors_are_reused_and_every_setting_counts(folder, monkeypatch):
    trained, train = [], TrainingGraph._train
    monkeypatch.setattr(TrainingGraph, "_train", lambda self: trained.append(1) or train(self))
    first = make(folder, "one")[0]
    for change in (
        {},
        {"train_rows": "longest", "epochs": 9},
        {"MAX_ITEM_LIST_LENGTH": 4},
        {"cf_dim": 7},
    ):
        again = make(folder, "one", **change)[0]
        assert all(
            torch.equal(value, vars(again)[name])
            for name, value in vars(first).items()
            if name.endswith(("layers", "degree"))
        )
    assert len(trained) == 1
    changes = [
        {"graph_dim": 5},
        {"graph_layers": 1},
        {"graph_lr": 0.1},
        {"graph_reg": 0.1},
        {"graph_epochs": 1},
        {"graph_batch": 9},
    ]
    for number, change in enumerate(changes, start=2):
        other = make(folder, "one", **change)[0]
        assert len(trained) == number
        assert other.items.shape != first.items.shape or not torch.equal(
            other.items, first.items
        ), change


def test_damaged_vectors_are_refused(folder):
    make(folder, "one")
    next(Path("one").glob(f"graph-*/{META}")).write_text("{")
    with pytest.raises(ArtefactError, match="damaged"):
        make(folder, "one")


def test_validation_and_test_loaders_are_never_read(folder, monkeypatch):
    _, data = make(folder, "one")
    monkeypatch.setattr(FullSortEvalDataLoader, "collate_fn", lambda *_: pytest.fail("read"))
    assert graph_vectors(graph_config(folder, "two"), data, print).items.any()


def test_progress_is_shown_when_asked(folder, capsys):
    make(folder, "one", show_progress=True)
    assert "LightGCN vectors: 100%" in capsys.readouterr().err
    make(folder, "two")
    assert "LightGCN" not in capsys.readouterr().err


# --- ranked as they are ---------------------------------------------------------------------------


def test_dot_and_cosine_are_rows_of_a_table(folder, tmp_path):
    names = ("LightGCNDot", "LightGCNCosine")
    folders = {
        "data_path": folder,
        "cache_dir": tmp_path / "cache",
        "checkpoint_dir": tmp_path / "saved",
    }
    values = {
        **toy.SMALL,
        **SMALL,
        "epochs": 1,
        **{key: str(value) for key, value in folders.items()},
    }
    results = run_recbole_genrec(",".join(names), "toy", config_dict=values)
    rows = outcome(results).markdown().splitlines()[2:4]
    assert [row.split("|")[1].strip() for row in rows] == list(names)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the same vectors
    for name in names:
        config, model, _, train, _, test = load_data_and_model(results[name]["checkpoint"])
        graph = graph_vectors(config, train._dataset, lambda _: None)
        users, items = graph.users, graph.items
        if name == "LightGCNCosine":
            users, items = (
                rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12) for rows in (users, items)
            )
        rows = test._dataset.inter_feat
        expected = users[rows["user_id"]] @ items.T
        expected[:, 0] = -torch.inf
        torch.testing.assert_close(model.full_sort_predict(rows), expected)
        own = expected.gather(1, rows["item_id"].unsqueeze(1))
        torch.testing.assert_close(model.predict(rows), own.squeeze(1))
        assert results[name]["test_result"]["recall@5"] == pytest.approx(
            float(((expected > own).sum(1) < 5).double().mean()), abs=1e-6
        )
        model.user_degree[2] = 0  # as if unknown
        found = model.full_sort_predict(rows)[rows["user_id"] == 2]
        history = rows["item_id_list"][rows["user_id"] == 2][0]
        vector = graph.new_user(history)
        vector = vector / vector.norm() if name == "LightGCNCosine" else vector
        torch.testing.assert_close(found[0, 1:], items[1:] @ vector)


# --- for tokenizers -------------------------------------------------------------------------------


def test_content_gives_the_items_of_the_graph(folder, made):
    vectors, data = made
    config = graph_config(folder)
    content = ItemContent.from_dataset(create_dataset(config), config)
    content.interactions = TrainingInteractions(config, lambda _: None)
    found = content.graph()
    assert found.dtype == np.float32 and content.tokens == [
        str(token) for token in data.field2id_token["item_id"]
    ]
    np.testing.assert_array_equal(found, vectors.items.numpy())
    other = ItemContent.from_dataset(create_dataset(config), config)
    other.interactions = TrainingInteractions(graph_config(folder, graph_lr=0.5), lambda _: None)
    assert (
        other.graph_fingerprint != content.graph_fingerprint
        and other.interactions_fingerprint == content.interactions_fingerprint
    )
    with pytest.raises(DataError, match="content.interactions = TrainingInteractions"):
        ItemContent(["[PAD]", "a"], ["", "soap"]).graph()


# --- vectors made elsewhere -----------------------------------------------------------------------


def write_vectors(folder: Path, root: Path, width: int = 3, **changed: str) -> dict:
    """Files with a vector for every user and item, rows in no order; ``changed`` replaces the
    text of one. The settings that use them.
    """
    ends = [sorted({pair[end] for pair in training_pairs(root)}, reverse=True) for end in (0, 1)]
    for name, tokens in zip(("users", "items"), ends, strict=True):
        lines = [
            f"{token}\t{' '.join(str(len(token) + value) for value in range(width))}"
            for token in tokens
        ]
        (folder / f"{name}.tsv").write_text(
            changed.get(name, "\n".join([*lines, f"elsewhere\t{' '.join('9' * width)}"]) + "\n")
        )
    files = {f"graph_{name[:-1]}_file": str(folder / f"{name}.tsv") for name in ("users", "items")}
    return {**files, "allow_external_cf": True}


def test_external_vectors_are_matched_by_id(folder, made, tmp_path):
    messages = []
    vectors, data = make(folder, "one", messages.append, **write_vectors(tmp_path, folder))
    assert "unchecked" in messages[0] and not Path("one").exists()
    trained = {end for pair in training_pairs(folder) for end in pair}
    for token, vector in by_token(vectors, data).items():
        known = token in trained
        assert vector.tolist() == [(len(token) + value if known else 0) for value in range(3)]
    assert torch.equal(vectors.item_degree, made[0].item_degree) and torch.equal(
        vectors.user_degree, made[0].user_degree
    )
    assert vectors.item_layers.shape == (1, data.item_num, 3)
    with pytest.raises(
        DataError, match="Vectors of a file have no layers, so a new user cannot get one"
    ):
        vectors.new_user(torch.tensor([1]))


def test_external_vectors_count_in_the_fingerprint(folder, tmp_path):
    def fingerprint(width: int) -> str:
        return TrainingInteractions(
            graph_config(folder, **write_vectors(tmp_path, folder, width))
        ).graph_fingerprint

    assert fingerprint(3) == fingerprint(3) != fingerprint(4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"items": "i1\t1 2 3\ni2\t1 2\n"}, "items.tsv, line 2, id 'i2'.*3 finite numbers"),
        ({"users": "u1\t1 2 3\nu1\t1 2 3\n"}, "users.tsv, line 2, id 'u1'.*new id"),
        (
            {"items": "i1\t1 2 3\n"},
            r"items.tsv lacks \d+ of the items in the training split, such as \['i",
        ),
        ({"users": "elsewhere\t1 2 3\n"}, "users.tsv lacks 30 of the users"),
        (
            {"users": "\n".join(f"u{user}\t1 2" for user in range(30))},
            "line 1: the vectors have 2 and 3 numbers",
        ),
    ],
)
def test_a_bad_external_file_is_named_with_its_line(folder, tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        make(folder, **write_vectors(tmp_path, folder, **changed))


def test_external_files_come_together_and_only_when_allowed(folder, tmp_path):
    given = write_vectors(tmp_path, folder)
    with pytest.raises(ConfigError, match=r"graph_user_file: .*allow_external_cf: true"):
        make(folder, **{**given, "allow_external_cf": False})
    with pytest.raises(ConfigError, match="give both or neither"):
        make(folder, **{**given, "graph_item_file": None})
