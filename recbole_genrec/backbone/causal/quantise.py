"""Frozen weights in 8 or 4 bits by bitsandbytes.

LLM.int8: arXiv 2208.07339; NF4: QLoRA, arXiv 2305.14314.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from recbole_genrec.errors import BackboneError


def loading_options(quantisation: str | None, device: torch.device | str) -> dict:
    """Arguments of transformers' ``from_pretrained``.

    Args:
        quantisation: ``8bit`` or ``4bit``; ``None`` = no arguments.
        device: where the weights are put.

    Raises:
        BackboneError: bitsandbytes is not installed, or ``device`` is no GPU.
    """
    if quantisation is None:
        return {}
    if find_spec("bitsandbytes") is None:
        raise BackboneError(
            f"quantisation: {quantisation} needs the package bitsandbytes, which is not installed: "
            "pip install bitsandbytes, or use quantisation: ~."
        )
    if torch.device(device).type != "cuda":
        raise BackboneError(
            f"quantisation: {quantisation} needs an NVIDIA GPU and a CUDA build of torch; "
            f"the device of this run is {device}. Use quantisation: ~ on the CPU."
        )
    return quantised_options(quantisation, device)


def quantised_options(quantisation: str, device: torch.device | str) -> dict:
    """The arguments without any check.

    Args:
        quantisation: ``8bit``, or ``4bit``: normal floats, with quantised scales, computed in
            bfloat16.
        device: where the weights are put.
    """
    from transformers import BitsAndBytesConfig

    settings: dict[str, dict] = {
        "8bit": {"load_in_8bit": True},
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": torch.bfloat16,
        },
    }
    return {
        "quantization_config": BitsAndBytesConfig(**settings[quantisation]),
        "device_map": {"": device},
    }
