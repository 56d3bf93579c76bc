"""Memory of a training: against the states that real optimisers keep, and a published model."""

from __future__ import annotations

import json

import pytest
import torch
from language_models import save_base
from torch import nn
from toy import toy_config, toy_model, write_dataset
from transformers import AutoModelForCausalLM
from transformers.optimization import Adafactor

from recbole_genrec.backbone.causal.lora import attach_lora
from recbole_genrec.experiments import cost
from recbole_genrec.experiments.cost import backbone_notice, memory_notice, skeleton
from recbole_genrec.training.memory import TrainingMemory, training_memory

LLAMA_7B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(LLAMA_7B))
    return str(folder)


OPTIMISERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1),
    "adafactor": Adafactor,
}


@pytest.mark.parametrize("learner", OPTIMISERS)
def test_it_is_what_the_optimiser_keeps(learner):
    network = nn.Sequential(nn.Linear(50, 70), nn.Embedding(30, 20))
    network[1].requires_grad_(False)
    optimiser = OPTIMISERS[learner]([w for w in network.parameters() if w.requires_grad])
    network[0](torch.randn(3, 50)).sum().backward()
    optimiser.step()
    kept = 0
    for state in optimiser.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.dim():
                kept += value.numel() * value.element_size()
    trained = 4 * (50 * 70 + 70)
    memory = training_memory(network.parameters(), learner)
    assert memory == TrainingMemory(trained + 4 * 600, trained, kept)


def test_llama_7b_needs_108_gb_in_fp32_and_40_in_bf16_with_an_8_bit_optimiser(llama):
    lm = skeleton(llama)
    assert sum(weight.numel() for weight in lm.parameters()) == 6_738_415_616
    assert training_memory(lm.parameters(), "adamw").total == 16 * 6_738_415_616
    assert "107.8 GB" in str(training_memory(lm.parameters(), "adamw"))
    half = training_memory(lm.to(torch.bfloat16).parameters(), "paged_adamw8bit")
    assert half.total == 6 * 6_738_415_616
    assert training_memory(lm.parameters(), "adamw").shared(4).total == 2 * 6_738_415_616


def test_it_is_said_before_the_language_model_is_loaded(folder, llama, monkeypatch):
    lengths = torch.tensor([3, 5])
    config = toy_config(folder, "LCRec", backbone=llama, codebook_sizes=[8, 8])
    monkeypatch.setattr(cost, "available_memory", lambda device: 80_000_000_000)
    sentence, warns = backbone_notice(config, lengths)
    assert warns and "6.74 billion weights" in sentence and "107.8 GB" in sentence
    assert "--weights_precision=bf16" in sentence and "80.0 GB left" in sentence

    small = toy_config(
        folder,
        "LCRec",
        backbone=llama,
        weights_precision="bf16",
        precision="bf16",
        learner="paged_adamw8bit",
    )
    sentence, warns = backbone_notice(small, lengths)
    assert not warns and "40.4 GB" in sentence
    assert backbone_notice(toy_config(folder, "TIGER"), lengths) == ("", False)
    assert backbone_notice(toy_config(folder, "LCRec"), lengths) == ("", False)


def test_with_lora_it_is_the_memory_of_the_model_with_its_adapter(folder, tmp_path):
    base = save_base(tmp_path / "base", "llama")
    config = toy_config(folder, "LCRec", backbone=base, tuning="lora", lora_rank=3)
    settings = config.view(config.model_class.settings_class)
    lm = AutoModelForCausalLM.from_pretrained(base)
    real = attach_lora(lm, 3, 6, 0.0, settings.lora_targets)
    expected = training_memory(real.parameters(), "adamw")
    assert cost._expected_memory(skeleton(base), settings) == expected


@pytest.mark.parametrize("model", ["TIGER", "TokenRec", "SETRec"])
def test_every_built_model_says_it(folder, model, monkeypatch):
    built, config, _ = toy_model(folder, model)
    trained = sum(w.numel() for w in built.parameters() if w.requires_grad)
    total = 4 * (sum(w.numel() for w in built.parameters()) + 3 * trained) / 1e6
    sentence, warns = memory_notice(built, config)
    assert not warns and f"Training takes {total:.1f} MB" in sentence
    monkeypatch.setattr(cost, "available_memory", lambda device: 1000)
    assert memory_notice(built, config)[1]
