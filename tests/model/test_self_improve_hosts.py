"""TokenRec refines its codes; items read and written as words; the rate after a refresh."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy, embedding
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.model.self_improve.coder import ItemCoder
from recbole_genrec.model.self_improve.fresh_codes import start_unused_codes_anew
from recbole_genrec.training.trainer import GenRecTrainer

SOON = {
    "self_improve": True,
    "epochs": 4,
    "si_start_epoch": 1,
    "si_interval": 1,
    "si_rounds": 2,
    "si_freeze_epochs": 1,
    "si_margin": 0.0,
}
WORDS = {"si_embed_text": "text", "si_text_len": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def improving(folder, cache):
    def make(name, **changes):
        torch.manual_seed(0)
        return toy_model(folder, name, **{**SOON, "cache_dir": cache, **changes})

    return make


def unique(codes):
    return len(codes[1:].unique(dim=0)) == len(codes) - 1


# --- TokenRec -------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, WORDS])
def test_tokenrecs_task_is_the_likelihood_of_the_codes_book_after_book(improving, changes):
    model, *_ = improving("TokenRec", **changes)
    items = torch.arange(1, model.n_items)
    with torch.no_grad():
        loss = float(model.alignment_loss(items))
        fit = ItemCoder(model, torch.Generator()).fit(model.codes[1:])
        by_hand = []
        for item in (3, 17):
            memory = model.backbone.read(*model.item_source(torch.tensor([item])))
            path = [model.table[0]]
            for book, code in enumerate(model.codes[item].tolist()):
                state = model.backbone.decode(torch.stack(path).unsqueeze(0), memory)[0, -1]
                first = int(model.prompts.first_item[book])
                rows = model.table[first : first + 8]
                by_hand.append(float((rows @ state * 32**-0.5).log_softmax(0)[code]))
                path.append(rows[code])
    assert loss == pytest.approx(-float(fit.mean()), abs=1e-5)
    expected = torch.tensor(by_hand).view(2, -1).mean(1)
    torch.testing.assert_close(fit[[2, 16]], expected, atol=1e-5, rtol=0)


def test_a_refresh_of_tokenrec_changes_item_codes_alone_and_makes_them_unique(improving):
    model, _, loaders = improving("TokenRec", si_scope="all")
    batch = next(iter(loaders[2]))[0]
    before = {n: v.clone() for n, v in model.state_dict().items() if torch.is_tensor(v)}
    scores = model.full_sort_predict(batch)
    model.refine_codes()
    changed = {
        name
        for name, value in model.state_dict().items()
        if name in before and not torch.equal(value, before[name])
    }
    assert changed == {"codes", "self_improvement.round"}
    assert unique(model.codes)
    assert not torch.equal(model.full_sort_predict(batch), scores)  # prompts read the new codes
    assert torch.equal(model.item_codes.codes, model.codes)


def test_a_run_of_tokenrec_refreshes_and_its_checkpoint_brings_the_codes_back(folder, cache):
    values = {**TINY_OF["TokenRec"], **SOON, "data_path": str(folder), "cache_dir": cache}
    result = run_recbole_genrec("TokenRec", "toy", config_dict={**values, "eval_step": 1})
    assert [entry["epoch"] for entry in result["report"]["self_improve"]["refreshes"]] == [1, 2]
    assert len(result["epochs"][0]["loss"]) == 2
    _, model, *_, test = load_data_and_model(result["checkpoint"])
    stored = torch.load(result["checkpoint"], weights_only=True)
    assert torch.equal(stored["state_dict"]["codes"], model.codes)
    of_state = stored["other_parameter"]["entities"]["codes"]["items"]["codes"]
    assert torch.equal(of_state, model.codes)
    trainer = GenRecTrainer(model.config, model)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]

    if model.self_improvement.round:
        (added,) = model.add_items(["a new item"], ["new"], users=[["u1", "u2"]])
        assert model.recommend(["i3"], k=40) and added == model.n_items - 1
        assert unique(model.codes)


# --- items as words -------------------------------------------------------------------------------


def test_the_encoder_reads_marker_and_words(improving):
    model, *_ = improving("TIGER", **WORDS)
    prefix = model.self_improvement.item_prefix
    tokenizer = prefix.words.text_tokenizer
    items = torch.tensor([3, 1, 30])
    vectors, mask = model.item_source(items)
    for row, item in enumerate(items.tolist()):
        ids = tokenizer(model.content.text[item], add_special_tokens=False)["input_ids"][:6]
        rows = embedding(torch.tensor(ids), prefix.table)
        expected = torch.cat([prefix.marker.unsqueeze(0), rows])
        assert mask[row].sum() == len(expected)
        torch.testing.assert_close(vectors[row, : len(expected)], expected)
    with torch.no_grad():
        loss = float(model.alignment_loss(torch.arange(1, model.n_items)))
        fit = ItemCoder(model, torch.Generator()).fit(model.codes[1:])
    if model.vocabulary.eos is None:
        assert loss >= -float(fit.mean())  # all tokens compete in the loss, a level in a refresh


def test_a_run_on_words_goes_on_after_a_load_and_codes_new_items(folder, cache):
    values = {**TINY_OF["TIGER"], **SOON, **WORDS, "si_back_weight": 0.5, "si_scope": "all"}
    values |= {"data_path": str(folder), "cache_dir": cache, "eval_step": 0}
    result = run_recbole_genrec("TIGER", "toy", config_dict=values)
    assert len(result["epochs"][0]["loss"]) == 3
    _, model, *_, test = load_data_and_model(result["checkpoint"])
    trainer = GenRecTrainer(model.config, model)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]
    (added,) = model.add_items(["red soap of a new kind"], ["new"])
    assert unique(model.codes) and len(model.self_improvement.item_prefix.words) == added + 1


HOSTS = {
    "TIGER": WORDS,
    "MetaID": WORDS,
    "TokenRec": WORDS,
    "STORE": {},
    "LMIndexer": {},
}


@pytest.mark.parametrize("name", HOSTS)
def test_words_given_codes_weigh_each_word_alike_and_can_be_learned(improving, name):
    model, *_ = improving(name, si_back_weight=0.5, **HOSTS[name])
    items = torch.tensor([2, 9, 33])
    with torch.no_grad():
        together = float(model.description_loss(items))
        alone, counts = [], []
        for item in items:
            alone.append(float(model.description_loss(item.view(1))))
            table = getattr(model, "item_texts", None) or model.self_improvement.item_prefix.words
            has_end = name != "STORE"
            counts.append(int(table(item.view(1))[1].sum()) + has_end)
    weighted = sum(loss * n for loss, n in zip(alone, counts, strict=True)) / sum(counts)
    assert together == pytest.approx(weighted, abs=1e-4)

    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(15):
        optimiser.zero_grad()
        model.description_loss(items).backward()
        optimiser.step()
    assert float(model.eval().description_loss(items).detach()) < together - 0.3


def test_what_tiger_writes_is_the_product_of_its_steps(improving):
    model, *_ = improving("TIGER", si_back_weight=0.5, **WORDS)
    words = model.self_improvement.item_prefix
    item = torch.tensor([5])
    ids, valid = words.words(item)
    labels = [*ids[0, valid[0]].tolist(), words.end]
    with torch.no_grad():
        codes = model.vocabulary.embed(model.vocabulary.tokens(model.codes[item]))
        memory = model.backbone.read(codes, torch.ones(codes.shape[:2], dtype=torch.bool))
        path, losses = [words.table[0]], []
        for label in labels:
            state = model.backbone.decode(torch.stack(path).unsqueeze(0), memory)[0, -1]
            logits = words.table @ state * 32**-0.5
            losses.append(cross_entropy(logits, torch.tensor(label)))
            path.append(words.table[label])
        expected = torch.stack(losses).mean()
        torch.testing.assert_close(model.description_loss(item), expected, atol=1e-5, rtol=0)


# --- one task with one weight ---------------------------------------------------------------------


def test_store_has_its_alignment_task_once(improving, folder, cache):
    model, _, loaders = improving("STORE", lambda_align=0.7, si_align_weight=9.0)
    model.on_epoch_start(0)
    batch = next(iter(loaders[0]))
    torch.manual_seed(3)
    losses = model.calculate_loss(batch)
    torch.manual_seed(3)
    history, length = model._history(batch)
    expected = model.recommendation_loss(history, length, batch["item_id"])
    items = torch.randint(1, model.n_items, (model.settings.align_batch,))
    assert len(losses) == 2 and losses[0] == expected
    torch.testing.assert_close(losses[1], 0.7 * model.alignment_loss(items))


def test_lcrec_has_its_alignment_task_once_and_self_improve_switches_it_on(improving, caplog):
    model, _, loaders = improving("LCRec", tasks=["seqrec"], si_align_weight=0.3)
    assert model.mixture.tasks == ["seqrec", "item2index"]
    assert "si_align_weight does nothing on LCRec" in caplog.text
    model.on_epoch_start(0)
    (loss,) = model.calculate_loss(next(iter(loaders[0])))
    assert torch.isfinite(loss)

    caplog.clear()
    improving("LCRec", task_weights={"item2index": 0})
    assert "With item2index in task_weights: 0 nothing teaches the model" in caplog.text
    assert "does nothing" not in caplog.text


# --- the learning rate ----------------------------------------------------------------------------


def test_the_rate_rises_anew_after_a_refresh_and_a_stopped_run_goes_on(folder, cache, monkeypatch):
    values = {**TINY_OF["TIGER"], **SOON, "data_path": str(folder), "cache_dir": cache}
    values |= {"si_rewarm_steps": 4, "si_rounds": 1, "eval_step": 0, "epochs": 3}
    values |= {"learner": "sgd", "lr_scheduler": "constant", "learning_rate": 0.25}
    step, rates = GenRecTrainer._optimiser_step, []

    class Killed(BaseException):
        pass

    def watched(self):
        if rates and rates[-1] == "stop":
            raise Killed
        inner = self.optimizer.step

        def noted(*arguments, **options):
            rates.append(self.optimizer.param_groups[0]["lr"])
            return inner(*arguments, **options)

        monkeypatch.setattr(self.optimizer, "step", noted)
        step(self)
        monkeypatch.setattr(self.optimizer, "step", inner)
        assert self.optimizer.param_groups[0]["lr"] == 0.25

    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", watched)
    whole = run_recbole_genrec("TIGER", "toy", config_dict={**values, "checkpoint_dir": "whole"})
    steps = len(rates) // 3
    assert rates[:steps] == [0.25] * steps  # before the refresh
    assert rates[steps : steps + 4] == [0.0625, 0.125, 0.1875, 0.25]
    assert set(rates[steps + 4 :]) == {0.25}

    def killed(self):
        if len(rates) == 3 * steps + 2 * steps:
            raise Killed
        watched(self)

    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", killed)
    with pytest.raises(Killed):
        run_recbole_genrec("TIGER", "toy", config_dict={**values, "checkpoint_dir": "cut"})
    monkeypatch.setattr(GenRecTrainer, "_optimiser_step", watched)
    resumed = run_recbole_genrec(
        "TIGER", "toy", config_dict={**values, "checkpoint_dir": "cut", "resume": True}
    )
    assert [e["loss"] for e in resumed["epochs"]] == [e["loss"] for e in whole["epochs"]]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("LCRec", {"si_embed_text": "soft"}, "LCRec reads the words of an item"),
        ("TimelineRec", {"si_embed_text": "text"}, "TimelineRec reads one vector"),
        ("TimelineRec", {"si_back_weight": 1.0}, "TimelineRec writes no words"),
        ("LCRec", {"si_back_weight": 1.0}, "Raise index2item in task_weights"),
        ("TIGER", {"si_back_weight": 1.0}, "writes words only where it reads them"),
        ("TIGER", {"si_embed_text": "text", "item_text_fields": None}, "needs item texts"),
    ],
)
def test_settings_that_cannot_work(folder, name, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, name, **{**SOON, **changes})


# --- codes that no item has -----------------------------------------------------------------------

REINIT = {"si_reinit_unused": True, "si_scope": "all"}
CODED = ["TIGER", "LETTER", "STORE", "LCRec", "LMIndexer", "MetaID", "TokenRec", "TimelineRec"]


MORE_CODES = {"TokenRec": {"codebook_sizes": [64, 64]}}  # than its 40 items use


def tables_of(model):
    """The weights with rows for codes by name, and the row of the first code of each level."""
    firsts = [sum(model.level_sizes[:level]) for level in range(len(model.level_sizes))]
    if hasattr(model, "prompts") and not hasattr(model, "vocabulary"):
        return {"table": model.prompts.first_item.tolist()}  # TokenRec
    names = dict(model.named_parameters())
    if "vocabulary.table" in names:
        return {"vocabulary.table": [1 + first for first in firsts]}
    rows = ("vocabulary.embedding", "vocabulary.classifier", "depth.embedding")
    return {name: firsts for name in rows if name in names}


@pytest.mark.parametrize("name", CODED)
def test_rows_of_codes_that_no_item_has_start_anew(improving, name):
    """All other numbers of the model stay, and a second model gets the same ones."""
    refreshed = []
    for _ in range(2):
        model, *_ = improving(name, **REINIT, **MORE_CODES.get(name, {}))
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        model.refine_codes()
        refreshed.append(dict(model.named_parameters()))
    tables = tables_of(model)
    assert tables
    in_use = torch.cat([model.codes[1:], model.reserved_codes()])
    n_unused = 0
    for key, value in model.named_parameters():
        expected = torch.zeros(len(before[key]) if value.dim() else 1, dtype=torch.bool)
        if key in tables:
            for level, first in enumerate(tables[key]):
                unused = sorted(
                    set(range(model.level_sizes[level])) - set(in_use[:, level].tolist())
                )
                expected[[first + code for code in unused]] = True
                n_unused += len(unused)
        changed = (value != before[key]).view(len(expected), -1)
        assert torch.equal(changed.any(1), expected), key
        assert torch.equal(refreshed[0][key], refreshed[1][key])
    assert n_unused
    started = model.self_improvement.refreshes[-1]["unused_codes_started"]
    assert n_unused == started * len(tables)


def test_new_rows_are_drawn_like_those_in_use():
    torch.manual_seed(0)
    rows = torch.nn.Parameter(torch.cat([torch.randn(500, 3) * 2 + 5, torch.zeros(4000, 3)]))
    codes = torch.arange(-1, 500).clamp(min=0).unsqueeze(1)
    model = SimpleNamespace(
        codes=codes,
        level_sizes=(4500,),
        reserved_codes=lambda: codes[:0],
        code_rows=lambda level: [rows],
    )
    old = rows.detach().clone()
    assert start_unused_codes_anew(model, torch.Generator().manual_seed(1)) == 4000
    assert torch.equal(rows[:500], old[:500])
    torch.testing.assert_close(rows[500:].mean(0), old[:500].mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(rows[500:].std(0), old[:500].std(0), atol=0.15, rtol=0)


def test_rows_beside_a_single_code_in_use_differ():
    torch.manual_seed(0)
    rows = torch.nn.Parameter(torch.randn(6, 4))
    codes = torch.full((9, 1), 2)
    model = SimpleNamespace(
        codes=codes,
        level_sizes=(6,),
        reserved_codes=lambda: codes[:0],
        code_rows=lambda level: [rows],
    )
    assert start_unused_codes_anew(model, torch.Generator()) == 5
    assert len(rows.detach().unique(dim=0)) == 6


def test_a_run_starts_rows_anew_and_refuses_weights_that_are_shared_out(folder, cache):
    values = {**TINY_OF["TIGER"], **SOON, **REINIT, "data_path": str(folder), "cache_dir": cache}
    result = run_recbole_genrec("TIGER", "toy", config_dict=values)
    refreshes = result["report"]["self_improve"]["refreshes"]
    assert all(entry["unused_codes_started"] > 0 for entry in refreshes)
    with pytest.raises(ConfigError, match="si_reinit_unused: True changes rows"):
        toy_config(folder, "TIGER", **SOON, **REINIT, fsdp=True)
