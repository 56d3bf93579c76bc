"""A fit that was interrupted after any epoch ends with the numbers of one that was not."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from recbole_genrec.errors import ArtefactError
from recbole_genrec.runtime import interrupts
from recbole_genrec.tokenizer.progress import FitProgress

EPOCHS = 6


@pytest.fixture(autouse=True)
def _saved_every_epoch(monkeypatch):
    monkeypatch.setattr(interrupts, "SAVE_EVERY", 0.0)


class Killed(BaseException):
    pass


def fit(progress: FitProgress, killed_in: int | None = None, enough: int = EPOCHS) -> list:
    """A fit that draws from every kind of random numbers; its losses by epoch, and what it ends with."""
    torch.manual_seed(3)
    random.seed(3)
    network, generator, notes = (
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
        torch.Generator().manual_seed(5),
        {"losses": []},
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    epochs = progress.epochs(
        EPOCHS, network=network, optimiser=optimiser, generator=generator, notes=notes
    )
    for epoch in epochs:
        if epoch == killed_in:
            raise Killed
        loss = network(torch.randn(8, 4, generator=generator)).square().mean() + random.random()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        notes["losses"].append(loss.item())
        if len(notes["losses"]) == enough:
            epochs.close()
    return [
        *notes["losses"],
        network[0].weight.sum().item(),
        torch.rand(()).item(),
        random.random(),
    ]


@pytest.mark.parametrize("enough", [EPOCHS, 4])
def test_a_fit_continues_exactly_after_any_number_of_interruptions(tmp_path, enough):
    whole = fit(FitProgress(), enough=enough)
    assert len(whole) == enough + 3
    path = tmp_path / "fit.pth"
    for killed_in in (1, 1, 2, 3):
        with pytest.raises(Killed):
            fit(FitProgress(path, "key"), killed_in, enough)
    assert fit(FitProgress(path, "key"), enough=enough) == whole
    FitProgress(path, "key").clear()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_saved_before_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "SAVE_EVERY", 1e9)
    fit(FitProgress(tmp_path / "fit.pth", "key"))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_ignored_and_a_foreign_one_refused(tmp_path, caplog):
    path = tmp_path / "fit.pth"
    with pytest.raises(Killed):
        fit(FitProgress(path, "key"), killed_in=3)
    with pytest.raises(ArtefactError, match="belongs to another fit"):
        fit(FitProgress(path, "other"))
    path.write_bytes(path.read_bytes()[:-50])
    assert fit(FitProgress(path, "key")) == fit(FitProgress())
    assert "The fit starts from the beginning" in caplog.text
