"""LoRA adapters (arXiv 2106.09685) by peft, and the weights they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from recbole_genrec.backbone.protocol import TransformersModule
from recbole_genrec.errors import BackboneError

EDGE = 64  # values at each end of a weight that tell it from another


def attach_lora(
    lm: TransformersModule, rank: int, alpha: float, dropout: float, targets: list[str] | None
) -> TransformersModule:
    """``lm`` frozen, with a fresh adapter that trains.

    Args:
        lm: a causal language model of transformers.
        rank: of the adapter.
        alpha: scale of the adapter.
        dropout: of the adapter.
        targets: names of linear layers, all of which must exist; ``None`` = peft's default modules
            of the model family.

    Raises:
        BackboneError: a target that matches no layer, or a family for which peft has no default.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(lm, targets)
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft takes fractions too
        lora_dropout=dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(lm, settings)
    except ValueError as error:
        raise BackboneError(
            f"LoRA cannot be attached: {error}. Name the modules in lora_targets."
        ) from error


def check_targets(lm: TransformersModule, targets: Sequence[str] | None) -> None:
    """Check that every target names linear layers below the output layer.

    Args:
        lm: a causal language model of transformers.
        targets: last names of layers, or longer ends of their paths.

    Raises:
        BackboneError: a target names none.
    """
    head = lm.get_output_embeddings()
    paths = []
    for name, module in lm.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head:
            paths.append(name)
    for target in targets or ():
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            known = sorted({path.rpartition(".")[2] for path in paths})
            raise BackboneError(
                f"lora_targets: {target!r} matches no layer of {type(lm).__name__}. "
                f"Its linear layers are {', '.join(known[:12])}; use some of these, "
                "or lora_targets: ~ for the usual ones of the family."
            )


def save_adapter(lm: TransformersModule, folder: Path, base: str) -> dict[str, str]:
    """Write the adapter in peft's format.

    Args:
        lm: a language model with an adapter.
        folder: where to write.
        base: folder or hub id of the weights that it belongs on; ``""`` = none holds them.

    Returns:
        For each of its weights, the name in ``lm.state_dict()`` -> the name in
        ``adapter_model.safetensors``.
    """
    lm.peft_config["default"].base_model_name_or_path = base
    lm.save_pretrained(folder, save_embedding_layers=False)
    names = [name for name in lm.state_dict() if ".lora_" in name]
    return {name: name.replace(".default.", ".") for name in names}


def base_facts(lm: TransformersModule) -> dict[str, object]:
    """What an adapter's base must agree in: family, sizes, and the ends of every weight.

    An adapter on ``lm`` makes no difference.

    Args:
        lm: a causal language model of transformers, with or without an adapter.

    Returns:
        ``{"model_type", "hidden_size", "layers", "words", "weights"}``.
    """
    weights = []
    for name, weight in lm.named_parameters():
        if ".lora_" not in name:
            weights.append((_name_without_adapter(name), weight))

    digest = hashlib.sha256()
    for name, weight in sorted(weights):
        flat = weight.detach().flatten()
        ends = torch.cat([flat[:EDGE], flat[-EDGE:]]).float().cpu()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + ends.numpy().tobytes())
    return {
        "model_type": lm.config.model_type,
        "hidden_size": lm.config.hidden_size,
        "layers": lm.config.num_hidden_layers,
        "words": lm.get_input_embeddings().num_embeddings,
        "weights": digest.hexdigest()[:16],
    }


def _name_without_adapter(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def check_base(expected: dict | None, present: dict | None, backbone: str) -> None:
    """Check that an adapter meets the base it was trained on.

    Args:
        expected: :func:`base_facts` of the base it was trained on; ``None`` = unknown.
        present: those of the weights that were loaded; ``None`` = unknown.
        backbone: folder or hub id of the latter.

    Raises:
        BackboneError: they differ.
    """
    if not expected or present is None:
        return
    differing = [key for key in expected if expected[key] != present[key]]
    if differing:
        lines = [f"{key} {expected[key]} there and {present[key]} here" for key in differing]
        raise BackboneError(
            f"This adapter was trained on another base than {backbone} holds: {', '.join(lines)}. "
            "Set backbone to the folder or hub id it was trained on, with the same quantisation."
        )
