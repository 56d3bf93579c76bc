"""SETRec as a whole: ranking, beta, training, cold and new items, checkpoints, backbones."""

from __future__ import annotations

import json

import pytest
import torch
from language_models import save_base
from recbole.data.interaction import Interaction
from toy import TINY_LLAMA, TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.errors import BackboneError, ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, load_data_and_model
from recbole_genrec.model.setrec.model import SETRec
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.trainer import GenRecTrainer

CLOSE = {"atol": 1e-5, "rtol": 0}
LLAMA = {"backbone_config": TINY_LLAMA}
BACKBONES = {"t5": {}, "llama": LLAMA}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def toy(folder, cache):
    """``make(**changes) -> (model, config, loaders)``."""
    return lambda **changes: toy_model(folder, "SETRec", cache_dir=cache, **changes)


def train(folder, cache, checkpoint_dir="saved", **changes):
    values = {**TINY_OF["SETRec"], "data_path": str(folder), "cache_dir": cache, "epochs": 4}
    values |= {"learning_rate": 0.003, "checkpoint_dir": str(checkpoint_dir), **changes}
    return run_recbole_genrec("SETRec", "toy", config_dict=values)


@pytest.fixture(scope="module")
def run(folder, cache, tmp_path_factory):
    """A trained model."""
    return train(folder, cache, tmp_path_factory.mktemp("saved"))


def batch_of(loaders):
    return next(iter(loaders[2]))[0]


def training_batch(loaders):
    return next(iter(loaders[0]))


# --- ranking --------------------------------------------------------------------------------------


@torch.no_grad()
def components(model, batch):
    """Scores of each token ``[B, Q, n]`` by one pass a user and plain inner products."""
    history, length = batch["item_id_list"], batch["item_length"]
    tokens = model.all_tokens()
    rows = []
    for row, count in enumerate(length.tolist()):
        states = model.reader(tokens[history[row : row + 1, :count]], length[row : row + 1])[0]
        rows.append(torch.stack([tokens[:, k] @ states[k] for k in range(len(states))]))
    return torch.stack(rows)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_scores_are_the_weighted_sum_of_inner_products(toy, backbone):
    model, config, loaders = toy(**BACKBONES[backbone])
    batch = batch_of(loaders)
    parts = components(model, batch)
    for beta in (0.0, 0.3, 1.0):
        config["beta"] = beta
        scores = model.full_sort_predict(batch)
        expected = (1 - beta) * parts[:, 0] + beta * parts[:, 1:].sum(1)
        assert scores.shape == (len(batch), model.n_items)
        assert (scores[:, 0] == -torch.inf).all()
        torch.testing.assert_close(scores[:, 1:], expected[:, 1:], **CLOSE)
    items = torch.arange(len(batch)) % (model.n_items - 1) + 1
    chosen = Interaction({**batch.interaction, "item_id": items})
    picked = scores.gather(1, items.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(model.predict(chosen), picked, **CLOSE)


def test_scores_on_one_scale(toy):
    model, config, loaders = toy(beta=0.4)
    batch = batch_of(loaders)
    parts = components(model, batch)[..., 1:]
    scaled = {
        "zscore": (parts - parts.mean(2, keepdim=True)) / parts.std(2, keepdim=True),
        "logsoftmax": parts.log_softmax(2),
    }
    for norm, values in scaled.items():
        config["score_norm"] = norm
        expected = 0.6 * values[:, 0] + 0.4 * values[:, 1:].sum(1)
        scores = model.full_sort_predict(batch)[:, 1:]
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_order_of_tokens_inside_items_does_not_matter(toy, backbone, monkeypatch):
    """The ablation of the paper: the history is read with the tokens of each item permuted."""
    model, _, loaders = toy(**BACKBONES[backbone])
    batch = batch_of(loaders)
    scores = model.full_sort_predict(batch)
    read = model.reader.source

    def permuted(items, length):
        order = torch.rand(items.shape[:3]).argsort(2).unsqueeze(3)
        return read(items.gather(2, order.expand_as(items)), length)

    monkeypatch.setattr(model.reader, "source", permuted)
    torch.testing.assert_close(model.full_sort_predict(batch), scores, **CLOSE)


@pytest.mark.parametrize("changes", [{"n_sem": 0}, {"n_cf": 0}])
def test_one_kind_of_token_alone(folder, cache, changes):
    """The ablations CF only and semantic only; there is no beta to choose."""
    result = train(folder, cache, epochs=2, **changes)
    assert result["report"]["beta_figures"] == {}
    model = load_data_and_model(result["checkpoint"]).model
    assert model.reader.n_tokens == (1 if "n_sem" in changes else 2)
    assert result["test_result"]["recall@10"] > 10 / 40


# --- training -------------------------------------------------------------------------------------


def test_it_learns_and_says_how(run):
    losses = [epoch["loss"] for epoch in run["epochs"]]
    assert losses[-1][0] < losses[0][0] and losses[-1][1] < losses[0][1]
    assert run["test_result"]["recall@10"] > 2 * 10 / 40  # chance
    assert run["report"]["item_tokens"] == {"cf": 1, "semantic": 2}


def test_losses_are_those_of_the_batch(toy):
    """L_gen and alpha * L_AE from the formulas, user by user."""
    model, config, loaders = toy(alpha=0.3)
    batch = training_batch(loaders)
    generation, reconstruction = model.calculate_loss(batch)
    parts = components(model, batch)[..., 1:]
    target = batch["item_id"] - 1
    expected = -parts.log_softmax(2)[torch.arange(len(target)), :, target].mean()
    torch.testing.assert_close(generation, expected, **CLOSE)
    history = batch["item_id_list"]
    texts = model.text_vectors[history[history > 0]]
    network = model.tokens.auto_encoder
    rebuilt = network.decoder(network.encoder(texts))
    torch.testing.assert_close(reconstruction, 0.3 * ((rebuilt - texts) ** 2).mean(), **CLOSE)


def test_what_trains(toy):
    model, config, loaders = toy()
    before = model.cf_vectors.clone()
    trainer = GenRecTrainer(config, model)
    model.train()
    sum(model.calculate_loss(training_batch(loaders))).backward()
    trainer._optimiser_step()
    assert torch.equal(model.cf_vectors, before) and not model.cf_vectors.requires_grad
    still = [
        name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()
    ]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == []
    assert still == []


def test_a_sample_instead_of_the_catalogue(folder, cache, toy, monkeypatch):
    """A draw of every item once gives the full loss; a small one learns."""
    model, config, loaders = toy()
    batch = training_batch(loaders)
    full = model.calculate_loss(batch)
    config["setrec_ce"], config["setrec_negatives"] = "sampled", 40
    monkeypatch.setattr(torch, "randint", lambda low, high, shape, **_: torch.arange(low, high))
    sampled = model.calculate_loss(batch)
    monkeypatch.undo()
    for ours, expected in zip(sampled, full, strict=True):
        torch.testing.assert_close(ours, expected, **CLOSE)
    result = train(folder, cache, setrec_ce="sampled", setrec_negatives=20)
    assert result["test_result"]["recall@10"] > 1.5 * 10 / 40


def test_one_seed_gives_one_result(folder, cache, run, tmp_path):
    again = train(folder, cache, tmp_path)
    assert again["test_result"] == run["test_result"]
    assert [epoch["loss"] for epoch in again["epochs"]] == [e["loss"] for e in run["epochs"]]


class Killed(BaseException):
    pass


def test_a_killed_run_continues_exactly(folder, cache, run, monkeypatch):
    steps = []
    step = GenRecTrainer._optimiser_step

    def killed(self):
        steps.append(0)
        if len(steps) == 15:
            raise Killed
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(GenRecTrainer, "_optimiser_step", killed)
        with pytest.raises(Killed):
            train(folder, cache, "cut")
    resumed = train(folder, cache, "cut", resume=True)
    assert resumed["test_result"] == run["test_result"]
    assert [epoch["loss"] for epoch in resumed["epochs"]] == [e["loss"] for e in run["epochs"]]


def test_a_run_killed_while_it_chooses_beta_chooses_the_same(folder, cache, run, monkeypatch):
    def killed(self, validate):
        self.tuned_beta.fill_(0.123)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SETRec, "after_fit", killed)
        with pytest.raises(Killed):
            train(folder, cache, "cut")
    resumed = train(folder, cache, "cut", resume=True)
    assert resumed["test_result"] == run["test_result"]
    assert resumed["report"] == run["report"]


# --- beta -----------------------------------------------------------------------------------------


def test_beta_is_the_best_of_the_grid_on_validation(run):
    """An independent loop agrees, and nothing looks at the test split."""
    figures = run["report"]["beta_figures"]
    assert len(figures) == 10
    trained = load_data_and_model(run["checkpoint"])
    trainer = GenRecTrainer(trained.config, trained.model)
    trainer.eval_collector.data_collect(trained.train)
    for beta, figure in figures.items():
        trained.config["beta"] = float(beta)
        found = trainer.evaluate(trained.valid, load_best_model=False)["ndcg@10"]
        assert found == pytest.approx(figure, abs=1e-6)
    assert figures[f"{run['report']['beta']:g}"] == max(figures.values())
    assert float(trained.model.tuned_beta) == pytest.approx(run["report"]["beta"])


def test_beta_of_an_evaluation_can_be_another(run):
    both = [evaluate(run["checkpoint"], beta=beta)["test_result"] for beta in (0, 1)]
    assert both[0] != both[1]
    assert evaluate(run["checkpoint"])["test_result"] == run["test_result"]


# --- items without interactions -------------------------------------------------------------------


def test_collaborative_vectors_saw_no_held_out_item(folder, cache):
    config = toy_config(folder, "SETRec", cache_dir=cache)
    sequences = TrainingInteractions(config).sequences
    rows = (folder / "toy" / "toy.inter").read_text().splitlines()[1:]
    whole: dict[str, list[str]] = {}
    for row in rows:  # in the order of time
        user, item, _ = row.split("\t")
        whole.setdefault(user, []).append(item)
    assert {user: items[:-2] for user, items in whole.items()} == sequences


@pytest.fixture
def cold_folder(tmp_path):
    """Item i3 is bought last by everybody who buys it, so that it is never trained on."""
    root = write_dataset(tmp_path / "cold")
    file = root / "toy" / "toy.inter"
    head, *rows = file.read_text().splitlines()
    rows = [row for row in rows if "\ti3\t" not in row]
    rows.append("u0\ti3\t99")
    file.write_text("\n".join([head, *rows]) + "\n")
    return root


@pytest.mark.parametrize("policy", ["zero", "mean", "keep"])
def test_a_cold_item_has_semantic_tokens_and_a_collaborative_one_by_policy(cold_folder, policy):
    model, *_ = toy_model(cold_folder, "SETRec", cold_cf=policy)
    cold = model.item_ids(["i3"])[0]
    assert model.has_cf.logical_not().nonzero().flatten().tolist() == [0, cold]
    token = model.all_tokens()[cold, 0]
    assert torch.equal(token, model.tokens.cf_projection.bias) == (policy == "zero")
    assert model.report()["cold_items"] == 1


def test_new_items_are_recommendable_by_their_texts(run, tmp_path):
    _, model, *_, test = load_data_and_model(run["checkpoint"])
    batch = next(iter(test))[0]
    before = model.full_sort_predict(batch)
    twin = model.content.text[5]
    assert model.add_items([twin, "dark oil no 7"], ["n1", "n2"]) == [41, 42]
    after = model.full_sort_predict(batch)
    assert after.shape[1] == 43
    torch.testing.assert_close(after[:, :41], before, **CLOSE)
    tokens = model.all_tokens()
    torch.testing.assert_close(tokens[41, 1:], tokens[5, 1:], **CLOSE)  # the same text
    assert torch.equal(tokens[41, 0], model.tokens.cf_projection.bias)  # cold_cf: zero
    model.save(tmp_path / "more.pth")
    again = load_data_and_model(str(tmp_path / "more.pth")).model
    torch.testing.assert_close(again.full_sort_predict(batch), after, **CLOSE)
    assert again.recommend(["n1"], k=1, candidates=["n2"])[0]["item"] == "n2"


def test_without_semantic_tokens_there_are_no_new_items(toy):
    model, *_ = toy(n_sem=0)
    with pytest.raises(ConfigError, match="With n_sem: 0"):
        model.add_items(["a new thing"])


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_brings_back_scores_and_beta_without_making_vectors(run, monkeypatch):
    trained = load_data_and_model(run["checkpoint"])
    batch = next(iter(trained.test))[0]
    scores = trained.model.full_sort_predict(batch)
    stored = load_checkpoint(run["checkpoint"])["state_dict"]
    assert float(stored["tuned_beta"]) == pytest.approx(run["report"]["beta"])
    monkeypatch.setattr(TrainingInteractions, "vectors", None)
    monkeypatch.setattr("recbole_genrec.data.vectors.text_encoding.TextEncoding.vectors", None)
    again = load_data_and_model(run["checkpoint"]).model
    assert torch.equal(again.full_sort_predict(batch), scores)


def test_kept_tokens_follow_the_weights(toy):
    model, config, loaders = toy()
    batch = batch_of(loaders)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = model.full_sort_predict(batch)
    calls = []
    forward = model.tokens.forward
    model.tokens.forward = lambda *vectors: calls.append(0) or forward(*vectors)
    assert torch.equal(model.full_sort_predict(batch), before) and not calls
    trainer = GenRecTrainer(config, model)
    sum(model.train().calculate_loss(training_batch(loaders))).backward()
    trainer._optimiser_step()
    model.eval()
    assert not torch.equal(model.full_sort_predict(batch), before)
    model.load_state_dict(state)
    torch.testing.assert_close(model.full_sort_predict(batch), before, **CLOSE)


# --- backbones and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "opt"])
def test_lora_on_a_stored_causal_model(folder, cache, tmp_path, family):
    base = save_base(tmp_path / "base", family)
    values = {"backbone": base, "tuning": "lora", "lora_targets": ["q_proj", "v_proj"]}
    result = train(folder, cache, epochs=2, **values)
    stored = load_checkpoint(result["checkpoint"])["state_dict"]
    backbone = [name for name in stored if name.startswith("reader.backbone")]
    assert backbone and all(".lora_" in name for name in backbone)
    assert "reader.queries" in stored and "tokens.cf_projection.weight" in stored
    assert evaluate(result["checkpoint"])["test_result"] == result["test_result"]
    save_base(tmp_path / "other", family, seed=1)
    with pytest.raises(BackboneError, match="trained on another base"):
        load_data_and_model(result["checkpoint"], backbone=str(tmp_path / "other"))


def test_a_stored_t5(folder, cache, tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    save_base(tmp_path / "words", "opt")  # its tokenizer
    shape = {**TINY_OF["SETRec"]["backbone_config"], "vocab_size": 400}
    shape.pop("model_type")
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(tmp_path / "t5")
    for file in (tmp_path / "words").glob("*token*.json"):
        (tmp_path / "t5" / file.name).write_text(file.read_text())
    result = train(folder, cache, epochs=1, backbone=str(tmp_path / "t5"))
    assert evaluate(result["checkpoint"])["test_result"] == result["test_result"]


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "opt"])
def test_a_causal_model_from_scratch_learns(folder, cache, model_type):
    sizes = dict(TINY_LLAMA, model_type=model_type)
    if model_type == "opt":
        sizes = {"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 32}
        sizes |= {"dropout": 0.0}
    result = train(folder, cache, backbone_config=sizes, epochs=7)
    assert result["test_result"]["recall@10"] > 2 * 10 / 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_cf": 0, "n_sem": 0}, "without tokens"),
        ({"item_text_fields": None}, "semantic tokens come from item texts"),
        ({"self_improve": True}, "Leave self_improve out for SETRec"),
        ({"n_cf": 2}, "n_cf"),
        ({"beta": 1.5}, "beta"),
        ({"beta": "tuned"}, "beta"),
        ({"candidate_file": "x"}, "recommend.candidates"),
    ],
)
def test_settings_that_cannot_work(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        toy_config(folder, "SETRec", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": "lora"}, "tuning: lora is for decoder-only"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing is for decoder-only"),
        ({"setrec_mask": "official_t5", **LLAMA}, "official_t5 is for T5"),
    ],
)
def test_keys_of_the_other_kind_of_backbone(toy, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy(**changes)


def test_parity_settings_run(toy):
    model, _, loaders = toy(setrec_mask="official_t5", setrec_position="official")
    batch = batch_of(loaders)
    scores = model.full_sort_predict(batch)
    assert not torch.allclose(scores, toy()[0].full_sort_predict(batch))
    assert model.reader.slots == 8
    assert json.dumps(model.report())
