"""What a run reads has a part in its name, so that no result of other content is taken for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from interruptions import interrupted_in
from toy import toy_config, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.read_files import digests_read
from recbole_genrec.data.run_names import BEFORE, EARLIER, NOW, Counted, name_of, run_name
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.settings.classification import named_values
from recbole_genrec.storage.artefacts import META
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def later(path: Path, seconds: float) -> None:
    """Say that ``path`` was written some seconds later than it was."""
    moment = path.stat().st_mtime + seconds
    os.utime(path, (moment, moment))


@pytest.mark.parametrize(
    ("model", "values", "file"),
    [
        ("TIGER", {"init_from": "start.pth"}, "start.pth"),
        ("TIGER", {"init_from": "export"}, f"export/{META}"),
        ("LCRec", {"backbone": "./lm"}, "lm/model.safetensors"),
        ("TIGER", {"tokenizer": "lmindexer", "indexer_backbone": "./lm"}, "lm/model.safetensors"),
        ("TIGER", {"text_encoder": "./encoder"}, "encoder/model.safetensors"),
        ("TIGER", {"text_encoder": "~/encoder"}, "~/encoder/model.safetensors"),
        ("TIGER", {"tokenizer": "./fitted"}, f"fitted/codes/{META}"),
        ("LETTER", {"cf_file": "~/cf.npy", "allow_external_cf": True}, "~/cf.npy"),
        ("LETTER", {"cf_file": "cf.npy", "allow_external_cf": True}, "cf.ids.txt"),
    ],
)
def test_other_content_is_another_run(folder, tmp_path, monkeypatch, model, values, file):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (file, "cf.npy"):
        place = Path(name).expanduser()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("first")
    config = toy_config(folder, model, **values)
    before = config.run_name()
    assert config.run_name() == before
    Path(file).expanduser().write_text("other")
    assert config.run_name() != before
    assert name_of(config, Counted(further=False)) != config.run_name()


@pytest.mark.parametrize("model", ["SASRec", "STORE", "TIGER", "LETTER"])
def test_a_run_without_such_files_keeps_its_name(folder, model):
    config = toy_config(folder, model) if model != "SASRec" else sasrec(folder)
    assert run_name(config) == name_of(config, Counted(further=False))
    values = named_values(config.declarations, config.plain())
    names = {Path(path).name for path in digests_read(config, values)}
    assert names == {"toy.inter", "toy.item"}


# --- runs that start from weights -----------------------------------------------------------------


SASREC = {
    "hidden_size": 16,
    "inner_size": 16,
    "n_layers": 1,
    "epochs": 1,
    "show_progress": False,
    "gpu_id": "",
    "topk": [5, 10],
}


def sasrec(folder, **changes):
    return GenRecConfig(
        "SASRec", "toy", config_dict={"data_path": str(folder), **SASREC, **changes}
    )


def run(folder, **changes):
    options = {"data_path": str(folder), "checkpoint_dir": "saved", **SASREC, **changes}
    return run_recbole_genrec("SASRec", "toy", config_dict=options)


def interrupted(monkeypatch, folder, **changes) -> Path:
    """A run from ``start.pth`` that is interrupted in its second epoch.

    Returns:
        Its resume file.
    """
    with interrupted_in(1, monkeypatch):
        run(folder, **changes)
    (file,) = Path("saved").glob("*.resume.pth")
    return file


def make_older(file: Path, folder, **changes) -> Path:
    """Give an interrupted run the form of an earlier version: its name, and fewer digests."""
    earlier = name_of(sasrec(folder, **changes), Counted(**BEFORE, further=False))
    state = load_checkpoint(file)
    del state["files"]["start.pth"]
    target = file.with_name(f"{earlier}.resume.pth")
    save_checkpoint(target, {**state, "run": earlier})
    best = file.with_name(file.name.replace(".resume", ""))
    save_checkpoint(target.with_name(f"{earlier}.pth"), {**load_checkpoint(best), "run": earlier})
    file.unlink()
    best.unlink()
    return target


@pytest.fixture
def starts(folder):
    """Two checkpoints, of which ``start.pth`` is the first."""
    files = [run(folder, checkpoint_dir=f"start{seed}", seed=seed)["checkpoint"] for seed in (1, 2)]
    shutil.copy(files[0], "start.pth")
    return files


def test_a_finished_run_from_other_weights_is_not_resumed(folder, starts):
    first = run(folder, init_from="start.pth", resume=True)
    assert run(folder, init_from="start.pth", resume=True) == first
    shutil.copy(starts[1], "start.pth")
    second = run(folder, init_from="start.pth", resume=True)
    assert second["checkpoint"] != first["checkpoint"]
    assert second["epochs"][0]["loss"] != first["epochs"][0]["loss"]


def test_an_interrupted_run_from_other_weights_is_refused(folder, starts, monkeypatch):
    options = {"init_from": "start.pth", "epochs": 3}
    interrupted(monkeypatch, folder, **options)
    shutil.copy(starts[1], "start.pth")
    with pytest.raises(ConfigError, match=r"since it began start\.pth changed"):
        run(folder, **options, resume=True)


@pytest.mark.parametrize("epochs", [3, 4])
def test_a_resume_file_of_an_earlier_version_is_accepted(folder, starts, monkeypatch, epochs):
    options = {"init_from": "start.pth", "epochs": 3}
    file = make_older(interrupted(monkeypatch, folder, **options), folder, **options)
    result = run(folder, **{**options, "epochs": epochs}, resume=True)
    assert len(result["epochs"]) == epochs and result["seconds"]["train"] > 0
    assert (Path(result["checkpoint"]).stem in file.name) == (epochs == 3)


def test_unless_the_weights_were_written_since(folder, starts, monkeypatch):
    options = {"init_from": "start.pth", "epochs": 3}
    file = make_older(interrupted(monkeypatch, folder, **options), folder, **options)
    shutil.copy(starts[1], "start.pth")
    later(Path("start.pth"), 60)
    with pytest.raises(ConfigError, match=r"since it began start\.pth changed"):
        run(folder, **options, resume=True)
    assert file.is_file()


# --- earlier versions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [("SASRec", "weight_decay", 0), ("TIGER", "ema_decay", 0), ("TIGER", "learning_rate", 1)],
)
def test_a_whole_number_and_its_fraction_are_one_run(folder, model, key, value):
    def name(number, counted=NOW):
        changes = {key: number, "lr_scheduler": "constant"}
        config = sasrec(folder, **changes) if model == "SASRec" else None
        return name_of(config or toy_config(folder, model, **changes), counted)

    assert name(value) == name(float(value))
    if key != "ema_decay":  # 0 of which is as if the key was not there
        assert name(value, EARLIER[0]) != name(float(value), EARLIER[0])


def test_a_run_of_the_version_before_goes_on_under_its_name(folder, tmp_path):
    (tmp_path / "lm").mkdir()
    weights = tmp_path / "lm" / "model.safetensors"
    weights.write_bytes(bytes(5 * 2**20))
    options = {"checkpoint_dir": str(tmp_path), "backbone": str(tmp_path / "lm")}
    config = toy_config(folder, "LCRec", resume=True, **options)
    earlier = name_of(config, EARLIER[0])
    assert earlier != run_name(config) == name_of(config)
    file = tmp_path / f"{earlier}.resume.pth"
    file.touch()
    later(file, 1)
    assert run_name(config) == earlier
    later(weights, 60)
    assert run_name(config) == name_of(config)
