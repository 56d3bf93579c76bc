"""TokenRec as a whole: prompts from the code tables, ranking, training, new users and items,
users held out, checkpoints, errors.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from toy import TINY_OF, toy_model, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.collaborative.lightgcn_vectors import GraphVectors
from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.ids import raw_ids
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.training.collector import TensorCollector

GRAPH = {"graph_epochs": 60, "graph_lr": 0.02}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def toy(folder, cache):
    """``make(**changes) -> (model, config, loaders)``; stages are shared between tests."""
    return lambda **changes: toy_model(folder, "TokenRec", cache_dir=cache, **{**GRAPH, **changes})


@pytest.fixture(scope="module")
def run(folder, cache, tmp_path_factory):
    """A trained model with users held out, in a folder of its own."""
    saved = str(tmp_path_factory.mktemp("saved"))
    settings = {
        **TINY_OF["TokenRec"],
        **GRAPH,
        "epochs": 6,
        "learning_rate": 0.003,
        "cold_users": 0.2,
    }
    return run_recbole_genrec(
        "TokenRec",
        "toy",
        config_dict={
            **settings,
            "data_path": str(folder),
            "cache_dir": cache,
            "checkpoint_dir": saved,
        },
    )


def batch_of(loaders):
    return next(iter(loaders[2]))[0]


def with_items(batch, items):
    return Interaction({**batch.interaction, "item_id": items})


def prompts_of(model, batch):
    """Token ids and mask that evaluation reads."""
    seen = {}
    source = model.prompts.source

    def recorded(*arguments):
        seen["ids"], seen["mask"] = source(*arguments)
        return seen["ids"], seen["mask"]

    model.prompts.source = recorded
    history, length = model._history(batch)
    with torch.no_grad():
        model.scores(history, length, batch["user_id"])
    model.prompts.source = source
    return seen["ids"], seen["mask"]


# --- prompts --------------------------------------------------------------------------------------


def test_the_prompt_names_user_and_history_in_order_of_time(toy):
    model, _, loaders = toy()
    batch = batch_of(loaders)
    ids, mask = prompts_of(model, batch)
    items = model.codes + model.prompts.first_item
    users = model.user_codes + model.prompts.first_user
    first_code = int(model.prompts.first_item[0])
    for row in range(len(ids)):
        codes = [token for token in ids[row][mask[row]].tolist() if token >= first_code]
        history = batch["item_id_list"][row, : batch["item_length"][row]]
        assert codes == [*users[batch["user_id"][row]].tolist(), *items[history].flatten().tolist()]


def test_codes_are_looked_up_at_every_call(toy):
    model, _, loaders = toy()
    batch = batch_of(loaders)
    before, _ = prompts_of(model, batch)
    a, b = next(
        (a, b)
        for a in range(1, 41)
        for b in range(1, a)
        if not torch.equal(model.codes[a], model.codes[b])
    )
    model.codes[[a, b]] = model.codes[[b, a]]
    after, _ = prompts_of(model, batch)
    has_either = torch.isin(batch["item_id_list"], torch.tensor([a, b])).any(1)
    assert has_either.any() and torch.equal((before != after).any(1), has_either)


def test_only_the_last_whole_items_fit_a_short_source(toy):
    model, _, loaders = toy(source_len=33)
    batch = batch_of(loaders)
    ids, mask = prompts_of(model, batch)
    room = int(model.prompts.room[4])
    assert 1 <= room < int(batch["item_length"].max()) and mask.sum(1).max() <= 33
    row = int(batch["item_length"].argmax())
    codes = ids[row][ids[row] >= model.prompts.first_item[0]][2:]
    last = batch["item_id_list"][row, batch["item_length"][row] - room : batch["item_length"][row]]
    assert codes.tolist() == (model.codes[last] + model.prompts.first_item).flatten().tolist()


def training_prompts(model, loaders, count=1):
    """Decoder-independent view of a training batch: the item tokens of each row, as trained on."""
    batch = loaders[0]._dataset.inter_feat[torch.arange(30)]
    rows, source = [], model.prompts.source

    def recorded(template, user_codes, item_codes, shown):
        rows.append((template, item_codes, shown))
        return source(template, user_codes, item_codes, shown)

    model.prompts.source = recorded
    for _ in range(count):
        model.calculate_loss(batch)
    model.prompts.source = source
    return batch, rows


def test_training_shuffles_the_history_and_draws_templates(toy):
    torch.manual_seed(0)
    model, _, loaders = toy()
    batch, ((template, items, shown), (again, others, shown_again)) = training_prompts(
        model, loaders, 2
    )
    assert not torch.equal(items, others) and not torch.equal(template, again)
    assert set(template.tolist()) <= set(model.prompts.seen) and len(set(template.tolist())) > 5
    for row, length in enumerate(batch["item_length"].tolist()):
        wanted = sorted(model.codes[batch["item_id_list"][row, :length]].tolist())
        assert (
            sorted(items[row][shown[row]].tolist())
            == wanted
            == sorted(others[row][shown_again[row]].tolist())
        )
    model, _, loaders = toy(shuffle_history=False)
    batch, ((_, items, shown),) = training_prompts(model, loaders)
    wide = batch["item_id_list"][:, : items.shape[1]]
    assert torch.equal(items, model.codes[wide]) and torch.equal(shown, wide > 0)


def test_share_of_samples_without_history(toy):
    torch.manual_seed(0)
    model, _, loaders = toy(user_only_prob=0.5)
    _, rows = training_prompts(model, loaders, 20)
    alone = torch.cat(
        [torch.isin(template, torch.tensor(model.prompts.user_only)) for template, *_ in rows]
    )
    assert 0.4 < alone.double().mean() < 0.6
    assert torch.equal(alone, torch.cat([~shown.any(1) for *_, shown in rows]))


def test_evaluation_is_deterministic_and_has_an_unseen_wording(toy):
    model, config, loaders = toy()
    batch = batch_of(loaders)
    torch.manual_seed(0)
    seen = model.full_sort_predict(batch)
    torch.manual_seed(1)
    assert torch.equal(model.full_sort_predict(batch), seen)
    config["eval_prompt"] = "unseen"
    assert not torch.allclose(model.full_sort_predict(batch), seen)


# --- loss and ranking -----------------------------------------------------------------------------


def test_negatives_are_uniform_over_real_items(toy, monkeypatch):
    model, _, loaders = toy()
    drawn = []
    monkeypatch.setattr(
        "recbole_genrec.model.tokenrec.model.cosine_loss",
        lambda projected, positive, negative, gamma: drawn.append(negative) or projected.sum(),
    )
    for _ in range(40):
        model.calculate_loss(loaders[0]._dataset.inter_feat[torch.arange(30)])
    drawn = torch.cat(drawn)
    row = (drawn.unsqueeze(1) == model.vectors).all(-1).double().argmax(1)
    counts = torch.bincount(row, minlength=41)
    assert counts[0] == 0 and (counts[1:] > 0).all() and counts.max() < 3 * 1200 / 40


def test_scores_are_cosines_of_a_dense_pass(toy):
    model, _, loaders = toy()
    batch = batch_of(loaders)
    scores = model.full_sort_predict(batch)
    assert scores.shape == (len(batch), 41) and scores.dtype == torch.float32
    assert (scores[:, 0] == -torch.inf).all() and scores[:, 1:].abs().max() <= 1 + 1e-6
    history, length = model._history(batch)
    template = torch.full_like(length, 4)
    shown = torch.arange(history.shape[1]) < length.unsqueeze(1)
    with torch.no_grad():
        z = model.read_prompts(template, model.user_codes[batch["user_id"]], history, shown)
    expected = torch.stack(
        [torch.cosine_similarity(z, vector.expand_as(z)) for vector in model.vectors[1:]],
        dim=1,
    )
    torch.testing.assert_close(scores[:, 1:], expected, atol=1e-5, rtol=0)


def before_the_rows(loader, batch, hidden):
    """``hidden`` with the items of each user of the test rows, their last one left out."""
    data = loader._dataset
    lines = (Path(data.dataset_path) / "toy.inter").read_text().splitlines()[1:]
    users = data.id2token("user_id", batch["user_id"].numpy())
    for row, user in enumerate(users):
        items = [line.split("\t")[1] for line in lines if line.startswith(f"{user}\t")][:-1]
        hidden[row, data.token2id("item_id", items)] = True
    return hidden


def test_prediction_is_the_column_of_the_full_ranking(toy):
    for mask_history in (False, True):
        model, _, loaders = toy(mask_history=mask_history)
        batch = batch_of(loaders)
        full = model.full_sort_predict(batch)
        items = torch.randint(1, 41, (len(batch),), generator=torch.Generator().manual_seed(0))
        assert torch.equal(
            model.predict(with_items(batch, items)), full.gather(1, items.unsqueeze(1)).squeeze(1)
        )
        hidden = torch.zeros_like(full, dtype=torch.bool)
        hidden[:, 0] = True
        if mask_history:
            hidden = before_the_rows(loaders[2], batch, hidden)
            assert hidden.gather(1, batch["item_id_list"]).all()
        assert torch.equal(full == -torch.inf, hidden)


def test_padding_and_batch_change_no_row(toy):
    model, _, loaders = toy()
    batch = batch_of(loaders)
    together = model.full_sort_predict(batch)
    for row in (0, 7, 30):
        alone = model.full_sort_predict(batch[torch.tensor([row])])
        torch.testing.assert_close(alone[0, 1:], together[row, 1:], atol=1e-5, rtol=0)


def test_equal_codes_do_not_tie_items(toy):
    model, _, loaders = toy()
    pairs = [
        (a, b)
        for a in range(1, 41)
        for b in range(1, a)
        if torch.equal(model.codes[a], model.codes[b])
    ]
    scores = model.full_sort_predict(batch_of(loaders))
    assert pairs, "8 x 8 codes for 40 items collide"
    for a, b in pairs:
        assert (
            not torch.equal(model.vectors[a], model.vectors[b])
            and (scores[:, a] != scores[:, b]).any()
        )


def test_every_parameter_learns_and_the_tables_do_not(toy):
    model, _, loaders = toy()
    assert not {"codes", "user_codes", "user_known", "item_vectors"} & {
        name for name, _ in model.named_parameters()
    }
    model.train()
    model.calculate_loss(next(iter(loaders[0]))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    used = (model.table.grad.abs().sum(1) > 0)[2 : 2 + len(model.prompts.words)]
    assert used.sum() > 30


def test_tokens_start_from_codebooks_of_the_backbones_width(toy):
    model, *_ = toy(code_dim=32, init_token_from_codebook=True)
    book = model.entities.quantisers["users"].network.codebooks[1]
    rows = model.table[int(model.prompts.first_user[1]) :][: len(book)]
    torch.testing.assert_close(
        torch.cosine_similarity(rows, book, dim=1), torch.ones(len(book)), atol=1e-5, rtol=0
    )
    with pytest.raises(ConfigError, match="codes have 8 dimensions, the backbone is 32 wide"):
        toy(init_token_from_codebook=True)


# --- new users and items --------------------------------------------------------------------------


def test_an_unknown_user_is_inferred_from_the_history(toy):
    model, _, loaders = toy()
    batch = batch_of(loaders)
    history, length = model._history(batch)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        scores = model.scores(history, length)
    for row in (0, 5):
        vector = model.entities.graph.new_user(history[row, : length[row]])
        codes = model.entities.quantisers["users"].assign(vector.unsqueeze(0))
        template = torch.full_like(length[:1], 4)
        with torch.no_grad():
            z = model.read_prompts(
                template,
                codes,
                history[row : row + 1, : length[row]],
                torch.ones(1, int(length[row]), dtype=torch.bool),
            )
        expected = torch.cosine_similarity(z, model.vectors[1:])
        torch.testing.assert_close(scores[row, 1:], expected, atol=1e-5, rtol=0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_many_new_users_at_once_equal_one_by_one():
    generator = torch.Generator().manual_seed(0)
    graph = GraphVectors(
        torch.randn(4, 6, 5, generator=generator),
        torch.randn(4, 9, 5, generator=generator),
        torch.arange(6),
        torch.tensor([0, 3, 1, 0, 2, 5, 1, 1, 4]),
    )
    histories = torch.tensor([[1, 2, 4, 0, 0], [5, 5, 3, 8, 0], [6, 0, 0, 0, 0], [3, 0, 0, 0, 0]])
    found = graph.new_users(histories)
    for row, history in enumerate(histories[:3]):
        neighbours = [
            item for item in dict.fromkeys(history.tolist()) if graph.item_degree[item] > 0
        ]
        expected = sum(
            graph.item_layers[layer, item] / (len(neighbours) * graph.item_degree[item]) ** 0.5
            for layer in range(3)
            for item in neighbours
        )
        torch.testing.assert_close(found[row], expected / 4, atol=1e-6, rtol=0)
        torch.testing.assert_close(graph.new_user(history), found[row])
    assert not found[3].any()
    with pytest.raises(DataError, match="no items with a training interaction"):
        graph.new_user(histories[3])


def test_known_users_bring_their_codes_and_others_their_history(toy):
    model, _, _ = toy()
    known = model.recommend(["i3", "i4"], k=5, user="u3")
    new = model.recommend(["i3", "i4"], k=5)
    assert [row["rank"] for row in known] == [1, 2, 3, 4, 5] and "certified" not in known[0]
    assert [row["score"] for row in known] == sorted((row["score"] for row in known), reverse=True)
    assert [row["score"] for row in known] != [row["score"] for row in new]
    assert {row["item"] for row in model.recommend(["i3"], k=5, candidates=["i9", "i2"])} == {
        "i9",
        "i2",
    }
    with pytest.raises(ConfigError, match="no user 'nobody'"):
        model.recommend(["i3"], user="nobody")
    with pytest.raises(ConfigError, match="history is empty"):
        model.recommend([])


def test_new_items_by_vector_or_by_users(toy):
    model, _, loaders = toy()
    batch = batch_of(loaders)
    before, state = (
        model.full_sort_predict(batch),
        {name: value.clone() for name, value in model.named_parameters()},
    )
    twin = model.vectors[7:8].clone()
    assert model.add_items(["a copy"], ["copy"], vectors=twin) == [41]
    with pytest.raises(ConfigError, match="users must hold a list of user ids for each new item"):
        model.add_items(["bought by two"], ["pair"], users=["u1"])
    assert model.add_items(["bought by two"], ["pair"], users=[["u1", "u2"]]) == [42]
    after = model.full_sort_predict(batch)
    assert (
        torch.equal(after[:, :41], before)
        and torch.equal(after[:, 41], after[:, 7])
        and torch.equal(model.codes[41], model.codes[7])
    )
    users = torch.tensor([model.user_tokens.index("u1"), model.user_tokens.index("u2")])
    assert torch.equal(model.vectors[42], model.entities.graph.new_item(users))
    assert all(torch.equal(value, state[name]) for name, value in model.named_parameters())
    assert {
        row["item"] for row in model.recommend(["copy", "i3"], k=2, candidates=["pair", "copy"])
    } == {"pair", "copy"}
    with pytest.raises(DataError, match="no items with a training interaction"):
        model.recommend(["copy"])
    with pytest.raises(ConfigError, match="Item 'copy' exists already"):
        model.add_items(["again"], ["copy"], vectors=twin)


def test_new_items_of_the_data_need_a_user_who_was_in_training(toy, caplog):
    model, *_ = toy()
    users = [["stranger"], ["stranger", "u1"]]
    assert model.take_in(["", ""], ["alone", "known"], ["", ""], users) == ["alone"]
    assert model.item_tokens[-1] == "known" and model.n_items == 42
    assert "for example 'alone': no user who was in training chose them" in caplog.text


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({}, ConfigError, "Item 'x' has no collaborative vector"),
        (
            {"vectors": torch.ones(2, 16)},
            ConfigError,
            r"1 new items, but vectors of shape \[2, 16\]",
        ),
        ({"vectors": torch.ones(1, 15)}, ConfigError, r"shape \[1, 15\].*vectors of 16 numbers"),
        ({"vectors": torch.zeros(1, 16)}, DataError, "vector of item 'x' is zero"),
        ({"vectors": torch.full((1, 16), torch.nan)}, DataError, "vector of item 'x'"),
        ({"users": [["u1"], ["u2"]]}, ConfigError, "1 new items, but 2 lists of users"),
        ({"users": [["u99"]]}, ConfigError, "no user 'u99'"),
        ({"users": [[]]}, DataError, "no users with a training interaction"),
        (
            {"users": [["u1"]], "vectors": torch.ones(1, 16)},
            ConfigError,
            "either vectors, or users",
        ),
    ],
)
def test_items_without_a_usable_vector(toy, more, error, message):
    model, *_ = toy()
    with pytest.raises(error, match=message):
        model.add_items(["x"], ["x"], **more)
    assert len(model.codes) == len(model.vectors) == model.n_items == 41


def test_as_released_there_is_no_propagation_and_nobody_is_new(toy):
    model, *_ = toy(official_compat=True)
    published, *_ = toy()
    layers = published.entities.graph.item_layers
    assert torch.equal(model.vectors, layers[0]) and torch.equal(published.vectors, layers.mean(0))
    assert len(model.recommend(["i3"], k=3, user="u3")) == 3
    with pytest.raises(DataError, match="nor have those of official_compat"):
        model.recommend(["i3"], k=3)


def test_a_user_without_own_embedding_lands_near_the_trained_one(toy):
    """Propagation from the training items alone, against the vector that LightGCN trained."""
    model, _, loaders = toy()
    graph, rows = model.entities.graph, loaders[0]._dataset.inter_feat
    for user in (2, 9, 33):
        own = rows["user_id"] == user
        items = torch.cat([rows["item_id"][own], rows["item_id_list"][own].flatten()]).unique()
        assert torch.cosine_similarity(graph.new_user(items), graph.users[user], dim=0) > 0.5


# --- users held out -------------------------------------------------------------------------------


def test_held_out_users_leave_training_and_stay_in_the_test(folder, cache, toy):
    whole = toy()[2]
    model, config, loaders = toy(cold_users=0.2)
    all_users = set(whole[2]._dataset.inter_feat["user_id"].tolist())
    trained = set(loaders[0]._dataset.inter_feat["user_id"].tolist())
    held = all_users - trained
    assert len(held) == 12 and trained < all_users
    for before, after in zip(whole[1:], loaders[1:], strict=True):
        assert torch.equal(
            before._dataset.inter_feat["user_id"], after._dataset.inter_feat["user_id"]
        )
    assert set((~model.user_known).nonzero().flatten().tolist()) == held | {0}
    assert not model.entities.graph.users[sorted(held)].any()
    pairs = {
        (int(u), int(i))
        for u, i in zip(
            *(loaders[0]._dataset.inter_feat[f] for f in ("user_id", "item_id")), strict=True
        )
    }
    assert int(model.entities.graph.user_degree.sum()) >= len(pairs)
    again = toy(cold_users=0.2)[2][0]._dataset.inter_feat["user_id"]
    other = toy(cold_users=0.2, seed=1)[2][0]._dataset.inter_feat["user_id"]
    assert set(again.tolist()) == trained != set(other.tolist())
    with pytest.raises(ConfigError, match="Pop knows users by their ids alone"):
        run_recbole_genrec(
            "Pop",
            "toy",
            config_dict={
                "data_path": str(folder),
                "cold_users": 0.1,
                "gpu_id": "",
                "topk": [5],
                "valid_metric": "NDCG@5",
            },
        )


def test_seen_and_unseen_stand_side_by_side(run):
    seen, unseen = run["test_by_user"]["seen"], run["test_by_user"]["unseen"]
    assert (seen["users"], unseen["users"]) == (48, 12)
    for metric, value in run["test_result"].items():
        assert value == pytest.approx((48 * seen[metric] + 12 * unseen[metric]) / 60, abs=2e-6)


# --- training, checkpoints, reports ---------------------------------------------------------------


def test_training_beats_chance_by_far(run):
    assert run["test_result"]["recall@5"] > 3 * 5 / 40
    first, last = run["epochs"][0]["loss"][0], run["epochs"][-1]["loss"][0]
    assert last < 0.75 * first


def test_the_result_claims_no_search(run):
    report = json.loads(Path(run["checkpoint"]).with_suffix(".json").read_text())["report"]
    assert set(report) == {"tokenizer", "user_tokenizer"}
    assert [level["size"] for level in report["tokenizer"]["levels"]] == [8, 8] and report[
        "user_tokenizer"
    ]["before"]["items"] == 60
    assert "search" not in GenRecConfig("TokenRec", "ml-100k").model_class.describe(
        GenRecConfig("TokenRec", "ml-100k")
    )
    assert (
        GenRecConfig("TokenRec", "ml-100k", config_dict={"topk": [10, 100]})["beam_width"] < 100
    ), "there is no beam that could be too narrow"


def test_the_checkpoint_alone_restores_everything(run, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a stage ran again")

    for name in ("graph_vectors", "fit_or_load"):
        monkeypatch.setattr(f"recbole_genrec.model.tokenrec.entities.{name}", refuse)
    _, model, *_, test = load_data_and_model(run["checkpoint"], cache_dir="nowhere")
    twin = load_data_and_model(run["checkpoint"], cache_dir="nowhere")[1]
    batch = next(iter(test))[0]
    assert torch.equal(model.full_sort_predict(batch), twin.full_sort_predict(batch))
    model.add_items(["new"], ["n1"], users=[["u1", "u5"]])
    model.save("more.pth")
    again = load_data_and_model("more.pth", cache_dir="nowhere")[1]
    assert (
        torch.equal(again.full_sort_predict(batch), model.full_sort_predict(batch))
        and again.item_tokens[-1] == "n1"
    )
    assert not Path("nowhere").exists()


def test_a_fresh_process_gives_the_same_scores(run, folder, capsys):
    assert main(["recommend", "--checkpoint", run["checkpoint"], "--user", "u3", "--top", "4"]) == 0
    here = capsys.readouterr().out.splitlines()[-4:]
    command = [
        sys.executable,
        "-m",
        "recbole_genrec.cli",
        "recommend",
        "--checkpoint",
        run["checkpoint"],
        "--user",
        "u3",
        "--top",
        "4",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4:] == here and "certified" not in done.stdout


def test_rows_follow_raw_ids(run, folder, tmp_path):
    """The same data in another order of lines has other internal ids, and a user more; scores by
    raw id stay.
    """
    lines = (folder / "toy" / "toy.inter").read_text().splitlines()
    other = tmp_path / "other" / "toy"
    other.mkdir(parents=True)
    more = [f"late\ti{item}\t{step}" for step, item in enumerate((4, 5, 6, 7))]
    (other / "toy.inter").write_text("\n".join([lines[0], *more, *reversed(lines[1:])]) + "\n")
    (other / "toy.item").write_text((folder / "toy" / "toy.item").read_text())
    here = load_data_and_model(run["checkpoint"])[1]
    there = load_data_and_model(run["checkpoint"], data_path=str(other.parent))[1]
    config = GenRecConfig("SASRec", "toy", config_dict={"data_path": str(other.parent)})
    assert raw_ids(create_dataset(config))["items"] != here.item_tokens == there.item_tokens
    for user in ("u3", "u9", None):
        before, after = (model.recommend(["i3", "i7"], k=6, user=user) for model in (here, there))
        assert [row["item"] for row in before] == [row["item"] for row in after]
        assert [row["score"] for row in before] == pytest.approx(
            [row["score"] for row in after], abs=1e-6
        )
    assert [row["score"] for row in there.recommend(["i3"], user="late")] == [
        row["score"] for row in there.recommend(["i3"])
    ]


def test_the_stock_trainer_works(toy, caplog):
    model, config, (train, valid, test) = toy(epochs=1)
    trainer = Trainer(config, model)
    trainer.eval_collector = TensorCollector(config)
    trainer.fit(train, valid, saved=False)
    assert trainer.evaluate(test, load_best_model=False)["recall@10"] > 0
    assert "Another trainer than GenRecTrainer" in caplog.text


def test_a_pretrained_backbone_brings_its_words(toy, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from recbole_genrec.backbone import load_encoder_decoder

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "the": 3, "user": 4, "item": 5, "history": 6}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )  # as T5's
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "t5")
    shape = {
        **TINY_OF["TokenRec"]["backbone_config"],
        "vocab_size": 7,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    lm = load_encoder_decoder("scratch", shape)
    lm.save_pretrained(tmp_path / "t5")
    model, _, loaders = toy(backbone=str(tmp_path / "t5"))
    assert set(model.prompts.words) == {2, 3, 4, 5, 6}
    rows = lm.get_input_embeddings().weight
    torch.testing.assert_close(model.table[:7], rows[[0, 1, *model.prompts.words]])
    torch.testing.assert_close(
        model.backbone.encoder.block[0].layer[1].DenseReluDense.wi.weight,
        lm.encoder.block[0].layer[1].DenseReluDense.wi.weight,
    )
    assert model.full_sort_predict(batch_of(loaders)).shape == (60, 41)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_sizes": [6]}, "can name 6 items, but there are 40"),
        ({"codebook_sizes": [7, 7]}, "can name 49 users"),
        ({"tokenizer": "rkmeans"}, "tokenizer"),
        ({"collision": ["extra_token"]}, "collision"),
        ({"eval_prompt": "sen"}, "Did you mean seen"),
        ({"gamma": 2}, "gamma"),
        ({"cold_users": 1.5}, "cold_users"),
        ({"source_len": 20}, "source_len 20 leaves no room"),
        ({"beam_widht": 3}, "Unknown key"),
    ],
)
def test_settings_that_cannot_work(toy, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy(**changes)


def test_published_settings_are_one_switch():
    config = GenRecConfig("TokenRec", "ml-100k", config_dict={"preset": "paper", "gpu_id": ""})
    assert (
        config["code_dim"],
        config["tokenizer_epochs"],
        config["learning_rate"],
        config["source_len"],
    ) == (512, 1000, 5e-5, 512)
    assert config["codebook_sizes"] == "auto"
