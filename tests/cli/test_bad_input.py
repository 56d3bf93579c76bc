"""Bad input ends in one sentence that says what was wrong, where, and what to do; nothing is
lost or half-written.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from toy import TINY, toy_config, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.cli import run as run_cli
from recbole_genrec.errors import ArtefactError, BackboneError, ConfigError, DataError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model, recommend


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "data")


def train(folder, **changes):
    return run_recbole_genrec(
        "STORE",
        "toy",
        config_dict={
            **TINY,
            "data_path": str(folder),
            "epochs": 1,
            "tokenizer_epochs": 1,
            **changes,
        },
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"item_text_fields": ["titel"]}, DataError, r"titel.*title"),
        ({"item_text_fields": None}, DataError, "item_text_fields"),
        ({"beam_width": 5}, ConfigError, r"beam_width 5 is below max\(topk\) 10"),
        ({"backbone": "nobody/has-this-model"}, BackboneError, "nobody/has-this-model"),
        ({"backbone": "./no/such/folder"}, BackboneError, "folder ./no/such/folder does not exist"),
        (
            {"backbone_config": {"model_type": "opt", "hidden_size": 30, "num_attention_heads": 4}},
            BackboneError,
            "backbone_config",
        ),
        (
            {"collision": ["nearest_free"], "codebook_sizes": [2, 2]},
            ConfigError,
            "40 items.*can name 4",
        ),
        ({"tokenizer_epoch": 3}, ConfigError, "Unknown key 'tokenizer_epoch'.*tokenizer_epochs"),
        ({"text_vocab_size": 100}, ConfigError, "text_vocab_size"),
        ({"tokenizer": "rqvae2"}, ConfigError, "tokenizer is 'rqvae2'"),
        (
            {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}},
            ConfigError,
            "negative",
        ),
        ({"save_dataset": True}, ConfigError, "pickle"),
        ({"collision": ["bogus"]}, ConfigError, "bogus"),
        ({"loss_positions": "target"}, ConfigError, "train_rows: all"),
        ({"prompts": {"recommend": "x"}}, ConfigError, "prompts has no 'answer'"),
        ({"lora_rank": "abc"}, ConfigError, "lora_rank"),
        ({"pca_l2": "nah"}, ConfigError, "pca_l2"),
        ({"backbone_config": "opt"}, ConfigError, "backbone_config"),
        (
            {"generator": "timeline"},
            ConfigError,
            "generator: STORE has one of its own; TIGER, LETTER offer several",
        ),
        (
            {"topk": [50], "beam_width": 50, "valid_metric": "NDCG@50"},
            ConfigError,
            "more items than the 40",
        ),
    ],
)
def test_settings(folder, changes, error, message):
    with pytest.raises(error, match=message):
        train(folder, **changes)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("TIGER", {"train_rows": "windows"}, "train_rows is 'windows'; it must be one of all"),
        ("LETTER", {"train_rows": "longest"}, "a row trains its last item alone"),
        ("TokenRec", {"train_rows": "longest"}, "train_rows"),
        ("TimelineRec", {"d_model": 30, "n_heads": 4}, "d_model 30 is no multiple of n_heads 4"),
    ],
)
def test_settings_of_a_model(folder, model, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, model, **changes)


def test_too_few_interactions_to_hold_out(tmp_path):
    folder = write_dataset(tmp_path / "short")
    rows = [f"u{n}\ti{n % 40}\t1\nu{n}\ti{(n + 1) % 40}\t2" for n in range(40)]
    (folder / "toy" / "toy.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    )
    with pytest.raises(DataError, match="split of toy is empty"):
        train(folder)


def test_missing_item_file(folder):
    (folder / "toy" / "toy.item").unlink()
    with pytest.raises(DataError, match=r"toy\.item"):
        train(folder)


def test_missing_dataset(tmp_path):
    with pytest.raises(DataError, match="Data of your own need no preparation: put toy.inter"):
        train(tmp_path / "nowhere")


def test_all_texts_empty(folder):
    path = folder / "toy" / "toy.item"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(row.split("\t")[0] + "\t\t" for row in rows)]) + "\n")
    with pytest.raises(DataError, match="empty"):
        train(folder)


def artefact(kind: str):
    (found,) = Path(".cache").glob(f"store-*/{kind}")
    return found


@pytest.mark.parametrize("kind", ["codes", "tokenizer"])
@pytest.mark.parametrize("damage", ["truncate", "edit", "edit-meta"])
def test_damaged_artefact(folder, kind, damage):
    train(folder)
    target = artefact(kind)
    file = target / "meta.json" if damage == "edit-meta" else next(target.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    else:
        at = content.index(b"toy") if b"toy" in content else len(content) - 40
        content[at] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match=r"(truncated|edited|damaged)[\s\S]*Delete"):
        train(folder)
    assert file.read_bytes() == bytes(content)


def test_artefact_of_another_item_set(folder, tmp_path):
    train(folder)
    other = write_dataset(tmp_path / "other", n_items=35)
    first = artefact("codes").parent
    train(other)
    second = next(path for path in Path(".cache").glob("store-*") if path != first)
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with pytest.raises(ArtefactError, match="belong to other items"):
        train(other)


def test_checkpoint_of_another_item_set(folder, tmp_path):
    result = train(folder)
    write_dataset(tmp_path / "other", n_items=35)
    trained = load_data_and_model(result["checkpoint"], data_path=str(tmp_path / "other"))
    assert trained.dataset.item_num == trained.model.n_items == 41  # gone items keep their places
    assert "i39" in [row["item"] for row in trained.model.recommend(["i1"], k=40)]


def test_damaged_and_foreign_checkpoints(folder, tmp_path):
    result = train(folder)
    path = tmp_path / "half.pth"
    with open(result["checkpoint"], "rb") as stream:
        path.write_bytes(stream.read()[:5000])
    with pytest.raises(ArtefactError, match="damaged"):
        recommend(str(path), history=["i1"])
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ArtefactError, match="not a checkpoint"):
        recommend(str(path), history=["i1"])
    with pytest.raises(ArtefactError, match="does not exist"):
        recommend(str(tmp_path / "none.pth"), history=["i1"])
    with pytest.raises(ConfigError, match="no user 'nobody'"):
        recommend(result["checkpoint"], user="nobody")


def test_diverging_training_names_batch_and_rate(folder, monkeypatch):
    from recbole_genrec.model.store import STORE

    monkeypatch.setattr(
        STORE, "loss", lambda self, *_: self.vocabulary.embedding.sum() * float("nan")
    )
    with pytest.raises(
        GenRecError, match=r"loss is nan in epoch 0, batch 0, at learning rate 0\.001"
    ):
        train(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "--checkpoint=2024"], "The checkpoint 2024 does not exist"),
        (["evaluate", "--checkpoint"], "--checkpoint needs a value"),
        (["evaluate", "--checkpoint=[a,b]"], "The checkpoint [a,b] does not exist"),
        (["evaluate", "--checkpoint=a.pth", "--result_file=5"], "The checkpoint a.pth does not"),
        (["evaluate", "--checkpoint=a.pth", "--model_class=A"], "--model_class is no key of this"),
        (["ensemble", "--checkpoints=2023,2024"], "The checkpoint 2023 does not exist"),
        (["ensemble", "--checkpoints=[2023,2024]"], "The checkpoint 2023 does not exist"),
        (["ensemble", "--checkpoints"], "--checkpoints needs a value"),
        (["ensemble", "--checkpoints=a,b", "--command=5"], "--command is no key of this command"),
        (["tune", "--params_file"], "--params_file needs a value"),
        (["tune", "--params_file=5"], "The parameter file 5 cannot be read"),
        (["tokenize", "--output", "--dataset=toy"], "--output needs a value"),
        (["run", "--model=7", "--dataset=toy"], "model is 7; give a name, or several"),
        (["run", "--model={a: b}", "--dataset=toy"], "model is {'a': 'b'}; give a name"),
        (["run", "--model", "--dataset=toy"], "model is True; give a name"),
        (["benchmark", "plan.yaml", "--file=x"], "plan.yaml: unknown key 'file'"),
    ],
)
def test_values_of_another_kind_are_no_tracebacks(words, message, capsys):
    Path("plan.yaml").write_text(
        "output: out\ndatasets: [toy]\nseeds: [1]\nruns: [{name: a, model: Pop}]\n"
    )
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("way", ["argument", "file", "program"])
def test_several_models_in_a_list(folder, way, tmp_path, capsys):
    words = ["--dataset=toy", f"--data_path={folder}", "--gpu_id=", "--epochs=1"]
    names = ["Pop", "BPR"]
    if way == "argument":
        results = run_recbole_genrec(argv=[*words, "--model=[Pop, BPR]"])
    elif way == "file":
        (tmp_path / "own.yaml").write_text("model: [Pop, BPR]\n")
        results = run_recbole_genrec(argv=words, config_file_list=[str(tmp_path / "own.yaml")])
    else:
        results = run_recbole_genrec(names, argv=words)
    assert list(results) == names


def test_several_models_share_no_result_file(folder, tmp_path):
    (tmp_path / "own.yaml").write_text("result_file: one.json\n")
    with pytest.raises(ConfigError, match="names one file, but several models run"):
        run_recbole_genrec(
            "Pop,BPR",
            "toy",
            [str(tmp_path / "own.yaml")],
            {"data_path": str(folder), "gpu_id": ""},
        )


def test_commands_print_one_sentence_and_exit_with_2(folder, capsys):
    assert run_cli(["--model=STOER", "--dataset=ml-100k"]) == 2
    assert "no model 'STOER'. Did you mean STORE" in capsys.readouterr().err
    assert (
        run_cli(["--model=STORE", "--dataset=toy", f"--data_path={folder}", "--beam_widht=3"]) == 2
    )
    assert "Did you mean beam_width" in capsys.readouterr().err
    assert main(["recommend", "--checkpoint", "none.pth", "--history", "1"]) == 2
    assert "none.pth does not exist" in capsys.readouterr().err
