"""Frozen weights in 8 or 4 bits: loading, checkpoints, and a trained adapter that is read back."""

from __future__ import annotations

import pytest
import torch
from language_models import FAMILIES, TEXTS, save_base
from toy import toy_model, write_dataset

from recbole_genrec.backbone import build_backbone, load_causal_lm
from recbole_genrec.backbone.causal.quantise import loading_options, quantised_options
from recbole_genrec.errors import BackboneError
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.training.trainer import GenRecTrainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def test_quantisation_says_what_is_missing(monkeypatch, tmp_path):
    base = save_base(tmp_path, "llama")
    for installed, device, reason in (
        (
            False,
            "cuda",
            "needs the package bitsandbytes, which is not installed: pip install bitsandbytes",
        ),
        (
            True,
            "cpu",
            "needs an NVIDIA GPU and a CUDA build of torch; the device of this run is cpu",
        ),
    ):
        monkeypatch.setattr(
            "recbole_genrec.backbone.causal.quantise.find_spec",
            lambda name, found=installed: found or None,
        )
        with pytest.raises(BackboneError, match=f"quantisation: 4bit {reason}"):
            load_causal_lm(base, quantisation="4bit", device=device)
    with pytest.raises(
        BackboneError,
        match="quantisation: 8bit is for pretrained weights; backbone: scratch has none",
    ):
        load_causal_lm("scratch", FAMILIES["llama"], TEXTS, 300, quantisation="8bit")
    assert loading_options(None, "cpu") == {}


def test_quantised_weights_cannot_be_tuned_fully(folder):
    with pytest.raises(BackboneError, match="tuning: full trains. Use tuning: lora"):
        build_backbone({"backbone": "x", "quantisation": "4bit", "tuning": "full"})
    with pytest.raises(BackboneError, match="quantisation: 4bit"):
        toy_model(folder, "LCRec", tuning="full", quantisation="4bit")


def test_quantisation_asks_transformers_for_frozen_linear_layers_on_the_device():
    four, eight = (quantised_options(name, "cuda:1") for name in ("4bit", "8bit"))
    assert (
        four["quantization_config"].load_in_4bit
        and four["quantization_config"].bnb_4bit_quant_type == "nf4"
    )
    assert four["quantization_config"].bnb_4bit_compute_dtype == torch.bfloat16
    assert eight["quantization_config"].load_in_8bit and eight["device_map"] == {"": "cuda:1"}


def test_checkpoints_leave_out_what_quantisation_adds_to_frozen_layers(folder, tmp_path):
    model, *_ = toy_model(folder, "LCRec", tuning="lora", backbone=save_base(tmp_path, "llama"))
    before = set(model.checkpoint_state())
    model.backbone.stack.layers[0].self_attn.q_proj.base_layer.register_buffer(
        "SCB", torch.ones(32)
    )
    assert any(name.endswith("base_layer.SCB") for name in model.state_dict())
    assert set(model.checkpoint_state()) == before
    assert {"codes", "codes_version", "vocabulary.embedding", "vocabulary.classifier"} < before
    assert all(".lora_" in name for name in before if name.startswith("backbone"))


@pytest.mark.parametrize("quantisation", ["4bit", "8bit"])
def test_an_adapter_on_quantised_weights_trains_and_reloads(
    folder, tmp_path, monkeypatch, quantisation
):
    pytest.importorskip("bitsandbytes")  # it also runs on the CPU, which is enough for this
    monkeypatch.setattr(
        "recbole_genrec.backbone.causal.load.loading_options",
        lambda name, *at: quantised_options(name, *at) if name else {},
    )
    base = save_base(tmp_path / "base", "llama", hidden_size=64, intermediate_size=128)
    model, config, loaders = toy_model(
        folder, "LCRec", tuning="lora", backbone=base, quantisation=quantisation
    )
    before = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    trainer = GenRecTrainer(config, model)
    model.train().calculate_loss(next(iter(loaders[0]))).backward()
    trainer._optimiser_step()
    changed = {
        name for name, value in before.items() if not torch.equal(model.state_dict()[name], value)
    }
    assert changed and all(".lora_" in name or name.startswith("vocabulary") for name in changed)
    model.eval().save_pretrained(tmp_path / "export")
    users = next(iter(loaders[2]))[0]
    again = load_data_and_model(str(tmp_path / "export"))[1]
    assert torch.equal(again.full_sort_predict(users), model.full_sort_predict(users))
    with pytest.raises(BackboneError, match="Quantised weights cannot be merged"):
        model.save_pretrained(tmp_path / "merged", merge=True)
    with pytest.raises(BackboneError, match="another base.*with the same quantisation"):
        load_data_and_model(str(tmp_path / "export"), quantisation=None)
