"""What holds for every generator: search against exact scoring, padding, batches, checkpoints,
new items, resume.
"""

from __future__ import annotations

import pytest
import torch
from recbole.data.interaction import Interaction
from toy import TINY_OF, toy_model, write_dataset

from recbole_genrec.decoding import exact_scores
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model, recommend
from recbole_genrec.training.resume import ResumePoints

CASES = [
    ("STORE", {}),
    ("TIGER", {}),
    ("TIGER", {"n_user_tokens": 7, "use_eos": True, "score_eos": True, "score_type": "joint"}),
    ("TIGER", {"score_type": "level", "infer_temperature": 0.7}),
    ("LETTER", {}),
    ("LCRec", {}),
    (
        "LCRec",
        {
            "tasks": ["seqrec"],
            "train_rows": "all",
            "score_type": "joint",
            "sid_loss_vocab": "sid",
            "temperature": 0.7,
        },
    ),
    ("TimelineRec", {}),
    ("TimelineRec", {"depth": "transformer", "input_text": True, "tie_code_tables": True}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([case[0], *case[1]]))
def case(request, folder, tmp_path_factory):
    name, changes = request.param
    torch.manual_seed(3)
    return (
        name,
        changes,
        *toy_model(folder, name, cache_dir=str(tmp_path_factory.mktemp("cache")), **changes),
    )


def batch_of(loaders):
    return next(iter(loaders[2]))[0]


def decoder_of(model, batch):
    return model.item_logits(*model._history(batch), **model._user(batch))


def test_a_wide_beam_is_exact_and_prediction_agrees(case):
    *_, model, config, loaders = case
    batch = batch_of(loaders)
    with torch.no_grad():
        exact = exact_scores(decoder_of(model, batch), model.trie, score_type=config["score_type"])
        config["beam_width"] = model.n_items
        full = model.full_sort_predict(batch)
        config["beam_width"] = 20
        item = torch.randint(1, model.n_items, (len(exact),))
        score = model.predict(Interaction({**batch.interaction, "item_id": item}))
    torch.testing.assert_close(full[:, 1:], exact[:, 1:], atol=1e-5, rtol=0)
    assert torch.equal(
        full[:, 1:].argsort(1, descending=True), exact[:, 1:].argsort(1, descending=True)
    )
    torch.testing.assert_close(
        score, exact.gather(1, item.unsqueeze(1)).squeeze(1), atol=1e-5, rtol=0
    )
    if config["score_type"] == "renormalised":
        torch.testing.assert_close(
            exact[:, 1:].logsumexp(1), torch.zeros(len(exact)), atol=1e-4, rtol=0
        )


def test_scores_depend_neither_on_batch_nor_on_padding(case):
    *_, model, config, loaders = case
    batch = batch_of(loaders)
    history, length = model._history(batch)
    padded = torch.nn.functional.pad(history, (0, model.max_seq_length - history.shape[1]))
    with torch.no_grad():
        together = model.search(history, length, fill=True, **model._user(batch)).full
        for rows in (slice(0, 1), slice(3, 10)):
            user = {name: value[rows] for name, value in model._user(batch).items()}
            alone = model.search(padded[rows], length[rows], fill=True, **user).full
            torch.testing.assert_close(alone, together[rows], atol=1e-5, rtol=0)


def test_padding_gets_no_loss_and_every_parameter_learns(case):
    name, _, model, config, loaders = case
    batch = batch_of(loaders)
    history, length = model._history(batch)
    target = batch["item_id"]
    torch.manual_seed(0)
    model.on_epoch_start(0)  # LCRec draws templates and tasks of its own
    loss = model.loss(history, length, target, **model._user(batch))
    wide = torch.nn.functional.pad(history, (0, model.max_seq_length - history.shape[1]))
    torch.manual_seed(0)
    model.on_epoch_start(0)  # LCRec draws templates and tasks of its own
    again = model.loss(wide, length, target, **model._user(batch))
    total = sum(loss) if isinstance(loss, tuple) else loss
    torch.testing.assert_close(
        sum(again) if isinstance(again, tuple) else again, total, atol=1e-5, rtol=0
    )
    model.zero_grad()
    total.backward()
    assert [
        name for name, p in model.named_parameters() if p.requires_grad and p.grad is None
    ] == []


def test_a_checkpoint_needs_no_folder_of_codes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy_model(folder, "TimelineRec")[0].item_codes.save("mine")
    settings = {
        **TINY_OF["TimelineRec"],
        "tokenizer": "mine",
        "data_path": str(folder),
        "checkpoint_dir": str(tmp_path / "saved"),
    }
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=settings)
    before = recommend(result["checkpoint"], history=["i1", "i2"])
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    assert recommend(result["checkpoint"], history=["i1", "i2"]) == before


def test_items_of_equal_codes_are_ranked_by_training_interactions(folder):
    model, _, loaders = toy_model(
        folder,
        "TIGER",
        tokenizer="random",
        codebook_sizes=[2, 2],
        collision=["none"],
        beam_width=10,
    )
    rows = loaders[0]._dataset.inter_feat
    counts = torch.bincount(rows["item_id"], minlength=41)
    for user in rows["user_id"].unique():  # the first item of a user is no target
        counts[rows["item_id_list"][rows["user_id"] == user][0, 0]] += 1
    assert torch.equal(model.popularity(), counts)
    ranked = [
        (row["score"], tuple(model.codes[number].tolist()), -int(counts[number]), number)
        for row in model.recommend(["i1"], k=40)
        for number in [model.item_tokens.index(row["item"])]
    ]
    assert len({codes for _, codes, *_ in ranked}) <= 4
    for codes in {codes for _, codes, *_ in ranked}:
        leaf = [row[2:] for row in ranked if row[1] == codes]
        assert leaf == sorted(leaf) and len(leaf) > 1


def test_a_new_item_without_text_is_read_as_one_of_the_catalogue(folder):
    model = toy_model(folder, "TimelineRec")[0]
    first, second = model.add_items([" ", "item"])
    assert model.content.text[first] == "item" and torch.equal(
        model.codes[first, :2], model.codes[second, :2]
    )


def test_a_trained_model_comes_back_and_takes_new_items(folder, case, tmp_path):
    name, changes, *_ = case
    settings = {
        **TINY_OF[name],
        **changes,
        "data_path": str(folder),
        "checkpoint_dir": str(tmp_path),
        "cache_dir": str(tmp_path),
    }
    result = run_recbole_genrec(name, "toy", config_dict=settings)
    assert all(0 <= value <= 1 for value in result["test_result"].values())
    _, model, _, _, _, test = load_data_and_model(result["checkpoint"])
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)
    twin = load_data_and_model(result["checkpoint"])[1]
    torch.testing.assert_close(twin.full_sort_predict(batch), before, atol=0, rtol=0)
    added = model.add_items(["title: sweet cream no 77, brand: brand1"], ["n77"])
    assert added == [41] and model.full_sort_predict(batch).shape[1] == 42
    ranked = model.recommend(["i1", "n77"], k=5, candidates=["n77", "i3"])
    assert {row["item"] for row in ranked} == {"n77", "i3"}
    model.save(str(tmp_path / "more.pth"))
    again = load_data_and_model(str(tmp_path / "more.pth"))[1]
    torch.testing.assert_close(
        again.full_sort_predict(batch), model.full_sort_predict(batch), atol=1e-6, rtol=0
    )


def test_an_interrupted_run_ends_like_an_uninterrupted_one(folder, case, tmp_path, monkeypatch):
    name, changes, *_ = case
    settings = {**TINY_OF[name], **changes, "data_path": str(folder), "cache_dir": str(tmp_path)}
    whole = run_recbole_genrec(
        name, "toy", config_dict={**settings, "checkpoint_dir": str(tmp_path / "a")}
    )
    saving = ResumePoints.save

    def save_then_stop(self, epoch, *inside):
        saving(self, epoch, *inside)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResumePoints, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run_recbole_genrec(
            name, "toy", config_dict={**settings, "checkpoint_dir": str(tmp_path / "b")}
        )
    monkeypatch.undo()
    resumed = run_recbole_genrec(
        name, "toy", config_dict={**settings, "checkpoint_dir": str(tmp_path / "b"), "resume": True}
    )
    assert resumed["test_result"] == whole["test_result"]
