"""What a run reads has a part in its name, so that no result of other content is taken for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from interruptions import interrupted_in
from toy import toy_config, write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.read_files import digests_read
from recbole_genrec.data.run_names import run_name
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.settings.classification import named_values
from recbole_genrec.storage.artefacts import META
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


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


@pytest.mark.parametrize("model", ["SASRec", "STORE", "TIGER", "LETTER"])
def test_a_run_without_such_files_reads_its_data_alone(folder, model):
    config = toy_config(folder, model) if model != "SASRec" else sasrec(folder)
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
def test_a_resume_file_of_the_first_release_names_no_files(folder, starts, monkeypatch, epochs):
    options = {"init_from": "start.pth", "epochs": 3}
    file = interrupted(monkeypatch, folder, **options)
    state = load_checkpoint(file)
    del state["files"]
    save_checkpoint(file, state)
    result = run(folder, **{**options, "epochs": epochs}, resume=True)
    assert len(result["epochs"]) == epochs and result["seconds"]["train"] > 0
    assert (Path(result["checkpoint"]).stem in file.name) == (epochs == 3)


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [("SASRec", "weight_decay", 0), ("TIGER", "ema_decay", 0), ("TIGER", "learning_rate", 1)],
)
def test_a_whole_number_and_its_fraction_are_one_run(folder, model, key, value):
    def name(number):
        changes = {key: number, "lr_scheduler": "constant"}
        config = sasrec(folder, **changes) if model == "SASRec" else None
        return run_name(config or toy_config(folder, model, **changes))

    assert name(value) == name(float(value))
