"""The file in which a fit notes its stages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recbole_genrec.errors import ArtefactError
from recbole_genrec.storage.checkpoints import save_checkpoint
from recbole_genrec.tokenizer.progress import FitProgress


def filled(value: float) -> nn.Linear:
    """A small network with equal weights."""
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, value)
    return network


def test_a_running_stage_comes_back_with_its_parts_and_the_random_states(tmp_path):
    path = tmp_path / "fit.pth"
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(5)
    FitProgress(path, "key").save(
        "a", 4, {"network": filled(2.0), "generator": generator, "notes": {"x": 1}}
    )
    expected = torch.rand(3), torch.rand(3, generator=generator)

    network, other, notes = filled(0.0), torch.Generator(), {"y": 2}
    parts = {"network": network, "generator": other, "notes": notes}
    progress = FitProgress(path, "key")
    assert not progress.take_finished("a", parts) and progress.take_running("b", parts) == 0
    assert notes == {"y": 2}
    assert progress.take_running("a", parts) == 4
    assert network.weight.eq(2.0).all() and notes == {"x": 1}
    assert torch.equal(torch.rand(3), expected[0])
    assert torch.equal(torch.rand(3, generator=other), expected[1])


def test_a_part_is_kept_as_the_last_stage_left_it(tmp_path):
    path = tmp_path / "fit.pth"
    progress = FitProgress(path, "key")
    network, alone = filled(1.0), filled(7.0)
    progress.finish("a", {"network": network, "alone": alone})
    nn.init.constant_(network.weight, 2.0)
    nn.init.constant_(alone.weight, 8.0)  # after the stage: what was kept does not change
    progress.finish("b", {"network": network})
    nn.init.constant_(network.weight, 3.0)
    progress.save("c", 1, {"other": filled(0.0)})

    later = FitProgress(path, "key")
    network, alone = filled(0.0), filled(0.0)
    assert later.take_finished("a", {"network": network, "alone": alone})
    assert alone.weight.eq(7.0).all() and network.weight.eq(0.0).all()
    assert later.take_finished("b", {"network": network}) and network.weight.eq(2.0).all()
    assert not later.take_finished("c", {})


def test_a_damaged_file_is_ignored_and_a_foreign_one_refused(tmp_path, caplog):
    path = tmp_path / "fit.pth"
    FitProgress(path, "key").save("a", 3, {"network": filled(1.0)})
    with pytest.raises(ArtefactError, match="belongs to another fit"):
        FitProgress(path, "other").take_running("a", {})
    with pytest.raises(ArtefactError, match="Delete it; the fit then starts"):
        FitProgress(path, "key").take_running("a", {"network": nn.Linear(3, 3)})
    path.write_bytes(path.read_bytes()[:-50])
    assert FitProgress(path, "key").take_running("a", {}) == 0
    assert "The fit starts from the beginning" in caplog.text


def test_a_file_of_an_earlier_version_is_ignored_with_a_sentence(tmp_path, caplog):
    path = tmp_path / "fit.pth"
    save_checkpoint(path, {"key": "key", "epoch": 3, "parts": {}, "rng": {}})
    assert FitProgress(path, "key").take_running("a", {}) == 0
    assert "of another version of this package" in caplog.text


def test_nothing_is_written_without_a_path_and_clear_removes_the_file(tmp_path):
    pathless = FitProgress()
    pathless.save("a", 1, {"network": filled(1.0)})
    pathless.finish("a", {"network": filled(1.0)})
    pathless.save_finished()
    assert not pathless.take_finished("a", {})
    pathless.clear()
    progress = FitProgress(tmp_path / "fit.pth", "key")
    progress.save_finished()
    progress.clear()
    assert list(tmp_path.iterdir()) == []
