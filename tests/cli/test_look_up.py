"""The commands that tell what there is: methods, tokenizers, datasets, keys, this machine."""

from __future__ import annotations

import re
import sys

import pandas as pd
import pytest
from toy import write_dataset

import recbole_genrec
from recbole_genrec.cli import main
from recbole_genrec.data.known_datasets import RECIPES
from recbole_genrec.experiments import doctor
from recbole_genrec.model.names import MODELS
from recbole_genrec.settings.declaration import EFFECTS
from recbole_genrec.tokenizer.descriptions import TOKENIZER_DESCRIPTIONS
from recbole_genrec.tokenizer.registry import TOKENIZERS


def first_words(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line.strip()}


def test_every_tokenizer_is_described():
    assert set(TOKENIZER_DESCRIPTIONS) == set(TOKENIZERS)


def test_methods(capsys):
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert set(MODELS) <= first_words(shown) and "arXiv 2305.05065" in shown
    assert main(["models", "--all"]) == 0
    assert {"SASRec", "BERT4Rec", "STORE"} <= first_words(capsys.readouterr().out)


def test_tokenizers(capsys):
    assert main(["tokenizers"]) == 0
    assert set(TOKENIZERS) <= first_words(capsys.readouterr().out)


def test_datasets(tmp_path, capsys):
    write_dataset(tmp_path)
    assert main(["datasets", f"--data_path={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert set(RECIPES) <= set(rows)
    assert f"in {tmp_path}" in rows["toy"]
    assert "comes with RecBole" in rows["ml-100k"] and "100,000" in rows["ml-100k"]
    assert "recbole-genrec prepare amazon-beauty" in rows["amazon-beauty"]


def test_the_same_from_python(tmp_path):
    models = recbole_genrec.list_models()
    assert isinstance(models, pd.DataFrame) and list(models.columns) == ["name", "what", "source"]
    assert "rkmeans" in set(recbole_genrec.list_tokenizers()["name"])
    datasets = recbole_genrec.list_datasets(tmp_path).set_index("name")
    assert datasets.loc["ml-100k", "items"] == 1682


def test_help_of_a_method_groups_its_keys(capsys):
    assert main(["run", "--model=LETTER", "--dataset=ml-100k", "--help"]) == 0
    shown = capsys.readouterr().out
    headings = ["Data and protocol", "Codes", "Training", "Search and lists", "Files, processes"]
    places = [shown.index(f"\n{heading}") for heading in headings]
    assert places == sorted(places) and len(headings) == len(EFFECTS)
    assert re.search(r"\nepochs +5 .*ml-100k.yaml, LETTER", shown)
    codes, search = shown[places[1] : places[2]], shown[places[3] : places[4]]
    assert "\ncodebook_sizes " in codes and "\nbeam_width " in search
    assert main(["run", "--model=STOER", "--help"]) == 2
    assert "Did you mean STORE" in capsys.readouterr().err


def test_doctor_finds_nothing_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY_GB", 0)
    monkeypatch.setattr(doctor, "LITTLE_DISK_GB", 0)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for what in ("torch", "recbole", "GPU", "bf16", "threads", "memory", "disk", "text encoder"):
        assert re.search(rf"^{what}", shown, re.MULTILINE), what
    assert recbole_genrec.__version__ in shown
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "LITTLE_DISK_GB", sys.maxsize)
    monkeypatch.setattr(doctor, "versions", dict)

    def forbidden(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", forbidden)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "disk: little space for checkpoints" in shown
    assert "python -m recbole_genrec.install" in shown
    assert "Permission denied: start the command in another folder" in shown


@pytest.mark.parametrize("words", [["--quiet"], ["--quiet", "--state=ERROR"]])
def test_quiet_shows_the_table_alone(words, tmp_path, capfd):
    folder = write_dataset(tmp_path / "data")
    small = ["--dataset=toy", f"--data_path={folder}", "--topk=[5]", "--valid_metric=NDCG@5"]
    assert main(["run", "--model=Pop", *small, *words]) == 0
    shown = capfd.readouterr()
    assert "Pop" in shown.out and "INFO" not in shown.out + shown.err
    assert "it/s" not in shown.err


def test_a_run_says_what_it_does_without_recbole_dictionaries(tmp_path, capfd):
    folder = write_dataset(tmp_path / "data")
    small = ["--dataset=toy", f"--data_path={folder}", "--topk=[5]", "--valid_metric=NDCG@5"]
    assert main(["run", "--model=Pop,SASRec", *small, "--epochs=1", "--show_progress=False"]) == 0
    shown = capfd.readouterr()
    text = shown.out + shown.err
    assert "train_neg_sample_args" not in text
    assert "ndcg@5 - " in shown.out


def test_a_published_setting_on_a_cpu_warns(tmp_path):
    from toy import toy_config

    from recbole_genrec.experiments.stages import paper_scale_notice

    config = toy_config(write_dataset(tmp_path), "STORE")
    assert paper_scale_notice(config) == ""
    config["preset"] = "paper"
    assert "may take days" in paper_scale_notice(config)
