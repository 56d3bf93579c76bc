"""The stages of self-improvement one by one: schedule, alignment task, refresh, freeze."""

from __future__ import annotations

import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.model.self_improve.refresh import by_popularity
from recbole_genrec.model.self_improve.schedule import refresh_epochs
from recbole_genrec.settings.shared_keys import SharedSettings

SCHEDULE = {
    "self_improve": True,
    "epochs": 10,
    "si_rounds": 2,
    "si_start_epoch": 3,
    "si_interval": 2,
    "si_freeze_epochs": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def improving(folder, **changes):
    """A TIGER with the switch on, and the hooks of its self-improvement."""
    options = {"cache_dir": str(folder / "cache"), **SCHEDULE, **changes}
    model, *_ = toy_model(folder, "TIGER", **options)
    return model, model.self_improvement


def tensors_of(model):
    """Copies of the weights and buffers that a checkpoint holds."""
    state = model.state_dict()
    return {name: value.clone() for name, value in state.items() if isinstance(value, torch.Tensor)}


# --- schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, [3, 5]),
        ({"si_rounds": 0}, []),
        ({"si_freeze_epochs": "auto"}, [3, 5]),
        ({"si_freeze_epochs": 0, "si_rounds": 4}, [3, 5, 7, 9]),
    ],
)
def test_refreshes_end_before_the_frozen_epochs(changes, epochs):
    assert refresh_epochs(SharedSettings.from_values({**SCHEDULE, **changes})) == epochs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"si_rounds": 3}, r"before epochs 3, 5, 7 .* the last one may come before epoch 5"),
        ({"si_freeze_epochs": 9}, r"before epochs 3, 5 .* none fits\. Use more epochs"),
        ({"si_freeze_epochs": "auto", "epochs": 7}, "the last one may come before epoch 4"),
    ],
)
def test_a_refresh_within_the_frozen_epochs_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        refresh_epochs(SharedSettings.from_values({**SCHEDULE, **changes}))


def test_only_due_epochs_refresh_and_the_last_ones_keep_their_codes(folder, monkeypatch):
    model, improvement = improving(folder)
    refreshed = []
    monkeypatch.setattr(improvement, "refine_codes", lambda _, epoch: refreshed.append(epoch))
    for epoch in range(10):
        improvement.step.fill_(7)
        improvement.on_epoch_start(model, epoch)
        assert (int(improvement.epoch), int(improvement.step)) == (epoch + 1, 0)
    assert refreshed == [3, 5]
    improvement.epoch.fill_(6)  # a resumed run, which stopped inside epoch 5
    improvement.on_epoch_start(model, 5)
    assert refreshed == [3, 5]


# --- alignment task -------------------------------------------------------------------------------


def test_the_tasks_of_the_items_come_last_with_their_weights(folder, monkeypatch):
    model, improvement = improving(
        folder,
        si_align_weight=0.5,
        si_back_weight=2.0,
        si_embed_text="text",
        si_align_ratio=0.25,
        train_batch_size=32,
    )
    drawn = []

    def task(loss):
        def of_items(items):
            drawn.append(items)
            return torch.tensor(loss)

        return of_items

    monkeypatch.setattr(model, "alignment_loss", task(3.0))
    monkeypatch.setattr(model, "description_loss", task(5.0))
    parts = improvement.with_alignment(model, torch.tensor(1.0))
    assert [float(part) for part in parts] == [1.0, 1.5, 10.0]
    assert [len(items) for items in drawn] == [8, 8] and torch.equal(*drawn)
    assert int(drawn[0].min()) >= 1 and int(drawn[0].max()) < model.n_items

    improvement.with_alignment(model, parts[:1])
    assert int(improvement.step) == 2 and not torch.equal(drawn[0], drawn[2])
    improvement.step.zero_()  # the same batch after a stop
    improvement.with_alignment(model, parts[:1])
    assert torch.equal(drawn[0], drawn[4])


def test_without_weights_the_loss_stays_as_it_is(folder):
    model, improvement = improving(folder, si_align_weight=0.0)
    losses = (torch.tensor(1.0), torch.tensor(2.0))
    assert improvement.with_alignment(model, losses) is losses
    assert int(improvement.step) == 0


# --- refresh --------------------------------------------------------------------------------------


def test_a_refresh_replaces_the_table_and_leaves_all_else(folder):
    model, improvement = improving(folder, si_margin=0.0, si_max_churn=1.0)
    before = tensors_of(model)
    version = int(model.codes_version)
    model.train()
    random_state = torch.get_rng_state()
    improvement.refine_codes(model, 3)

    assert torch.equal(torch.get_rng_state(), random_state) and model.training
    after = tensors_of(model)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed == {"codes", "codes_version", "self_improvement.round"}
    assert int(model.codes_version) == version + 1
    assert torch.equal(model.item_codes.codes, model.codes)
    entry = improvement.refreshes[0]
    moved = (model.codes != before["codes"]).any(1)[1:]
    assert (entry["round"], entry["epoch"]) == (1, 3)
    assert entry["churn"] == pytest.approx(float(moved.float().mean()))


def test_a_table_with_equal_codes_is_refused_and_the_present_one_stays(folder):
    model, improvement = improving(folder)
    present = model.codes.clone()
    table = present.clone()
    table[2] = table[1]
    with pytest.raises(GenRecError, match="the same codes"):
        improvement.replace_codes(model, table)
    assert torch.equal(model.codes, present)


def test_the_rate_rises_over_the_steps_after_a_refresh(folder):
    _, improvement = improving(folder, si_rewarm_steps=4)
    assert improvement.rate_factor() == 1.0
    improvement.round.fill_(1)
    factors = [improvement.rate_factor() for _ in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_changes_are_counted_by_quarters_of_popularity():
    popularity = torch.tensor([9, 1, 5, 3, 7, 2, 8, 4])
    changed = torch.isin(popularity, torch.tensor([1, 2, 5, 9]))
    assert by_popularity(changed, popularity) == [1.0, 0.0, 0.5, 0.5]
