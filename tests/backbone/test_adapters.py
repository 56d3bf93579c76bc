"""Exports of trained language models, read back by us, by peft and by transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from language_models import FAMILIES, save_base
from peft import PeftModel
from safetensors.torch import load_file
from toy import SMALL, TINY, TINY_OF, toy_model, write_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from recbole_genrec.cli import main
from recbole_genrec.errors import ArtefactError, BackboneError, ConfigError
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint_folder

LCREC = {
    **SMALL,
    "tokenizer": "random",
    "codebook_sizes": [8, 8],
    "text_vocab_size": 400,
    "lora_rank": 2,
    "tasks": ["seqrec"],
}
STORE = {"tokenizer_epochs": 1, "lora_rank": 2}
OPT_TARGETS = {"lora_targets": ["q_proj", "fc1"]}
CASES = {
    "lcrec, llama folder, lora": ("LCRec", {"tuning": "lora"}, "llama"),
    "lcrec, tied opt folder, lora": ("LCRec", {"tuning": "lora", **OPT_TARGETS}, "opt-projected"),
    "lcrec, opt folder, full": ("LCRec", {"tuning": "full"}, "opt"),
    "lcrec, scratch, lora": (
        "LCRec",
        {
            "tuning": "lora",
            "backbone_config": {**FAMILIES["llama"], "max_position_embeddings": 512},
        },
        None,
    ),
    "store, opt folder, lora": ("STORE", {"tuning": "lora", **STORE}, "opt"),
    "store, scratch, full": ("STORE", STORE, None),
}

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def tiny_lcrec():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TINY_OF, "LCRec", LCREC)
        patch.setitem(TINY_OF, "STORE", TINY)
        yield


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {
        family: save_base(root / family, family) for family in ("llama", "opt", "opt-projected")
    }


@pytest.fixture(scope="module")
def trained(folder, bases):
    """``trained(case)``: a model whose weights all differ from its start, and a batch of users."""
    made = {}

    def model_of(case):
        if case not in made:
            name, settings, base = CASES[case]
            with torch.enable_grad():  # STORE's tokenizer trains
                model, config, loaders = toy_model(
                    folder, name, **settings, backbone=bases[base] if base else "scratch"
                )
            generator = torch.Generator().manual_seed(5)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            made[case] = model, config, next(iter(loaders[2]))[0]
        return made[case]

    return model_of


def weights_in(folder: Path) -> set[str]:
    return {name for file in folder.rglob("*.safetensors") for name in load_file(file)}


@pytest.mark.parametrize("case", CASES)
def test_an_export_scores_like_the_model_and_holds_no_base_that_a_folder_holds(
    trained, tmp_path, case
):
    model, config, users = trained(case)
    model.save_pretrained(tmp_path / "export")
    again = load_data_and_model(str(tmp_path / "export"))[1]
    assert torch.equal(again.full_sort_predict(users), model.full_sort_predict(users))
    assert {n: p.requires_grad for n, p in again.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert (tmp_path / "export" / "adapter").is_dir() == (config["tuning"] == "lora")
    stored = any(
        "embed_tokens" in name
        for name in weights_in(tmp_path / "export")
        if "tokenizer" not in name
    )
    assert stored == (config["tuning"] == "full" or config["backbone"] == "scratch")
    with pytest.raises(ConfigError, match="export exists already"):
        model.save_pretrained(tmp_path / "export")


def test_from_pretrained_takes_a_configuration_and_a_dataset(trained, folder, tmp_path):
    model, config, users = trained("lcrec, llama folder, lora")
    model.save_pretrained(tmp_path / "export")
    _, _, loaders = toy_model(folder, "LCRec", backbone=config["backbone"], tuning="lora")
    again = type(model).from_pretrained(tmp_path / "export", config, loaders[0]._dataset).eval()
    assert torch.equal(again.full_sort_predict(users), model.full_sort_predict(users))


@pytest.mark.parametrize("case", ["lcrec, llama folder, lora", "lcrec, tied opt folder, lora"])
@torch.no_grad()
def test_peft_reads_the_adapter_onto_the_base_that_it_names(trained, tmp_path, case):
    model, config, _ = trained(case)
    model.save_pretrained(tmp_path / "export")
    settings = json.loads((tmp_path / "export" / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == config["backbone"]
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    peft = PeftModel.from_pretrained(base, tmp_path / "export" / "adapter").eval()
    ids = torch.arange(3, 23).view(2, 10)
    expected = model.backbone.text_logits(model.backbone(model.backbone.text_table(ids)))
    torch.testing.assert_close(peft(input_ids=ids).logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_adapter_on_weights_that_no_folder_holds_names_no_base(trained, tmp_path):
    for case in (
        "lcrec, scratch, lora",
        "store, opt folder, lora",
    ):  # STORE's base has taken in the adapter of its tokenizer
        model, *_ = trained(case)
        model.save_pretrained(tmp_path / case)
        settings = json.loads((tmp_path / case / "adapter" / "adapter_config.json").read_text())
        assert not settings["base_model_name_or_path"]


# --- another process -----------------------------------------------------------------------------

LOAD = """
import sys
import torch
from recbole_genrec.experiments.trained import load_data_and_model
torch.set_num_threads(1)
for name in sys.argv[2:]:
    model = load_data_and_model(name)[1]
    users = torch.load(sys.argv[1] + "/users.pt", weights_only=True)
    scores = model.search(users["history"], users["length"], fill=True).full
    torch.save(scores, sys.argv[1] + "/" + name.split("/")[-1] + ".scores")
"""


def test_a_fresh_process_needs_the_checkpoint_the_base_and_the_data_alone(trained, tmp_path):
    model, _, users = trained("lcrec, llama folder, lora")
    model.save(str(tmp_path / "model.pth"))
    model.save_pretrained(tmp_path / "export")
    history, length = model._history(users)
    torch.save({"history": history, "length": length}, tmp_path / "users.pt")
    paths = [str(tmp_path), str(tmp_path / "model.pth"), str(tmp_path / "export")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *paths], cwd=root, capture_output=True, text=True, timeout=570
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = model.search(history, length, fill=True).full
    for name in ("model.pth", "export"):
        scores = torch.load(tmp_path / f"{name}.scores", weights_only=True)
        torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


# --- merged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_merged_export_is_a_model_of_transformers_with_the_codes_as_words(
    trained, tmp_path, case
):
    model, *_ = trained(case)
    model.save_pretrained(tmp_path / "merged", merge=True)
    lm, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
        AutoTokenizer.from_pretrained(tmp_path / "merged"),
    )
    items = json.loads((tmp_path / "merged" / "items.json").read_text())
    rows = model.vocabulary.tokens(model.codes[1:]) + model.text_and_codes.n_text
    assert list(items) == model.item_tokens[1:]
    assert tokenizer(list(items.values()), add_special_tokens=False)["input_ids"] == rows.tolist()
    assert (
        tokenizer("red soap", add_special_tokens=False)["input_ids"]
        == model.text_tokenizer("red soap")["input_ids"]
    )

    ids = torch.cat(
        [torch.tensor(tokenizer("red soap")["input_ids"]), rows[:3].flatten()]
    ).unsqueeze(0)
    states = model.backbone(model.text_and_codes.embed(ids))
    expected = torch.cat(
        [model.backbone.text_logits(states), model.vocabulary.logits(states)], dim=-1
    )
    torch.testing.assert_close(lm.eval()(input_ids=ids).logits, expected, atol=1e-4, rtol=0)
    assert model.backbone.has_lora == (
        model.config["tuning"] == "lora"
    )  # the model itself is as before


def test_a_tokenizer_smaller_than_the_table_keeps_the_place_of_the_codes(folder, tmp_path):
    base = save_base(tmp_path / "base", "llama")
    lm = AutoModelForCausalLM.from_pretrained(base)
    lm.resize_token_embeddings(lm.config.vocab_size + 7, mean_resizing=False)
    lm.save_pretrained(base)
    model, *_ = toy_model(folder, "LCRec", backbone=base, tuning="lora")
    assert len(model.text_tokenizer) == model.text_and_codes.n_text - 7
    model.save_pretrained(tmp_path / "merged", merge=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.convert_tokens_to_ids(model.vocabulary.words) == list(
        range(model.text_and_codes.n_text, len(tokenizer))
    )
    model.text_tokenizer.add_tokens(["<a_0>"])
    with pytest.raises(BackboneError, match="already has words like <a_0>"):
        model.save_pretrained(tmp_path / "again", merge=True)
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".again*"))


# --- what cannot be loaded -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["checkpoint", "export"])
def test_an_adapter_for_another_base_is_refused(trained, tmp_path, kind):
    model, *_ = trained("lcrec, llama folder, lora")
    path = tmp_path / kind
    if kind == "export":
        model.save_pretrained(path)
    else:
        model.save(str(path))
    others = {
        "wider": (
            save_base(tmp_path / "wider", "llama", hidden_size=64),
            "hidden_size 32 there and 64 here",
        ),
        "other": (
            save_base(tmp_path / "other", "llama", seed=1),
            r"weights \w+ there and \w+ here",
        ),
        "family": (
            save_base(tmp_path / "family", "qwen2"),
            "model_type llama there and qwen2 here",
        ),
    }
    for base, reason in others.values():
        with pytest.raises(
            BackboneError, match=f"trained on another base than {base} holds: .*{reason}"
        ):
            load_data_and_model(str(path), backbone=base)
    moved = tmp_path / "moved"
    shutil.copytree(model.config["backbone"], moved)
    load_data_and_model(str(path), backbone=str(moved))


def test_a_damaged_export_names_the_file(trained, tmp_path):
    model, *_ = trained("lcrec, llama folder, lora")
    model.save_pretrained(tmp_path / "export")
    weights = tmp_path / "export" / "adapter" / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-40])
    with pytest.raises(ArtefactError, match="adapter_model.safetensors is missing, damaged"):
        load_checkpoint(tmp_path / "export")
    weights.unlink()
    with pytest.raises(ArtefactError, match="adapter_model.safetensors is missing"):
        load_checkpoint(tmp_path / "export")
    weights.write_bytes(content)
    (tmp_path / "export" / "meta.json").write_text("{}")
    with pytest.raises(ArtefactError, match="meta.json was edited or is damaged"):
        load_checkpoint(tmp_path / "export")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ArtefactError,
        match="holds no checkpoint: meta.json is missing. Merged exports are for transformers",
    ):
        load_checkpoint(tmp_path / "empty")


def test_a_checkpoint_folder_gives_back_what_it_was_given(tmp_path):
    table = torch.randn(3, 2)
    content = {
        "config": {"a": None, "b": [1, 2.5, True], "c": {"words": ["x", "y"]}},
        "state_dict": {"one": table, "same": table, "part": table[1:], "scalar": torch.tensor(3)},
        "other_parameter": {"nested": {"rows": [torch.arange(2), 7], "none": None}},
    }
    save_checkpoint_folder(tmp_path, content, {})
    found = load_checkpoint(tmp_path)
    assert found["config"] == content["config"]
    assert found["state_dict"].keys() == content["state_dict"].keys()
    assert all(
        torch.equal(found["state_dict"][name], value)
        for name, value in content["state_dict"].items()
    )
    nested = found["other_parameter"]["nested"]
    assert (
        torch.equal(nested["rows"][0], torch.arange(2))
        and nested["rows"][1] == 7
        and nested["none"] is None
    )


def test_the_command_exports_and_refuses_models_without_a_language_model(
    trained, folder, tmp_path, capsys
):
    model, *_ = trained("lcrec, llama folder, lora")
    model.save(str(tmp_path / "model.pth"))
    assert (
        main(["export", "--checkpoint", str(tmp_path / "model.pth"), "--to", str(tmp_path / "out")])
        == 0
    )
    assert (
        main(
            ["recommend", "--checkpoint", str(tmp_path / "out"), "--history", "i1,i2", "--top", "3"]
        )
        == 0
    )
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown[-3:]] == [
        row["item"] for row in model.recommend(["i1", "i2"], k=3)
    ]
    assert (
        main(
            [
                "export",
                "--checkpoint",
                str(tmp_path / "out"),
                "--to",
                str(tmp_path / "merged"),
                "--merge",
            ]
        )
        == 0
    )
    assert (tmp_path / "merged" / "items.json").is_file()


@pytest.mark.parametrize("name", ["TIGER", "TimelineRec", "TokenRec"])
def test_methods_without_a_causal_language_model_are_exported_too(folder, tmp_path, capsys, name):
    changes = {} if name == "TokenRec" else {"tokenizer": "random"}
    model, _, loaders = toy_model(folder, name, cache_dir=str(folder / "cache"), **changes)
    model.save(str(tmp_path / "model.pth"))
    command = ["export", "--checkpoint", str(tmp_path / "model.pth"), "--to"]
    assert main([*command, str(tmp_path / "out")]) == 0
    suffixes = {file.suffix for file in (tmp_path / "out").iterdir()}
    assert suffixes == {".safetensors", ".json", ".md"}  # the last is the model card
    batch = next(iter(loaders[2]))[0]
    again = load_data_and_model(str(tmp_path / "out")).model
    assert torch.equal(again.full_sort_predict(batch), model.full_sort_predict(batch))
    assert main([*command, str(tmp_path / "merged"), "--merge"]) == 2
    assert f"{name} trains none. Export without merge" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
