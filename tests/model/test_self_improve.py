"""Self-improvement: the switch, the refresh, checkpoints and resume, several processes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from statistics import mean

import pytest
import torch
from processes import together
from recbole.trainer import Trainer
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.vectors.scale import standardised
from recbole_genrec.decoding import path_scores
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model, recommend
from recbole_genrec.model.generative import GenerativeRecommender
from recbole_genrec.model.registry import get_model_class
from recbole_genrec.model.self_improve.checks import check_method
from recbole_genrec.model.self_improve.coder import ItemCoder
from recbole_genrec.model.self_improve.schedule import refresh_epochs
from recbole_genrec.runtime import processes
from recbole_genrec.storage.checkpoints import load_state
from recbole_genrec.tokenizer import ItemCodes
from recbole_genrec.training.resume import ResumePoints
from recbole_genrec.training.trainer import GenRecTrainer

METHODS = ["TIGER", "LETTER", "TimelineRec", "STORE", "LCRec", "MetaID", "LMIndexer"]
SOON = {
    "self_improve": True,
    "si_start_epoch": 1,
    "si_interval": 1,
    "si_rounds": 2,
    "si_freeze_epochs": 1,
    "si_margin": 0.0,
}
COLLIDING = {
    "tokenizer": "random",
    "codebook_sizes": [8, 8],
    "collision": ["none"],
}  # 40 items, 64 ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def settings(folder, name="TIGER", **changes):
    return {
        **TINY_OF[name],
        "data_path": str(folder),
        "cache_dir": str(folder / "cache"),
        "epochs": 4,
        **SOON,
        **changes,
    }


def improving(folder, name="TIGER", **changes):
    """``(model, config, loaders)`` of an untrained model with the switch on."""
    return toy_model(
        folder, name, **{"cache_dir": str(folder / "cache"), "epochs": 4, **SOON, **changes}
    )


def batch_of(loaders):
    interaction = next(iter(loaders[0]))
    return interaction["item_id_list"], interaction["item_length"], interaction["item_id"]


def align(model, steps, rate=0.01):
    """Train the alignment task alone."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    items = torch.arange(1, len(model.codes))
    for _ in range(steps):
        optimiser.zero_grad()
        model.alignment_loss(items).backward()
        optimiser.step()


def assert_sound(model):
    """Unique codes within their alphabets, one leaf an item, padding row untouched.

    Every item is reachable by its codes.
    """
    real = model.codes[1:]
    assert len(real.unique(dim=0)) == len(real) == model.trie.n_leaves
    assert (
        (real < torch.tensor(model.level_sizes)).all()
        and (real >= 0).all()
        and not model.codes[0].any()
    )
    items = torch.arange(1, len(model.codes)).unsqueeze(0)
    paths = model.trie.paths(model.trie.leaf_of_item[items])
    found = torch.stack(
        [level.code[path] for level, path in zip(model.trie.levels, paths[1:], strict=True)], dim=-1
    )
    assert torch.equal(found[0, :, : real.shape[1]].long(), real)


# --- the switch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_off_it_leaves_the_method_alone_and_on_it_adds_only_its_own(folder, name):
    off, _, loaders = toy_model(folder, name, cache_dir=str(folder / "cache"))
    assert type(off) is get_model_class(name)
    on, *_ = improving(folder, name, si_align_weight=0)
    added = set(on.state_dict()) - set(off.state_dict())
    assert set(off.state_dict()) <= set(on.state_dict())
    assert {key.partition(".")[0] for key in added} == {"self_improvement"}
    assert ("self_improvement.item_prefix.marker" in added) == (
        name not in ("STORE", "LCRec", "LMIndexer")
    )  # those read the item text as words
    losses, batch = [], batch_of(loaders)
    for model in (off, on):
        parts = (
            model.recommendation_loss(*batch) if name == "STORE" else model.loss(*batch)
        )  # STORE draws items of its own
        losses.append(parts if isinstance(parts, tuple) else (parts,))
    assert all(torch.equal(*pair) for pair in zip(*losses, strict=True))
    assert torch.equal(off.codes, on.codes) and type(on).__name__ == name


@pytest.mark.parametrize("name", METHODS)
def test_the_alignment_task_is_the_likelihood_of_the_codes_given_the_content(folder, name):
    model, *_ = improving(folder, name)
    items = torch.tensor([3, 9, 17])
    with torch.no_grad():
        loss = model.alignment_loss(items)
        fit = ItemCoder(model, torch.Generator()).fit(model.codes[1:])[items - 1]
    if name == "TimelineRec":  # each level by itself, summed
        torch.testing.assert_close(loss, -fit.mean() * len(model.level_sizes), atol=1e-5, rtol=0)
    else:  # all codes share one output layer there: more to choose from
        assert loss > -fit.mean()
    align(model, 30)
    with torch.no_grad():
        assert model.alignment_loss(items) < loss
        assert (
            ItemCoder(model, torch.Generator()).fit(model.codes[1:])[items - 1].mean() > fit.mean()
        )


def test_the_items_of_the_alignment_task_come_from_a_stream_of_their_own(folder, monkeypatch):
    model, _, loaders = improving(folder, si_align_ratio=0.5, train_batch_size=32)
    drawn = []
    monkeypatch.setattr(
        type(model), "alignment_loss", lambda self, items: drawn.append(items) or items.sum() * 0.0
    )
    state = torch.get_rng_state()
    for epoch in (0, 0, 3):
        model.on_epoch_start(epoch) if epoch == 0 else model.self_improvement.epoch.fill_(9)
        for _ in range(2):
            model.calculate_loss(next(iter(loaders[0])))
    assert torch.equal(state, torch.get_rng_state())
    assert all(len(items) == 16 and items.min() >= 1 and items.max() <= 40 for items in drawn)
    assert (
        torch.equal(drawn[0], drawn[2])
        and not torch.equal(drawn[0], drawn[1])
        and not torch.equal(drawn[0], drawn[4])
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_changed_table_changes_inputs_and_labels(folder, name):
    model, *_ = improving(
        folder, name, si_align_weight=0, **({"lambda_align": 0.0} if name == "STORE" else {})
    )
    history, length, target = torch.tensor([[5, 9, 3]]), torch.tensor([3]), torch.tensor([8])

    def loss():
        if name == "LCRec":
            model.on_epoch_start(0)  # the same templates
        parts = model.loss(history, length, target)
        total = sum(parts) if isinstance(parts, tuple) else parts
        return float(total.detach())

    first = loss()
    for item in (9, 8):  # one of the history, and the target
        kept = model.codes[item].clone()
        with torch.no_grad():
            model.codes[item, 0] = (model.codes[item, 0] + 1) % 8
        assert loss() != first
        with torch.no_grad():
            model.codes[item] = kept
    assert loss() == first


# --- the refresh ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scope", ["outlier", "all"])
def test_a_refresh_gives_a_sound_table(folder, name, scope):
    model, _, loaders = improving(folder, name, si_scope=scope)
    align(model, 5)
    before, version, trie = model.codes.clone(), int(model.codes_version), model.trie
    random = torch.get_rng_state()
    model.refine_codes()
    assert torch.equal(random, torch.get_rng_state())
    changed = (before != model.codes).any(1).float().sum()
    assert changed > 0 and (scope == "all" or changed <= 12)  # floor(0.3 * 40)
    assert (int(model.codes_version), int(model.self_improvement.round)) == (
        version + 1,
        1,
    ) and model.trie is not trie
    assert_sound(model)
    scores = model.full_sort_predict(next(iter(loaders[2]))[0])
    assert scores.shape[1] == 41 and scores[:, 1:].isfinite().all()
    (entry,) = model.self_improvement.refreshes
    assert entry["churn"] == pytest.approx(float(changed) / 40) and entry["movers"] >= changed
    assert entry["churn_per_level"] == pytest.approx(
        (before != model.codes)[1:].float().mean(0).tolist()
    )
    assert sum(entry["churn_per_popularity"]) / 4 == pytest.approx(entry["churn"])
    assert [level["used"] for level in entry["levels"]] == [
        len(column.unique()) for column in model.codes[1:].unbind(1)
    ]
    fits = ItemCoder(model, torch.Generator()).fit(torch.stack([before[1:], model.codes[1:]])[1])
    assert entry["fit_after"] == pytest.approx(float(fits.mean()), abs=1e-5)


@pytest.mark.parametrize("decode", ["diverse_beam", "sample"])
def test_other_decodings_and_the_same_seed(folder, decode):
    tables = []
    for _ in range(2):
        model, *_ = improving(folder, si_decode=decode)
        align(model, 20)
        model.refine_codes()
        assert_sound(model)
        tables.append(model.codes.clone())
    assert torch.equal(*tables)


@pytest.mark.parametrize("scope", ["outlier", "all"])
def test_an_overfitted_model_is_a_fixed_point(folder, scope):
    model, *_ = improving(folder, "TimelineRec", si_scope=scope)
    align(model, 150)
    assert ItemCoder(model, torch.Generator()).fit(model.codes[1:]).exp().min() > 0.95
    before = model.codes.clone()
    model.refine_codes()
    assert torch.equal(before, model.codes) and model.self_improvement.refreshes[0]["churn"] == 0


@pytest.mark.parametrize("scope", ["outlier", "all"])
def test_collisions_end_with_the_first_refresh(folder, scope):
    model, *_ = improving(folder, si_scope=scope, si_max_churn=0.0, **COLLIDING)
    unique = len(model.codes[1:].unique(dim=0))
    assert unique < 40
    model.refine_codes()
    assert_sound(model)
    if scope == "outlier":  # outside the cap, and nobody else
        assert model.self_improvement.refreshes[0]["movers"] == 40 - unique


def test_items_that_cannot_be_told_apart_fall_back_and_stay_unique(folder):
    """All contents alike: every list is the same and soon empty; reserved codes are never taken."""
    model, *_ = improving(folder, si_num_candidates=2, si_max_candidates=4, **COLLIDING)
    reserved = torch.cartesian_prod(torch.tensor([6, 7]), torch.arange(8))
    type(model).reserved_codes = lambda self: reserved
    try:
        model.self_improvement.item_prefix.vectors.zero_()
        model.refine_codes()
        taken = {tuple(row) for row in model.codes[1:].tolist()}
        assert len(taken) == 40 and not taken & {tuple(row) for row in reserved.tolist()}
        fallbacks = model.self_improvement.refreshes[0]["fallbacks"]
        assert fallbacks["last_level"] > 0 and fallbacks["shorter_prefix"] > 0
    finally:
        del type(model).reserved_codes


def test_fixed_levels_stay(folder):
    model, *_ = improving(folder, si_fixed_levels=1, si_scope="all")
    before = model.codes.clone()
    model.refine_codes()
    assert torch.equal(before[:, 0], model.codes[:, 0]) and not torch.equal(before, model.codes)
    assert_sound(model)


def test_balance_makes_codes_in_use_less_likely(folder):
    """One code at level 0 for all: with a strong penalty everybody wants to leave it."""
    wanted = []
    for weight in (0.0, 50.0):
        model, *_ = improving(folder, si_balance=weight)
        model.codes[1:, 0] = 3
        codes, fits = ItemCoder(model.eval(), torch.Generator()).propose(torch.arange(40), 8)
        wanted.append((codes[..., 0][fits > -torch.inf] == 3).float().mean())
    assert wanted[0] > 0 and wanted[1] == 0


def test_the_control_moves_as_many_items_to_the_same_codes(folder):
    tables, logs = [], []
    for control in (None, "shuffled"):
        model, *_ = improving(folder, si_control=control)
        align(model, 5)
        model.refine_codes()
        assert_sound(model)
        tables.append(model.codes.clone())
        logs.append(model.self_improvement.refreshes[0])
    assert (
        not torch.equal(*tables)
        and logs[0]["movers"] == logs[1]["movers"]
        and logs[1]["churn"] == logs[0]["churn"] > 0
    )
    assert (
        torch.equal(*(table[1:].unique(dim=0) for table in tables))
        and logs[1]["fit_after"] < logs[0]["fit_after"]
    )


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "changes", [{"name": "TIGER"}, {"name": "STORE", "align_mode": "alternate"}, {"name": "LCRec"}]
)
def test_a_stopped_run_refreshes_at_the_same_epochs(folder, monkeypatch, changes, inside):
    """Stopped between two epochs, or inside the one that began with the only refresh.

    A later refresh would hide that there was a second one.
    """
    name, more = changes["name"], {key: value for key, value in changes.items() if key != "name"}
    more["si_rounds"] = 1 if inside else 2
    whole = run_recbole_genrec(
        name, "toy", config_dict=settings(folder, name, checkpoint_dir="whole", **more)
    )

    class Killed(BaseException):
        pass

    save = ResumePoints.save

    def killed(self, epoch, *more):
        if epoch == 2:
            raise Killed
        save(self, epoch, *more)

    def killed_inside(self, epoch, batch, sums):
        if epoch == 1:
            save(self, epoch, batch, sums)
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(
            ResumePoints,
            *(("safe_point", killed_inside) if inside else ("save", killed)),
        )
        run_recbole_genrec(
            name, "toy", config_dict=settings(folder, name, checkpoint_dir="cut", **more)
        )
    resumed = run_recbole_genrec(
        name, "toy", config_dict=settings(folder, name, checkpoint_dir="cut", resume=True, **more)
    )
    assert resumed["test_result"] == whole["test_result"]
    assert [epoch["loss"] for epoch in resumed["epochs"]] == [
        epoch["loss"] for epoch in whole["epochs"]
    ]
    rounds = [result["report"]["self_improve"]["refreshes"] for result in (whole, resumed)]
    for refreshes in rounds:
        assert [(entry["round"], entry["epoch"]) for entry in refreshes] == [(1, 1), (2, 2)][
            : more["si_rounds"]
        ]
        for entry in refreshes:
            del entry["cpu_seconds"]
    assert rounds[0] == rounds[1] and rounds[0][0]["churn"] > 0


def test_weights_and_codes_of_the_best_epoch_belong_together(folder):
    model, config, (train, valid, test) = improving(folder, epochs=3, si_rounds=1, eval_step=1)
    trainer = GenRecTrainer(config, model)
    trainer.fit(train, valid)
    trainer._save_checkpoint(2, verbose=False)
    batch = next(iter(test))[0]
    model.eval()
    saved, scores, result = (
        model.codes.clone(),
        model.full_sort_predict(batch),
        trainer.evaluate(test, load_best_model=False),
    )
    assert int(model.self_improvement.epoch) == 3
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    model.refine_codes()
    assert not torch.equal(saved, model.codes)
    assert trainer.evaluate(test, load_best_model=True) == result
    assert torch.equal(saved, model.codes) and torch.equal(model.full_sort_predict(batch), scores)
    assert int(model.self_improvement.round) == 1 and len(model.self_improvement.refreshes) == 2
    assert model.report()["tokenizer"]["levels"][0]["used"] == len(saved[1:, 0].unique())


OLD_NAMES = {
    "self_improvement.epoch": "si_epoch",
    "self_improvement.step": "si_step",
    "self_improvement.round": "si_round",
    "self_improvement.item_prefix.marker": "item_prefix.marker",
    "self_improvement.item_prefix.projection.weight": "item_prefix.projection.weight",
    "self_improvement.item_prefix.projection.bias": "item_prefix.projection.bias",
}


@pytest.mark.parametrize("name", ["TIGER", "LCRec"])
def test_a_checkpoint_from_before_the_object_loads(folder, name):
    """Its entries stood among those of the method, and the log in the extra state of the model."""
    model, *_ = improving(folder, name)
    align(model, 5)
    model.on_epoch_start(1)
    state = model.state_dict()
    old = {OLD_NAMES.get(key, key): value for key, value in state.items()}
    log = old.pop("self_improvement._extra_state")
    if "_extra_state" in state:  # LCRec's draws
        log = {**log, "method": state["_extra_state"]}
    old["_extra_state"] = log

    loaded, *_ = improving(folder, name)
    load_state(loaded, old)
    for key, value in loaded.state_dict().items():
        if torch.is_tensor(value):
            assert torch.equal(value, state[key]), key
    assert loaded.self_improvement.refreshes == model.self_improvement.refreshes != []
    assert int(loaded.self_improvement.epoch) == 2 and int(loaded.self_improvement.round) == 1


def test_a_finished_run_loads_recommends_and_passes_its_codes_on(folder, monkeypatch):
    result = run_recbole_genrec("TIGER", "toy", config_dict=settings(folder))
    config, model, _, _, _, test = load_data_and_model(result["checkpoint"])
    assert (
        int(model.self_improvement.epoch)
        == int(torch.load(result["checkpoint"], weights_only=True)["epoch"]) + 1
    )
    assert model.report()["self_improve"]["round"] == result["report"]["self_improve"]["round"] > 0
    assert (
        GenRecTrainer(config, model).evaluate(test, load_best_model=False) == result["test_result"]
    )
    assert len(recommend(result["checkpoint"], history=["i1", "i2"], k=3)) == 3
    stored = Path(result["checkpoint"]).with_suffix(f".codes_v{int(model.self_improvement.round)}")
    assert torch.equal(ItemCodes.load(stored).aligned(model.item_tokens).codes, model.codes)
    other, *_ = toy_model(folder, "TimelineRec", tokenizer=str(stored))
    assert torch.equal(other.codes, model.codes)


@pytest.mark.parametrize("name", ["TIGER", "TimelineRec"])
def test_training_goes_on_with_items_added_before_the_first_refresh(folder, name):
    model, _, loaders = improving(folder, name)
    model.on_epoch_start(0)
    model.add_items(["an entirely new soap"])
    for _ in range(5):
        model.calculate_loss(next(iter(loaders[0])))
    model.refine_codes()
    assert_sound(model)


@pytest.mark.parametrize("name", METHODS)
def test_new_items_get_their_codes_from_the_model_after_a_refresh(folder, name, tmp_path):
    model, config, *_ = improving(folder, name)
    align(model, 5)
    model.refine_codes()
    before = model.codes.clone()
    text = model.content.text[7]
    chosen_by = {}
    if name == "MetaID":  # its tokenizer reads interactions
        chosen_by = {"users": [[model.user_tokens[4]], [model.user_tokens[8]]]}
    added = model.add_items([text, "title: quite another thing"], **chosen_by)
    assert added == [41, 42] and int(model.self_improvement.round) == 1
    assert torch.equal(model.codes[:41], before)
    assert_sound(model)
    proposed, fits = ItemCoder(model, torch.Generator()).propose(torch.tensor([40, 41]), 10)
    taken = {tuple(codes) for codes in before[1:].tolist() + model.reserved_codes().tolist()}
    for place in fits[:, 0].argsort(descending=True).tolist():
        free = [tuple(codes) for codes in proposed[place].tolist() if tuple(codes) not in taken]
        assert not free or tuple(model.codes[added[place]].tolist()) == free[0]
        taken.add(tuple(model.codes[added[place]].tolist()))
    if name != "LCRec":  # its template shows the title, which a new item has not
        same_text = torch.tensor([6, 40])
        torch.testing.assert_close(
            *ItemCoder(model, torch.Generator()).fit(before[[7, 7]], same_text).split(1)
        )
    found = model.search(torch.tensor([[5, 41]]), torch.tensor([2]), k=5)
    assert (found.items > 0).all()


def test_alignment_only(folder):
    result = run_recbole_genrec(
        "TimelineRec", "toy", config_dict=settings(folder, "TimelineRec", si_rounds=0)
    )
    assert result["report"]["self_improve"] == {"round": 0, "refreshes": []}
    assert all(len(epoch["loss"]) == 2 for epoch in result["epochs"])


def test_data_without_item_text(tmp_path):
    """The content of an item is its collaborative vector then."""
    write_dataset(tmp_path)
    (tmp_path / "toy" / "toy.item").unlink()
    model, *_ = improving(
        tmp_path, "TimelineRec", item_text_fields=None, tokenizer_input="cf", cf_epochs=1, cf_dim=8
    )
    assert model.self_improvement.item_prefix.vectors.shape == (41, 8)
    model.refine_codes()
    assert_sound(model)


def test_the_content_is_what_the_tokenizer_reads(folder):
    model, *_ = improving(folder, "TimelineRec", tokenizer_input="graph", graph_epochs=1)
    vectors = standardised(model.content.graph(), len(model.codes))
    assert torch.equal(model.self_improvement.item_prefix.vectors, torch.from_numpy(vectors))


def test_a_loaded_model_reads_no_content_until_it_needs_it(folder, monkeypatch):
    result = run_recbole_genrec(
        "TimelineRec",
        "toy",
        config_dict=settings(folder, "TimelineRec", cache_dir=str(folder / "cache")),
    )
    with monkeypatch.context() as patch:
        patch.setattr(ItemContent, "embeddings", None)
        model = load_data_and_model(result["checkpoint"])[1]
        assert recommend(result["checkpoint"], history=["i1", "i2"], k=3)
    model.refine_codes()
    assert_sound(model)


def _refine_twice(model):
    """In one of two processes."""
    rank = processes.rank()
    model.config["seed"] += rank  # must change nothing
    model.config["checkpoint_dir"] = f"rank{rank}"
    torch.manual_seed(rank)
    for _ in range(2):
        model.refine_codes()
    leaves = [level.code.tolist() for level in model.trie.levels]
    torch.save(
        (model.codes, int(model.codes_version), int(model.self_improvement.round), leaves),
        f"table{rank}",
    )


def test_two_processes_have_one_table(folder, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    model, *_ = improving(folder, si_decode="sample")
    align(model, 5)
    together(_refine_twice, model, start_method="fork")
    first, second = (torch.load(f"table{rank}", weights_only=True) for rank in range(2))
    assert torch.equal(first[0], second[0]) and first[1:] == second[1:]
    assert first[1:3] == (2, 2) and not torch.equal(first[0], model.codes)
    assert first[0][1:].unique(dim=0).shape == first[0][1:].shape
    assert len(list(Path().glob("rank0/*.codes_v*"))) == 2 and not Path("rank1").exists()


# --- what is refused ------------------------------------------------------------------------------


class SETRecLike(GenerativeRecommender):
    """Continuous tokens: no decoder over codes."""


class OnlyAligned(GenerativeRecommender):
    def alignment_loss(self, items):
        return items.sum() * 0.0


@pytest.mark.parametrize(
    ("method", "member"), [(SETRecLike, "alignment_loss"), (OnlyAligned, "item_decoder")]
)
def test_a_method_without_discrete_codes_is_refused_by_what_it_lacks(method, member):
    with pytest.raises(ConfigError, match=rf"{method.__name__} does not define {member}\(items\)"):
        check_method(method)


def test_all_that_a_method_lacks_is_named():
    with pytest.raises(ConfigError, match=r"alignment_loss\(items\) and item_decoder\(items\)"):
        check_method(SETRecLike)


def test_a_model_without_the_object_is_refused(folder):
    """The constructor alone builds the method; the object comes from build_model."""
    _, config, (train, _, _) = improving(folder)
    model = config.model_class(config, train._dataset)
    with pytest.raises(ConfigError, match=r"Use registry\.build_model"):
        model.calculate_loss(next(iter(train)))


def test_a_refresh_of_a_model_without_self_improvement_is_refused(folder):
    model, *_ = improving(folder, self_improve=False)
    before = model.codes.clone()
    with pytest.raises(ConfigError, match="refine_codes needs self_improve: True, and this TIGER"):
        model.refine_codes()
    assert torch.equal(model.codes, before)


def test_recboles_own_models_are_refused(folder):
    with pytest.raises(ConfigError, match="SASRec does not define"):
        run_recbole_genrec(
            "SASRec", "toy", config_dict={"data_path": str(folder), "self_improve": True}
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"epochs": 5, "si_rounds": 4},
            r"before epochs 1, 2, 3, 4 .* before epoch 3\. Use more epochs",
        ),
        (
            {"epochs": 2, "si_rounds": 1},
            r"before epochs 1 .* and si_freeze_epochs: 1 none fits\. Use more epochs",
        ),
        (
            {"si_control": "shuffled", "si_fixed_levels": 1, "si_rounds": 1},
            "si_control: shuffled passes whole codes on",
        ),
        (
            {"si_freeze_epochs": "auto", "epochs": 10, "si_start_epoch": 7},
            r"si_freeze_epochs: 2 the last one may come before epoch 7\.",
        ),
        ({"si_start_epoch": 0}, "si_start_epoch is 0; it must be at least 1"),
        ({"si_scope": "some"}, "si_scope is 'some'; it must be one of outlier, all"),
        ({"si_num_candidates": 50}, "si_max_candidates 40 is below"),
        ({"self_improve": "maybe"}, "self_improve is 'maybe'"),
        ({"si_intervall": 3}, "Unknown key 'si_intervall' for TIGER. Did you mean si_interval"),
        (
            {
                "train_neg_sample_args": {
                    "distribution": "uniform",
                    "sample_num": 1,
                    "dynamic": True,
                }
            },
            "takes no negative samples",
        ),
    ],
)
def test_settings_that_cannot_work(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, "TIGER", **{"epochs": 4, **SOON, **changes})


def test_too_few_ids_are_refused(folder):
    with pytest.raises(ConfigError, match=r"sizes \[6, 6\] give 36 for 40 items"):
        improving(folder, tokenizer="random", codebook_sizes=[6, 6], collision=["none"])
    improving(folder, tokenizer="random", codebook_sizes=[6, 7], collision=["none"])  # 42
    with pytest.raises(ConfigError, match="si_fixed_levels: 2 fixes all 2 levels"):
        improving(
            folder, tokenizer="random", codebook_sizes=[6, 7], collision=["none"], si_fixed_levels=2
        )


def test_the_stock_trainer_is_refused(folder):
    model, config, (train, valid, _) = improving(folder)
    with pytest.raises(ConfigError, match="needs the epoch hook of GenRecTrainer"):
        Trainer(config, model).fit(train, valid, saved=False)


def test_little_patience_is_named(folder, caplog):
    improving(folder, stopping_step=2, eval_step=1, si_interval=1)
    assert "patience" not in caplog.text
    improving(folder, stopping_step=1, eval_step=1, si_interval=1)
    assert "= 1 epochs of patience are fewer than si_interval + 1 = 2" in caplog.text


def test_a_missing_alignment_task_is_named(folder, caplog):
    improving(folder, si_align_weight=0, si_rounds=0)
    assert "refreshes will be random" not in caplog.text
    improving(folder, si_align_weight=0)
    assert "refreshes will be random" in caplog.text


@pytest.mark.parametrize("preset", [{}, {"preset": "paper"}])
@pytest.mark.parametrize("dataset", ["ml-100k", "amazon-beauty", "amazon-sports"])
@pytest.mark.parametrize("name", ["TIGER", "LETTER", "STORE", "LCRec", "TimelineRec"])
def test_no_shipped_setting_needs_a_schedule(name, dataset, preset):
    """The refreshes fit the epochs, and do not stand at their beginning."""
    if preset and name == "TimelineRec":
        pytest.skip("no paper")
    values = {"self_improve": True, "gpu_id": "", **preset}
    if name == "TimelineRec":
        values["depth"] = "mlp"  # the stateless tree has places of its own for codes
    config = GenRecConfig(name, dataset, config_dict=values)
    refreshes = refresh_epochs(config.settings)
    assert len(refreshes) >= 2 and (refreshes[0] >= 10 or refreshes[-1] >= config["epochs"] / 5)


def test_path_scores_follow_the_new_table(folder):
    model, *_ = improving(folder, si_scope="all")
    history, length, items = (
        torch.tensor([[5, 9]]),
        torch.tensor([2]),
        torch.arange(1, 41).unsqueeze(0),
    )
    with torch.no_grad():
        before = path_scores(model.item_logits(history, length), model.trie, items)
        old = model.codes.clone()
        model.refine_codes()
        moved = (old != model.codes).any(1)[1:]
        after = path_scores(model.item_logits(history, length), model.trie, items)
    assert moved.any() and not torch.equal(before[0, moved], after[0, moved])


@pytest.mark.slow
def test_a_refresh_costs_little_and_the_control_much(tmp_path):
    """The epoch after a refresh of the codes, and after one of the control.

    600 users on a ring of 300 items with random codes, three seeds.
    """
    write_dataset(tmp_path, n_users=600, n_items=300)
    schedule = {
        "epochs": 15,
        "si_start_epoch": 12,
        "si_rounds": 1,
        "si_freeze_epochs": 2,
        "si_scope": "all",
        "si_num_candidates": 20,
    }
    training = {
        "d_model": 64,
        "learning_rate": 0.005,
        "lr_scheduler": "constant",
        "train_batch_size": 64,
        "si_align_ratio": 1.0,
    }
    codes = {
        "tokenizer": "random",
        "codebook_sizes": [32, 32],
        "input_id": False,
        "si_align_weight": 1.0,
    }
    drops, ends = {None: [], "shuffled": []}, {None: [], "shuffled": []}
    for seed in (2020, 2021, 2022):
        for control in drops:
            changes = {**schedule, **training, **codes, "si_control": control, "seed": seed}
            model, config, (train, valid, _) = improving(tmp_path, "TimelineRec", **changes)
            trainer = GenRecTrainer(config, model)
            trainer.fit(train, valid)
            recall = [epoch["valid"]["recall@10"] for epoch in trainer.history]
            drops[control].append(recall[11] - recall[12])
            ends[control].append(recall[-1])
            assert model.self_improvement.refreshes[0]["churn"] > 0.15
    refreshed, shuffled = map(mean, drops.values())
    assert (
        refreshed < 0.06
        and shuffled > refreshed + 0.08
        and mean(ends[None]) > mean(ends["shuffled"])
    )


def test_lcrec_reads_items_as_words_and_says_so_without_them(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "toy" / "toy.item").unlink()
    with pytest.raises(ConfigError, match="item_text_fields"):
        toy_config(tmp_path, "LCRec", **SOON, epochs=4, item_text_fields=None, tokenizer="random")


def test_new_items_follow_the_codes_of_the_best_epoch(folder):
    model, *_ = improving(folder, "TimelineRec")
    best = deepcopy(model.state_dict())
    model.self_improvement.replace_codes(
        model, torch.cat([model.codes[:1], model.codes[1:].flip(0)])
    )  # a refresh, after which that epoch is loaded
    model.load_state_dict(best)
    (added,) = model.add_items(["red soap"])
    assert torch.equal(model.item_codes.codes[:added], best["codes"]) and torch.equal(
        model.item_codes.codes, model.codes
    )
