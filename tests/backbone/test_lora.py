"""Tuning of causal language models: what trains, gradient checkpointing, impossible adapters."""

from __future__ import annotations

import pytest
import torch
from language_models import Generator
from toy import SMALL, TINY, TINY_OF, toy_model, write_dataset

from recbole_genrec.backbone.causal.lora import base_facts, check_base
from recbole_genrec.errors import BackboneError
from recbole_genrec.training.trainer import GenRecTrainer

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
LLAMA |= {"intermediate_size": 48, "max_position_embeddings": 512}
LCREC = {
    **SMALL,
    "tokenizer": "random",
    "codebook_sizes": [8, 8],
    "backbone_config": {**LLAMA, "tie_word_embeddings": False},
}
LCREC |= {"text_vocab_size": 400, "train_batch_size": 16, "lora_rank": 2}
TIED = {"backbone_config": {**LLAMA, "tie_word_embeddings": True}}
STORE = {
    "backbone_config": {**TINY["backbone_config"], "num_hidden_layers": 1},
    "tokenizer_epochs": 0,
    "lora_rank": 2,
    "code_init": "random",
}
CASES = {
    "store": ("STORE", STORE),
    "lcrec": ("LCRec", LCREC),
    "lcrec-tied": ("LCRec", {**LCREC, **TIED}),
}
EVERY_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def tiny_lcrec(monkeypatch):
    monkeypatch.setitem(TINY_OF, "LCRec", LCREC)


def adapters(stack: str, layers: tuple[str, ...]) -> set[str]:
    return {
        f"backbone.lm.base_model.model.model.{stack}.{layer}.lora_{side}.default.weight"
        for layer in layers
        for side in "AB"
    }


LLAMA_ADAPTERS = adapters("layers.0.self_attn", EVERY_LINEAR[0]) | adapters(
    "layers.0.mlp", EVERY_LINEAR[1]
)
TRAINED = {
    "store": adapters("decoder.layers.0.self_attn", ("q_proj", "v_proj"))
    | {"vocabulary.embedding", "vocabulary.classifier"},
    "lcrec": LLAMA_ADAPTERS | {"vocabulary.embedding", "vocabulary.classifier"},
    "lcrec-tied": LLAMA_ADAPTERS | {"vocabulary.embedding"},
}


def one_step(model, config, loaders):
    trainer = GenRecTrainer(config, model)
    loss = model.train().calculate_loss(next(iter(loaders[0])))
    sum(loss if isinstance(loss, tuple) else (loss,)).backward()
    trainer._optimiser_step()


@pytest.mark.parametrize("case", CASES)
def test_lora_trains_adapters_and_code_rows_and_nothing_else(folder, case):
    name, settings = CASES[case]
    model, config, loaders = toy_model(folder, name, **settings, tuning="lora", weight_decay=0.1)
    assert {
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    } == TRAINED[case]
    for parameter in model.backbone.parameters():
        if (
            parameter.requires_grad and parameter.abs().sum() == 0
        ):  # the matrices that start at zero hide the gradient of the others
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one_step(model, config, loaders)
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    } - {"_extra_state"}  # draws
    same_table = {"vocabulary.classifier"} if case == "lcrec-tied" else set()
    assert changed == TRAINED[case] | same_table
    text = [model.backbone.text_table.weight, model.backbone.lm.get_output_embeddings().weight]
    assert not any(weight.requires_grad for weight in text)
    grouped = {id(p) for group in model.parameter_groups() for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("case", CASES)
def test_full_tuning_gives_every_parameter_a_gradient(folder, case):
    name, settings = CASES[case]
    model, _, loaders = toy_model(folder, name, **settings, tuning="full")
    loss = model.train().calculate_loss(next(iter(loaders[0])))
    sum(loss if isinstance(loss, tuple) else (loss,)).backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
    without = {name for name, p in model.named_parameters() if p.grad.abs().sum() == 0}
    assert all(
        "k_proj.bias" in name for name in without
    )  # softmax does not see a shift of all keys


def test_bf16_trains_float32_adapters_on_nearly_the_same_loss(folder):
    losses = []
    for precision in ("fp32", "bf16"):
        model, config, loaders = toy_model(
            folder, "LCRec", tuning="lora", precision=precision, epochs=1
        )
        trainer = GenRecTrainer(config, model)
        trainer.fit(loaders[0], None, saved=False)
        losses.append(trainer.train_loss_dict[0])
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert losses[0] != losses[1] and abs(losses[1] - losses[0]) < 0.02 * losses[0]


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_model_stays_tied_through_lora_and_merging(folder, tied):
    model, config, loaders = toy_model(folder, "LCRec", **(TIED if tied else {}), tuning="lora")
    backbone, codes = model.backbone, model.vocabulary
    for _ in range(2):
        assert backbone.tied == tied == (codes.classifier is codes.embedding)
        one_step(model, config, loaders)
        assert (backbone.lm.get_output_embeddings().weight is backbone.text_table.weight) == tied
        if backbone.has_lora:
            backbone.merge_lora()


def test_a_target_without_a_layer_is_named_together_with_layers_that_exist():
    for family, target, known in (
        ("opt", "gate_proj", "fc1, fc2, k_proj"),
        ("llama", "out_proj", "o_proj, q_proj"),
        ("llama", "proj", "q_proj"),
    ):
        with pytest.raises(
            BackboneError,
            match=rf"lora_targets: '{target}' matches no layer of .*\. "
            rf"Its linear layers are .*{known}",
        ):
            Generator(family).backbone.add_lora(2, 4, 0.0, ["q_proj", target])
    with pytest.raises(
        BackboneError, match="'lm_head' matches no layer"
    ):  # no adapter on the text rows
        Generator("llama").backbone.add_lora(2, 4, 0.0, ["lm_head"])
    backbone = Generator("llama").backbone
    backbone.add_lora(2, 4, 0.0, ["layers.1.mlp.up_proj", "o_proj"])
    assert {
        name.split(".lora_")[0].split("layers.")[1]
        for name, p in backbone.named_parameters()
        if p.requires_grad
    } == {
        "0.self_attn.o_proj",
        "1.self_attn.o_proj",
        "1.mlp.up_proj",
    }


# --- gradient checkpointing ----------------------------------------------------------------------


def kept_for_backward(backbone, embeddings):
    """``(bytes that the forward pass keeps, gradients)``."""
    sizes = {}

    def note(tensor):
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = backbone.states(embeddings, torch.tensor([30, 50, 40, 60]), "pack").square().mean()
    loss.backward()
    return sum(sizes.values()), {
        name: p.grad for name, p in backbone.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_gradient_checkpointing_keeps_less_and_changes_no_gradient(family, tuning):
    found = []
    for checkpointing in (False, True):
        backbone = Generator(family).backbone.train()
        if tuning == "lora":
            torch.manual_seed(0)
            backbone.add_lora(2, 4, 0.0)
        if checkpointing:
            backbone.checkpoint_gradients()
        embeddings = torch.randn(180, backbone.d_in, generator=torch.Generator().manual_seed(1))
        found.append(kept_for_backward(backbone, embeddings))
    (plain, expected), (less, gradients) = found
    assert less < 0.7 * plain
    assert expected.keys() == gradients.keys() != set()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name])


def test_the_key_switches_checkpointing_on(folder):
    for value in (True, False):
        model, *_ = toy_model(folder, "LCRec", gradient_checkpointing=value)
        layer = model.backbone.stack.layers[0]
        assert layer.gradient_checkpointing is value


# --- the base of an adapter ----------------------------------------------------------------------


def test_facts_of_a_base_do_not_see_adapters_and_see_every_weight():
    model = Generator("llama")
    facts = base_facts(model.lm)
    model.backbone.add_lora(2, 4, 0.0)
    assert base_facts(model.backbone.lm) == facts
    for name, parameter in Generator("llama").lm.named_parameters():
        other = Generator("llama").lm
        with torch.no_grad():
            other.get_parameter(name).flatten()[-1] += 1e-3
        found = base_facts(other)
        assert {key for key in facts if facts[key] != found[key]} == {"weights"}, name
        assert parameter.shape == other.get_parameter(name).shape


def test_an_adapter_for_another_base_names_what_differs():
    facts = base_facts(Generator("llama").lm)
    check_base(facts, facts, "x")
    check_base(None, facts, "x")  # checkpoints that hold all weights know no base
    with pytest.raises(
        BackboneError,
        match="another base than models/b holds: hidden_size 64 there and 32 here, "
        "weights .* with the same",
    ):
        check_base({**facts, "hidden_size": 64, "weights": "0"}, facts, "models/b")
