"""``valid_metric: loss``: the loss on the validation split, by search and by hand, and its use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lcrec import FAMILIES, ByHand
from toy import TINY_OF, toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import ArtefactError, ConfigError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.report.best import best_epoch
from recbole_genrec.training import evaluation
from recbole_genrec.training.trainer import GenRecTrainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def made(folder, cache):
    def make(model, **changes):
        changes = {"valid_metric": "loss", "cache_dir": cache, **changes}
        return toy_model(folder, model, **changes)

    return make


def measured(model, config, loaders):
    trainer = GenRecTrainer(config, model)
    trainer.history.append({"epoch": 0, "loss": [0.0]})
    score, result = trainer._valid_epoch(loaders[1])
    assert result == trainer.history[-1]["valid"] == {"loss": score}
    return score


def validation_rows(loaders):
    rows = loaders[1]._dataset.inter_feat
    return rows[torch.arange(len(rows))]


BY_SEARCH = {
    "STORE": ("STORE", {"train_rows": "longest"}),
    "STORE, one target": ("STORE", {"loss_positions": "target", "train_rows": "all"}),
    "TIGER": ("TIGER", {"use_eos": False}),
    "TIGER, small batches": ("TIGER", {"use_eos": False, "train_batch_size": 7}),
    "TimelineRec": ("TimelineRec", {"train_rows": "windows"}),
}


@pytest.mark.parametrize("name", BY_SEARCH)
def test_it_is_the_likelihood_that_the_search_gives_the_targets(made, name):
    kind, changes = BY_SEARCH[name]
    score_type = "renormalised" if kind == "TimelineRec" else "joint"
    model, config, loaders = made(kind, score_type=score_type, **changes)
    expected = -float(model.predict(validation_rows(loaders)).mean())
    if kind != "TimelineRec":  # the mean over codes
        expected /= model.codes.shape[1]
    assert measured(model, config, loaders) == pytest.approx(expected, abs=1e-5)


def test_of_lcrec_each_user_is_read_under_two_of_the_tested_templates(made):
    model, config, loaders = made(
        "LCRec", test_prompt_ids="all", backbone_config=FAMILIES["untied"], train_rows="windows"
    )
    hand = ByHand(model)
    rows = validation_rows(loaders)
    count = len(model.test_prompts)
    head = torch.cat([model.backbone.lm.lm_head.weight, model.vocabulary.classifier])
    losses = []
    for row in range(len(rows)):
        history = rows["item_id_list"][row, : rows["item_length"][row]].tolist()
        user = int(rows["user_id"][row])
        for number in (user % count, (user + count // 2) % count):
            prompt, response = hand.sequence("seqrec", number, int(rows["item_id"][row]), history)
            embedded = model.text_and_codes.embed(torch.tensor([prompt + response]))
            states = model.backbone.lm.model(inputs_embeds=embedded).last_hidden_state[0]
            log_probs = (states[len(prompt) - 1 : -1] @ head.T).log_softmax(-1)
            losses += (-log_probs[torch.arange(len(response)), response]).tolist()
    assert measured(model, config, loaders) == pytest.approx(float(np.mean(losses)), abs=1e-4)


@pytest.mark.parametrize("competing", ["full", "sampled"])
def test_of_setrec_it_is_the_cross_entropy_among_all_items(made, competing):
    changes = {"setrec_ce": competing, "n_sem": 0, "setrec_negatives": 5}
    model, config, loaders = made("SETRec", **changes)
    rows = validation_rows(loaders)
    scores = model.full_sort_predict(rows)[:, 1:].double()
    expected = torch.nn.functional.cross_entropy(scores, rows["item_id"] - 1)
    assert measured(model, config, loaders) == pytest.approx(float(expected), abs=1e-5)


def test_of_tokenrec_the_drawn_items_stay_the_same(made):
    model, config, loaders = made("TokenRec", gamma=0.1)
    rows = validation_rows(loaders)
    cosines = model.full_sort_predict(rows).numpy()
    every = np.arange(len(rows))
    generator = torch.Generator().manual_seed(config["seed"])
    drawn = torch.randint(1, model.n_items, (len(model.user_codes),), generator=generator)
    negative = drawn.numpy()[rows["user_id"].numpy()]
    near = 1 - cosines[every, rows["item_id"].numpy()]
    far = np.maximum(0, cosines[every, negative] - 0.1)
    first = measured(model, config, loaders)
    assert first == pytest.approx((near + far).mean() / 2, abs=1e-5)
    assert measured(model, config, loaders) == first


def test_of_metaid_it_is_the_sequential_task(made):
    alone, config, loaders = made("MetaID", direct_weight=0.0)
    expected = measured(alone, config, loaders)
    both, config, loaders = made("MetaID", direct_weight=1.0)
    both.load_state_dict(alone.state_dict())
    assert measured(both, config, loaders) == expected


@pytest.mark.parametrize("name", ["LETTER", "LMIndexer"])
def test_other_methods_take_their_training_loss(made, name):
    model, config, loaders = made(name)
    rows = validation_rows(loaders)
    with torch.no_grad():
        target = rows["item_id"]
        expected = model.loss(rows["item_id_list"], rows["item_length"], target)
    assert measured(model, config, loaders) == pytest.approx(float(expected), abs=1e-5)


def test_dropout_is_off_and_random_states_stay(made):
    t5 = {**TINY_OF["TIGER"]["backbone_config"], "dropout_rate": 0.5}
    model, config, loaders = made("TIGER", backbone_config=t5)
    state = torch.get_rng_state()
    model.train()
    first = measured(model, config, loaders)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert measured(model, config, loaders) == first


# --- what follows from it -------------------------------------------------------------------------


def run(folder, cache, model="TIGER", **changes):
    values = {**TINY_OF[model], "data_path": str(folder), "cache_dir": cache}
    values |= {"valid_metric": "loss", "eval_step": 1, "learning_rate": 0.05, "epochs": 12}
    return run_recbole_genrec(model, "toy", config_dict={**values, **changes})


def losses_of(result):
    return [epoch["valid"]["loss"] for epoch in result["epochs"]]


def test_the_epoch_with_the_lowest_loss_is_tested_and_ends_the_training(folder, cache):
    result = run(folder, cache, stopping_step=1, learning_rate=0.5, lr_scheduler="constant")
    losses = losses_of(result)
    best = int(np.argmin(losses))
    assert result["valid_score_bigger"] is False
    assert result["best_valid_score"] == losses[best] == result["best_valid_result"]["loss"]
    assert best_epoch(result) == best + 1 < len(losses) < 12  # it stopped early
    assert len(losses) == best + 3  # RecBole stops after more than stopping_step


def test_a_stopped_run_goes_on_with_the_same_losses(folder, cache, monkeypatch):
    whole = run(folder, cache, epochs=4, checkpoint_dir="whole")
    step = GenRecTrainer._optimiser_step
    calls = []

    class Killed(BaseException):
        pass

    def killed(self):
        calls.append(0)
        if len(calls) == 25:
            raise Killed
        step(self)

    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", killed)
    with pytest.raises(Killed):
        run(folder, cache, epochs=4, checkpoint_dir="cut")
    monkeypatch.undo()
    resumed = run(folder, cache, epochs=4, checkpoint_dir="cut", resume=True)
    assert losses_of(resumed) == losses_of(whole)
    assert resumed["test_result"] == whole["test_result"]


def test_setrec_chooses_beta_by_its_lists(folder, cache):
    result = run(folder, cache, "SETRec", beta="auto", epochs=1, learning_rate=0.003)
    figures = result["report"]["beta_figures"]
    assert figures and max(figures.values()) == figures[f"{result['report']['beta']:g}"]


def test_recboles_models_have_no_such_loss(folder):
    values = {"data_path": str(folder), "valid_metric": "Loss", "gpu_id": ""}
    with pytest.raises(ConfigError, match=r"--LETTER\.valid_metric=loss"):
        GenRecConfig("SASRec", "toy", config_dict=values)
    values["valid_metric"] = "lost"
    with pytest.raises(ConfigError, match="at one of topk .*, or loss"):
        GenRecConfig("TIGER", "toy", config_dict={**TINY_OF["TIGER"], **values})


def test_two_processes_find_the_loss_of_one(folder, cache):
    changes = {"tokenizer": "random", "group_by_length": False, "epochs": 1, "learning_rate": 0.01}
    one = run(folder, cache, "TimelineRec", checkpoint_dir="one", **changes)
    two = run(folder, cache, "TimelineRec", checkpoint_dir="two", nproc=2, **changes)
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-4)


# --- scores that are not numbers ------------------------------------------------------------------


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_stops_the_run(folder, monkeypatch, score):
    options = {**TINY_OF["TIGER"], "data_path": str(folder), "tokenizer": "random", "epochs": 1}
    options |= {"valid_metric": "loss"}
    run_recbole_genrec("TIGER", "toy", config_dict=options)
    monkeypatch.setattr(evaluation, "validation_loss", lambda *_: score)
    message = f"validation score is {score}: the weights of the model went wrong"
    with pytest.raises(GenRecError, match=message):
        run_recbole_genrec("TIGER", "toy", config_dict=options)


def test_the_checkpoint_of_an_earlier_training_is_not_tested(folder):
    options = {"tokenizer": "random", "epochs": 1}
    model, config, (train, valid, test) = toy_model(folder, "TIGER", **options)
    trainer = GenRecTrainer(config, model)
    trainer.fit(train, valid, saved=True)
    assert trainer.evaluate(test)
    again = GenRecTrainer(config, model)
    assert again.evaluate(test), "nothing was trained here"
    again.fit(train, valid, saved=False)
    with pytest.raises(ArtefactError, match="This training has written no checkpoint; .*pth"):
        again.evaluate(test)
