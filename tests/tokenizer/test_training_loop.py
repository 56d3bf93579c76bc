"""Stages of a fit: what they train, and that an interrupted fit ends as an uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
from functools import partial

import pytest
import torch
from torch import nn

from recbole_genrec.errors import GenRecError
from recbole_genrec.runtime import interrupts
from recbole_genrec.tokenizer.progress import FitProgress
from recbole_genrec.tokenizer.training_loop import EpochEnd, TrainingLoop, TrainingStage

EPOCHS = 4
ROWS = 12


@pytest.fixture(autouse=True)
def _saved_every_epoch(monkeypatch):
    monkeypatch.setattr(interrupts, "SAVE_EVERY", 0.0)


class Killed(BaseException):
    """Ends the process, as far as the fit can tell."""


class Stage(TrainingStage):
    """Draws from every kind of random numbers."""

    def __init__(self, name, network, journal, at=None, **options):
        optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
        super().__init__(name, name, network, optimiser, EPOCHS)
        self.generator = torch.Generator().manual_seed(5)
        self.notes = {"losses": []}
        self.journal = journal
        self.at = at or {}
        self.best_epoch = options.get("best_epoch")
        self.last_epoch = options.get("last_epoch")

    @property
    def parts(self):
        return {**super().parts, f"notes of {self.name}": self.notes}

    def batches(self, epoch):
        self.journal.append(f"{self.name} {epoch}")
        return torch.randperm(ROWS, generator=self.generator).split(5)

    def losses(self, rows):
        end = self.at.get(self.journal[-1])
        if end is not None:
            end()
        noise = torch.randn(len(rows), 4, generator=self.generator)
        return {"total": self.network(noise).square().mean() * random.uniform(0.5, 1.5)}

    def end_epoch(self, epoch, means):
        self.notes["losses"].append(means["total"])
        return EpochEnd(best=epoch == self.best_epoch, stop=epoch == self.last_epoch)


def fit(progress, journal, at=None, **options) -> list:
    """Two stages on one network with a computation between them; all that they end with."""
    torch.manual_seed(3)
    random.seed(3)
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    loop = TrainingLoop(progress, show_progress=False)
    first = Stage("first", network, journal, at, **options)
    loop.train(first)

    def centre():
        journal.append("centre")
        end = (at or {}).get("centre")
        if end is not None:
            end()
        return {"mean": network[0].weight.detach().mean(0) + torch.rand(4), "count": 3}

    between = loop.compute("centre", centre)
    with torch.no_grad():
        network[0].bias.add_(between["mean"])
    second = Stage("second", network, journal, at, **options)
    loop.train(second)
    weights = [value.clone() for value in network.state_dict().values()]
    losses = torch.tensor(first.notes["losses"] + second.notes["losses"])
    draws = torch.tensor([torch.rand(()).item(), random.random()])
    return [*weights, losses, draws, between["mean"]]


def equal(a: list, b: list) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def kill():
    raise Killed


@pytest.mark.parametrize("options", [{}, {"best_epoch": 1}, {"last_epoch": 2}])
def test_a_fit_continues_exactly_after_any_number_of_kills(tmp_path, options):
    whole_journal = []
    whole = fit(FitProgress(), whole_journal, **options)
    path = tmp_path / "fit.pth"
    for moment in ("first 1", "first 1", "first 2", "centre", "second 0", "second 2"):
        with pytest.raises(Killed):
            fit(FitProgress(path, "key"), [], {moment: kill}, **options)
    journal = []
    assert equal(fit(FitProgress(path, "key"), journal, **options), whole)
    assert journal == whole_journal[whole_journal.index("second 2") :]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("moment", "following"),
    [
        ("first 0", "first 1"),
        ("first 3", "centre"),
        ("centre", "centre"),
        ("second 1", "second 2"),
        ("second 3", None),
    ],
)
def test_a_signal_saves_at_the_end_of_the_epoch(tmp_path, monkeypatch, number, moment, following):
    monkeypatch.setattr(interrupts, "SAVE_EVERY", 1e9)
    whole_journal = []
    whole = fit(FitProgress(), whole_journal)
    path = tmp_path / "fit.pth"
    end = partial(os.kill, os.getpid(), number)
    once = {moment: lambda: end() if not interrupts.asked() else None}
    with interrupts.handled_signals(), pytest.raises(interrupts.Interrupted):
        fit(FitProgress(path, "key"), [], once)
    journal = []
    assert equal(fit(FitProgress(path, "key"), journal), whole)
    expected = whole_journal[whole_journal.index(following) :] if following else []
    assert journal == expected


def test_nothing_is_saved_before_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "SAVE_EVERY", 1e9)
    fit(FitProgress(tmp_path / "fit.pth", "key"), [])
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_kept_and_the_last_one_stops():
    def weights(**options):
        torch.manual_seed(3)
        random.seed(3)
        network = nn.Linear(4, 4)
        stage = Stage("only", network, [], **options)
        TrainingLoop(FitProgress(), show_progress=False).train(stage)
        return network.weight.detach().clone(), len(stage.notes["losses"])

    stopped, epochs = weights(last_epoch=1)
    assert epochs == 2
    best, epochs = weights(best_epoch=1)
    assert epochs == EPOCHS and torch.equal(best, stopped)
    assert not torch.equal(weights()[0], best)


def test_means_are_over_the_batches_and_a_bad_loss_names_stage_epoch_and_key():
    class Fixed(Stage):
        def losses(self, rows):
            values = {"total": self.network.weight.sum() * 0 + len(rows), "each": torch.ones(3)}
            return {**values, "total": values["total"] * self.at.get(self.journal[-1], 1.0)}

        def end_epoch(self, epoch, means):
            self.notes.setdefault("means", []).append(means)
            return EpochEnd()

    loop = TrainingLoop(FitProgress(), show_progress=False)
    stage = Fixed("only", nn.Linear(4, 4), [])
    loop.train(stage)
    assert stage.notes["means"] == [{"total": 4.0, "each": 1.0}] * EPOCHS
    stage = Fixed("only", nn.Linear(4, 4), [], {"only 2": float("nan")})
    with pytest.raises(GenRecError, match="only: the loss is nan in epoch 3; lower --tokenizer_lr"):
        loop.train(stage)


def test_bf16_reaches_the_losses():
    seen = []

    class Mixed(Stage):
        def losses(self, rows):
            seen.append(self.network(torch.ones(2, 4)).dtype)
            return super().losses(rows)

    TrainingLoop(FitProgress(), precision="bf16", show_progress=False).train(
        Mixed("only", nn.Linear(4, 4), [])
    )
    assert set(seen) == {torch.bfloat16}
