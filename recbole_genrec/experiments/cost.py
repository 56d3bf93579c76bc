"""What a training will need, said before it starts: memory, and the time of large models."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_genrec.config import GenRecConfig
from recbole_genrec.errors import BackboneError
from recbole_genrec.model.registry import is_generative
from recbole_genrec.runtime import processes
from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.training.memory import (
    TrainingMemory,
    available_memory,
    training_memory,
)

ADVICE = (
    "It may run out of memory. What needs less: --learner=adafactor or --learner=paged_adamw8bit "
    "(bitsandbytes), --nproc=N --fsdp=True on N GPUs; of methods with a causal language model "
    "--tuning=lora (also with --quantisation=8bit), and of LCRec --weights_precision=bf16."
)
SPEED = 1e14
"""Operations a second that the announced time stands on: a third of an A100's peak in bf16."""
PROMPT_TOKENS = 40
"""Tokens around the codes of a sequence, roughly."""
LARGE = 10**8
"""Weights from which a language model's cost is said before it is loaded."""


def memory_notice(model: AbstractRecommender, config: GenRecConfig) -> tuple[str, bool]:
    """How much memory the training of a built model takes.

    Args:
        model: what is trained.
        config: the settings of the run.

    Returns:
        The sentence, and whether it is a warning: there is less than that.
    """
    settings = config.settings
    memory = _per_process(training_memory(model.parameters(), settings.learner), config)
    sentence = f"Training takes {memory}."
    # The weights are there already.
    return _judged(sentence, memory.gradients + memory.state, settings.device)


def _judged(sentence: str, needed: int, device: torch.device) -> tuple[str, bool]:
    """The sentence, and whether the device has fewer free bytes than are needed."""
    free = available_memory(device)
    if needed <= free:
        return sentence, False
    return f"{sentence} {device} has {free / 1e9:.1f} GB left. {ADVICE}", True


def _per_process(memory: TrainingMemory, config: GenRecConfig) -> TrainingMemory:
    if config.settings.fsdp:
        return memory.shared(processes.size())
    return memory


# --- language models that are not loaded yet ------------------------------------------------------


def backbone_notice(config: GenRecConfig, lengths: Tensor) -> tuple[str, bool]:
    """Memory and time of a large pretrained causal language model, before it is loaded.

    Nothing is downloaded but its ``config.json``.

    Args:
        config: the settings of the run.
        lengths: of the histories of the training rows ``[rows]``.

    Returns:
        The sentence, and whether it is a warning; empty for other models.
    """
    declares = is_generative(config.model_class) and issubclass(
        config.model_class.settings_class, CausalBackboneKeys
    )
    if not declares or config["backbone"] in (None, "scratch"):
        return "", False
    settings: Any = config.view(config.model_class.settings_class)
    lm = skeleton(settings.backbone)
    if lm is None or sum(weight.numel() for weight in lm.parameters()) < LARGE:
        return "", False
    count = sum(weight.numel() for weight in lm.parameters())
    memory = _per_process(_expected_memory(lm, settings), config)
    hours = training_operations(count, lengths, settings) / SPEED / 3600
    sentence = (
        f"{settings.backbone} has {count / 1e9:.2f} billion weights. Training takes {memory}, and "
        f"at least {hours:.1f} hours at {SPEED:.0e} operations a second, roughly an A100's; "
        "further tasks come on top."
    )
    return _judged(sentence, memory.total, settings.device)


def skeleton(backbone: str) -> nn.Module | None:
    """A causal language model without its weights; ``None`` where its shape is not to be had.

    Args:
        backbone: folder or hub id.
    """
    from transformers import AutoModelForCausalLM

    from recbole_genrec.backbone.sources import stored_config

    try:
        shape = stored_config(backbone)
        shape.dtype = torch.float32
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(shape)
    except (OSError, ValueError, KeyError, BackboneError):
        return None  # loading it says what is wrong


def _expected_memory(lm: nn.Module, settings: Any) -> TrainingMemory:
    """The memory of training a language model as the keys say.

    Args:
        lm: with weights on the meta device.
        settings: of the method.
    """
    if getattr(settings, "weights_precision", "fp32") == "bf16":
        lm.to(torch.bfloat16)
    if settings.tuning != "lora":
        return training_memory(lm.parameters(), settings.learner)
    lm.requires_grad_(False)
    targets = settings.lora_targets or ["q_proj", "v_proj"]
    adapter = []
    for name, layer in lm.named_modules():
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in targets:
            size = settings.lora_rank * (layer.in_features + layer.out_features)
            adapter.append(torch.empty(size, device="meta", requires_grad=True))
    frozen = training_memory(lm.parameters(), settings.learner).weights
    share = {"8bit": 4, "4bit": 8, None: 1}[settings.quantisation]
    trained = training_memory(adapter, settings.learner)
    return TrainingMemory(frozen // share + trained.weights, trained.gradients, trained.state)


def training_operations(count: int, lengths: Tensor, settings: Any) -> float:
    """Floating-point operations of a training: 6 a weight and token, 8 with checkpointing.

    Args:
        count: weights of the language model.
        lengths: of the histories of the training rows ``[rows]``.
        settings: of the method.
    """
    n_codes = len(settings.codebook_sizes or [0]) + 1  # with the separator
    tokens = float((lengths.double() + 1).sum()) * n_codes + PROMPT_TOKENS * len(lengths)
    operations_per_weight = 8 if settings.gradient_checkpointing else 6
    return float(operations_per_weight * count * tokens * settings.epochs)
