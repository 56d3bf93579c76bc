"""Number formats by name, and which of them the hardware multiplies."""

from __future__ import annotations

import torch

NUMBER_FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats by the value of a key that names a precision."""


def multiplies_bf16(device: str) -> bool:
    """Whether products in bfloat16 are faster than in float32.

    Args:
        device: type of the device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        # older GPUs emulate it, which takes longer than float32
        return torch.cuda.is_bf16_supported(including_emulation=False)
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(is_supported())
